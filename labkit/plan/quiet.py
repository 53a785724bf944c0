"""Quiet: keep libraries from printing while they load; the user asked for a prediction."""

import logging
import warnings


def quiet_warnings() -> None:
    """Let bitsandbytes and transformers load without printing anything."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
