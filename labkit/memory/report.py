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

    Breakdowns give bytes for every category: ``parameters``, ``gradients``, ``optimizer_gpu``, ``activations``,
    ``temporaries``, ``inputs``, ``unattributed``, and what is in host memory, ``parameters_cpu`` and ``optimizer_cpu``.
    """

    phase: str
    """``before_forward``, ``after_forward``, ``after_backward`` or ``after_optimizer_step``."""
    step: int
    micro_step: int
    end: dict[str, int]
    """Bytes by category at the end of the phase."""
    peak: dict[str, int]
    """Bytes by category when most device memory was allocated."""
    highest: dict[str, int]
    """Each category's own maximum inside the phase, in bytes; these need not happen together."""
    reserved_bytes: int | None = None
    """What the caching allocator has reserved at the end of the phase; None where there is none."""
    device_used_bytes: int | None = None
    """What the driver says is in use at the end of the phase; None where there is none."""

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
    """The reported steps of one run, in order. Predicted, simulated and CUDA runs give the same class.

        report.peak_bytes, report.peak_phase.phase
        report.at("after_forward", step=1).end["activations"]

    Sizes are in bytes; steps and micro steps count from 0.
    """

    source: Source
    """What made the numbers: ``predicted``, ``simulated GPU`` or ``CUDA``."""
    capacity_bytes: int | None = None
    """Where the device is out of memory; None where no capacity was given."""
    phases: list[PhaseMemory] = field(default_factory=list)
    """What was reported, oldest first."""

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
