"""Measured: the memory that a run's events tell of, in the form in which a record keeps it."""

from collections.abc import Mapping
from typing import Any

from labkit.ledger.events import phase_of, values_of
from labkit.ledger.shape import Memory
from labkit.memory.categories import CATEGORIES
from labkit.memory.report import MemoryReport


def started(memory: Memory | None, event: dict[str, Any]) -> Memory:
    """The memory of a run that starts; one that goes on keeps the phases that it has."""
    phases = memory["phases"] if memory else []
    return {"source": event["source"], "capacity_bytes": event["capacity_bytes"], "phases": phases}


def add_phase(memory: Memory, event: dict[str, Any]) -> int:
    """Take a phase in; its peak."""
    memory["phases"].append(values_of(event))
    return phase_of(event).peak_bytes


def forget_from(memory: Memory, step: int) -> None:
    """Forget the phases from a step on: what came after the checkpoint is trained again."""
    memory["phases"] = [phase for phase in memory["phases"] if phase["step"] < step]


def highest(memory: Memory | None, held: Mapping[str, int]) -> dict[str, int]:
    """Highest bytes of each category: in a reported phase, or ``held`` when memory ran out."""
    reported = MemoryReport.from_dict(memory).category_peaks if memory else {}
    return {category: max(reported.get(category, 0), held.get(category, 0)) for category in CATEGORIES}
