"""The record: what one run was and how it ended."""

from dataclasses import dataclass, field
from typing import Any

from labkit.config.schema import hash_today
from labkit.ledger.errors import NewerError
from labkit.ledger.measured import add_phase, forget_from, highest, started
from labkit.ledger.shape import (
    Attempt,
    Config,
    Diagnosed,
    DiedIn,
    Memory,
    Model,
    OfRank,
    OutOfMemory,
    Predicted,
    Rung,
    Unpredicted,
    misfit,
)
from labkit.memory.report import MemoryReport

SCHEMA = 4
"""Version of a record's form, raised when a field comes or goes. Version 1 had no number, attempts, rung, diagnosis;
version 2 no ranks; version 3 no job."""


@dataclass(kw_only=True)
class Record:
    """What one run was and how it ended. ``status`` is ok, oom, killed, timeout, failed, skipped or running.

    ``died_in`` of an out-of-memory: optimizer step and micro step (both from 0) and the activity. ``out_of_memory``:
    the bytes asked for, and what held the memory by category. ``losses``: one value an optimizer step, None where it
    was not a finite number. ``samples``: seen in finished optimizer steps. ``model``: what ``weight_facts`` counts.
    ``others_bytes``: what other processes held on the GPU when the run started, None where nobody could say.
    ``attempts``: how the run ended before it resumed from a checkpoint, oldest first, and at which step it resumed.
    ``rung``: what a climb changed against its first run, and what was predicted of that.
    ``diagnosis``: what happened to a run that did not end well, the evidence, and what to do.
    ``prediction``: what was predicted for this run, as ``Prediction.to_dict`` gives it, or why not (``error``).
    ``ranks``: what ranks behind the first have measured, on several devices; ``memory`` is the first's.
    ``ended_by_rank``: the rank that ended such a run, when it did not end well.
    ``job``: the Slurm job that carried the run out, or went on with it last.
    ``schema``: the version of its form.
    """

    id: str
    experiment: str
    profile: str
    status: str
    overrides: dict[str, Any]
    config: Config
    config_hash: str
    created: str
    schema: int = SCHEMA
    expected: dict[str, Any] | None = None
    as_expected: bool | None = None
    reason: str | None = None
    died_in: DiedIn | None = None
    out_of_memory: OutOfMemory | None = None
    device: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    model: Model = field(default_factory=Model)
    others_bytes: int | None = None
    memory: Memory | None = None
    prediction: Predicted | Unpredicted | None = None
    peak_bytes: int = 0
    losses: list[float | None] = field(default_factory=list)
    samples: int = 0
    validation_losses: list[float | None] = field(default_factory=list)
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    exit_code: int | None = None
    attempts: list[Attempt] = field(default_factory=list)
    rung: Rung | None = None
    diagnosis: Diagnosed | None = None
    ranks: list[OfRank] = field(default_factory=list)
    ended_by_rank: int | None = None
    job: str | None = None

    @classmethod
    def from_dict(cls, data: Any) -> "Record":
        """The record of which ``data`` was made by this version or an older one; ``ValueError`` says what is wrong."""
        schema = data.get("schema", 1) if isinstance(data, dict) else 1
        if type(schema) is int and schema > SCHEMA:
            raise NewerError(f"its record has version {schema}, and this labkit reads {SCHEMA}")
        if wrong := misfit(cls, data):
            raise ValueError(f"its record does not fit: {wrong}")
        now = {"schema": SCHEMA, "config_hash": hash_today(data["config"], data["config_hash"])}
        return cls(**data | now)

    @property
    def report(self) -> MemoryReport | None:
        """The memory report; None when the run ended before the first reported phase."""
        return MemoryReport.from_dict(self.memory) if self.memory else None

    def apply(self, event: dict[str, Any]) -> None:
        """Let one event of the run become part of its record."""
        match event["event"]:
            case "start":
                self.device, self.versions, self.model = event["device"], event["versions"], event["model"]
                self.others_bytes = event.get("others_bytes")
                self.memory = started(self.memory, event)
            case "phase" if self.memory is not None:
                self.peak_bytes = max(self.peak_bytes, add_phase(self.memory, event))
            case "progress":
                self.losses += event["losses"]
                self.samples, self.train_seconds = event["samples"], event["train_seconds"]
            case "result":
                for key in ("status", "reason", "died_in", "out_of_memory", "validation_losses"):
                    if key in event:
                        setattr(self, key, event[key])
                self.ended_by_rank = event.get("rank")
                if not self.ended_by_rank:  # the peak is the first rank's
                    self.peak_bytes = max(self.peak_bytes, event.get("peak_bytes", 0))
            case "resumed":
                self._go_on(event)

    def _go_on(self, event: dict[str, Any]) -> None:
        """Forget what came after the checkpoint, but not how the run had ended."""
        step = event["step"]
        self.attempts.append(event["ended"] | {"resumed_at_step": step})
        self.losses = self.losses[:step]
        self.samples, self.train_seconds = event["samples"], event["train_seconds"]
        self.validation_losses = event["validation_losses"]
        self.job = event.get("job")
        if self.memory:
            forget_from(self.memory, step)
        self.status, self.exit_code = "running", None
        self.reason = self.died_in = self.out_of_memory = self.as_expected = self.ended_by_rank = None

    @property
    def category_peaks(self) -> dict[str, int]:
        """Highest bytes of each category, in a reported phase or when memory ran out."""
        return highest(self.memory, (self.out_of_memory or {}).get("held", {}))
