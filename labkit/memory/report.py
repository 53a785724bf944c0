"""MemoryReport: what held a device's memory, phase by phase, whatever made the numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import msgspec

from labkit.config.device import source_today
from labkit.memory.categories import CATEGORIES, on_device

PHASES = ("before_forward", "after_forward", "after_backward", "after_optimizer_step")
"""The four points of a step that are reported. A phase is the time that ends at its point."""

Source = Literal["predicted", "simulated GPU", "CUDA"]


def activity_of(phase: str) -> str:
    """What is done in the time that a phase's report is about, as ``died_in`` names it."""
    return "load_batch" if phase == "before_forward" else phase.removeprefix("after_")


class PhaseMemory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One phase of one micro step: the breakdown at its end, and at the moment of its highest total.

    ``end`` and ``peak`` give bytes for every category. ``highest`` gives each category's own maximum inside the
    phase; these need not happen together. ``reserved_bytes`` and ``device_used_bytes`` are the caching allocator's
    and the driver's numbers at the end of the phase, and None where neither exists.
    """

    phase: str
    step: int
    micro_step: int
    end: dict[str, int]
    peak: dict[str, int]
    highest: dict[str, int]
    reserved_bytes: int | None = None
    device_used_bytes: int | None = None

    @property
    def end_bytes(self) -> int:
        """Device bytes allocated at the end of the phase."""
        return on_device(self.end)

    @property
    def peak_bytes(self) -> int:
        """Highest number of device bytes allocated inside the phase."""
        return on_device(self.peak)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return msgspec.to_builtins(self)


@dataclass(kw_only=True)
class MemoryReport:
    """The reported steps of one run, in order. Predicted, simulated and CUDA runs give the same class."""

    source: Source
    capacity_bytes: int | None = None
    phases: list[PhaseMemory] = field(default_factory=list)

    @property
    def peak_phase(self) -> PhaseMemory | None:
        """The phase with the highest peak; the first of equals; None when nothing was reported."""
        return max(self.phases, key=lambda p: p.peak_bytes, default=None)

    @property
    def peak_bytes(self) -> int:
        """Highest number of device bytes allocated in any reported phase."""
        return self.peak_phase.peak_bytes if self.peak_phase else 0

    @property
    def by_phase(self) -> dict[str, PhaseMemory]:
        """Of each phase the occurrence with the highest peak, in the order of a step."""
        found = {}
        for name in PHASES:
            same = [p for p in self.phases if p.phase == name]
            if same:
                found[name] = max(same, key=lambda p: p.peak_bytes)
        return found

    @property
    def category_peaks(self) -> dict[str, int]:
        """Highest bytes of each category in any reported phase. They need not happen together."""
        return {c: max((p.highest.get(c, 0) for p in self.phases), default=0) for c in CATEGORIES}

    def at(self, phase: str, step: int, micro_step: int = 0) -> PhaseMemory:
        """One reported phase; ``KeyError`` names it when it was not reported."""
        for p in self.phases:
            if (p.phase, p.step, p.micro_step) == (phase, step, micro_step):
                return p
        raise KeyError(f"no report of {phase} in step {step}, micro step {micro_step}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "source": self.source,
            "capacity_bytes": self.capacity_bytes,
            "phases": [p.to_dict() for p in self.phases],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "MemoryReport":
        """The report that ``to_dict`` was made from."""
        phases = [PhaseMemory(**p) for p in data["phases"]]
        return cls(
            source=cast("Source", source_today(data["source"])), capacity_bytes=data["capacity_bytes"], phases=phases
        )
