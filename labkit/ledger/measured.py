"""Measured: the memory that a run's events tell of, as a record keeps it."""

from collections.abc import Mapping

from labkit.ledger.events import Start
from labkit.memory.categories import CATEGORIES
from labkit.memory.report import MemoryReport, PhaseMemory


def started(memory: MemoryReport | None, event: Start) -> MemoryReport:
    """The memory of a run that starts; one that is resumed keeps the phases that it has."""
    phases = memory.phases if memory else []
    return MemoryReport(source=event.source, capacity_bytes=event.capacity_bytes, phases=phases)


def add_phase(memory: MemoryReport, phase: PhaseMemory) -> int:
    """Take a phase in; its peak."""
    memory.phases.append(phase)
    return phase.peak_bytes


def forget_from(memory: MemoryReport, step: int) -> None:
    """Forget the phases from a step on: what came after the checkpoint is trained again."""
    memory.phases = [phase for phase in memory.phases if phase.step < step]


def highest(memory: MemoryReport | None, held: Mapping[str, int]) -> dict[str, int]:
    """Highest bytes of each category: in a reported phase, or ``held`` when memory ran out."""
    reported = memory.category_peaks if memory else {}
    return {category: max(reported.get(category, 0), held.get(category, 0)) for category in CATEGORIES}
