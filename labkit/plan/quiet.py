"""Quiet: what libraries say while they load is not for the user who asked for a prediction."""

import logging
import warnings


def quiet_warnings() -> None:
    """Let bitsandbytes and transformers load without a word."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
