"""Words: a loss, an error, a place, what memory is held for, as a run's summary and its tables say them."""

from collections.abc import Mapping
from typing import Any

from labkit.config.catalogue.models import short_name
from labkit.memory.categories import HOST_CATEGORIES, NAMES
from labkit.memory.report import activity_of
from labkit.memory.units import human_bytes


def room_words(peak_bytes: int, capacity_bytes: int | None) -> str:
    """What a peak leaves of the capacity, ``17% free``, or how much more it needs: no share is below zero."""
    if capacity_bytes is None:
        return "no capacity given"
    if peak_bytes > capacity_bytes:
        return f"needs {human_bytes(peak_bytes - capacity_bytes)} more"
    return f"{1 - peak_bytes / capacity_bytes:.0%} free"


def error_words(error: float | None) -> str:
    """A signed error in percent; None where there is nothing to compare with."""
    return "-" if error is None else f"{error:+z.2%}"


def changed_words(changed: Mapping[str, list[Any]]) -> str:
    """``"batch_size 32 > 16, lr 0.0005 > 0.002"``."""

    def short(value: Any) -> str:
        return "-" if value is None else short_name(str(value))

    return ", ".join(f"{key} {short(old)} > {short(new)}" for key, (old, new) in changed.items())


def loss_words(loss: float | None) -> str:
    """A loss with three digits; None was not a finite number."""
    return "not a number" if loss is None else f"{loss:.3f}"


def activity(phase: str) -> str:
    """What is done in the time that a phase's report is about."""
    return activity_of(phase).replace("_", " ")


def place_words(died: Mapping[str, Any] | None) -> str:
    """Where a run died; empty where it did not, or where that is not known."""
    if not died or died.get("phase") is None:
        return ""
    return f"{died['phase'].replace('_', ' ')}, step {died['step']}"


def parts(by_category: Mapping[str, int]) -> str:
    """Largest first; what is in host memory stands after the rest."""
    on_device, on_host = [
        ", ".join(
            f"{NAMES.get(c, c.replace('_', ' '))} {human_bytes(n)}"
            for n, c in sorted(((n, c) for c, n in by_category.items() if n >= 2**10), reverse=True)
            if (c in HOST_CATEGORIES) == in_host_memory
        )
        for in_host_memory in (False, True)
    ]
    return f"{on_device}; in host memory {on_host}" if on_host else on_device
