"""Parts: what a record is made of, as typed objects. They are read from JSON at the door, and written back as they
were: in those with ``omit_defaults`` a None that is the default stands for a key that is not there. Keys that this
version does not know are passed over."""

from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from labkit.memory.report import MemoryReport


class DiedIn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a run died; both steps count from 0. A prediction names the ``operation`` that would not have fitted."""

    step: int
    micro_step: int
    phase: str
    operation: str | None = None
    rank: int | None = None


class OutOfMemory(Struct, frozen=True, kw_only=True):
    """What was asked for, and what held the memory; ``requested_bytes`` and ``operation`` are known to the simulated
    GPU alone."""

    requested_bytes: int | None
    capacity_bytes: int | None
    allocated_bytes: int
    operation: str | None = None
    held: dict[str, int]


class PredictedOrNot:
    """What was predicted for a run: ``Predicted``, or ``Unpredicted`` with the reason."""


@dataclass(kw_only=True)
class Predicted(MemoryReport, PredictedOrNot):
    """What ``Prediction.to_dict`` gives; the first version had no ``warm_up_bytes``, and older ones no ``rank``."""

    operation: str | None = None
    rank: int | UnsetType = UNSET
    reserved_bytes: int | None = None
    verdict: str | None
    margin: float | None = None
    died_in: DiedIn | None
    requested_bytes: int | None = None
    checkpoint_bytes: int = 0
    warm_up_bytes: int | UnsetType = UNSET
    reserved_without_warm_up_bytes: int | None | UnsetType = UNSET
    host_bytes: int = 0


@dataclass(frozen=True)
class Unpredicted(PredictedOrNot):
    """Why there is no prediction."""

    error: str


class Model(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``weight_facts`` counts; nothing of a model that was not made, and the last two of one in 4 bits."""

    parameters: int | None = None
    trainable: int | None = None
    parameter_bytes: int | None = None
    quantized_bytes: int | None = None
    unquantized_bytes: dict[str, int] | None = None


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run ended before it was resumed."""

    status: str
    reason: str | None
    exit_code: int | None
    died_in: DiedIn | None
    wall_seconds: float
    resumed_at_step: int | None = None


class Fallback(Struct, frozen=True, kw_only=True):
    """What auto-fit changed against the first run, whose id is ``of``, and what was predicted of that.

    The fields are those of ``Proposal.to_dict``; ``planned_share`` is the share of the capacity that it was planned
    with.
    """

    changes: list[str] = []
    overrides: dict[str, Any]
    environment: dict[str, str]
    kind: str
    cost: str
    verdict: str | None = None
    margin: float | None = None
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    host_bytes: int | None = None
    saved_bytes: int | None = None
    planned_share: float | None = None
    of: str


class OfRank(Struct, kw_only=True, omit_defaults=True):
    """What a rank after the first has measured; ``held`` when its memory ran out."""

    rank: int
    device: str | None
    status: str | None
    peak_bytes: int
    memory: MemoryReport | None
    held: dict[str, int] | None = None


class Diagnosis(Struct, frozen=True, kw_only=True):
    """What happened to a run that did not end well. ``kind`` is a short identifier, ``happened`` some sentences.

    ``evidence`` has quoted lines and numbers, ``next_steps`` commands to type, with the reason after a ``#``.
    """

    kind: str
    happened: str
    evidence: list[str]
    next_steps: list[str]

    def lines(self) -> list[str]:
        """For people: what happened, the evidence, what to do."""
        parts = {"What happened": [self.happened], "Evidence": self.evidence, "What to do": self.next_steps}
        return [line for title, lines in parts.items() for line in (title, *(f"  {line}" for line in lines))]
