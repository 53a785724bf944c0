"""Private names of huggingface_hub, read in huggingface_hub 2.4 and 1.33."""

from huggingface_hub import constants

DEFAULT_ENDPOINT = constants._HF_DEFAULT_ENDPOINT
"""The hub's address where the environment names no other; ``constants.ENDPOINT`` has asked the environment already."""
