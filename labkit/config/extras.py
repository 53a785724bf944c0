"""Extras: libraries that not every installation has, and the command that brings them."""

from importlib.util import find_spec

from labkit.config.schema import RunConfig

EXTRAS = {"deepspeed": "gpu", "datasets": "gpu", "matplotlib": "course", "ipywidgets": "course"}
"""Which of the package's extras brings a library."""


def missing(library: str) -> str | None:
    """Why a library cannot be used and what installs it, in a line; None where it is installed."""
    if find_spec(library) is not None:
        return None
    return f"{library} is not installed: pip install 'labkit[{EXTRAS[library]}]'"


def missing_for(config: RunConfig) -> str | None:
    """Why a run cannot start without a library, and what installs it, in a line; None where nothing is missing."""
    if not config.placement.uses_zero and config.optim != "deepspeed_cpu":
        return None
    reason = missing("deepspeed")
    return reason and f"optim={config.optim} with strategy={config.strategy}: {reason}"
