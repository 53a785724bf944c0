"""The record: what one run was and how it ended."""

from typing import Any

import msgspec

from labkit.config.profiles import Expected
from labkit.config.schema import hash_today
from labkit.ledger.errors import NewerError
from labkit.ledger.events import Progress, Result, Resumed, Start, facts_of
from labkit.ledger.measured import add_phase, forget_from, highest, started
from labkit.ledger.old_words import record_today
from labkit.ledger.parts import (
    Attempt,
    Diagnosis,
    DiedIn,
    Fallback,
    Model,
    OfRank,
    OutOfMemory,
    PredictedOrNot,
)
from labkit.ledger.shape import plain, shaped
from labkit.memory.report import MemoryReport, PhaseMemory

SCHEMA = 5
"""Version of a record's form, raised when a field comes or goes. Version 1 had no number, attempts, rung, diagnosis;
version 2 no ranks; version 3 no job. Version 5 has the words of today: ``fallback`` was ``rung``."""


class Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What one run was and how it ended: ``run`` returns it, ``Ledger.records`` finds those of before.

        record = run("baseline")
        record.status, record.died_in.phase, record.out_of_memory.held["activations"]

    What a run did not come to is None or empty.
    """

    id: str
    """Time of its start in UTC, and eight random digits; the name of its folder."""
    experiment: str
    profile: str
    status: str
    """ok, oom, killed, timeout, failed, skipped or running."""
    overrides: dict[str, Any]
    """Values that were typed for this run."""
    config: dict[str, Any]
    """All values; ``read_config`` makes a ``RunConfig`` of them."""
    config_hash: str
    """``RunConfig.hash`` of these values."""
    created: str
    """When the run began, in UTC, as ISO 8601 has it."""
    schema: int = SCHEMA
    """Version of the record's form."""
    expected: Expected | None = None
    """How the profile says that this experiment ends; None with typed values."""
    as_expected: bool | None = None
    """Whether it has ended so."""
    reason: str | None = None
    """One line on an end that is not ok."""
    died_in: DiedIn | None = None
    """Of an out-of-memory: optimizer step and micro step, both from 0, and the activity."""
    out_of_memory: OutOfMemory | None = None
    """The bytes asked for, and what held the memory by category."""
    device: str | None = None
    """Name of the device; of the simulated GPU what machine it was."""
    versions: dict[str, str] = {}
    """Versions of Python and the libraries."""
    model: Model = Model()
    """What ``weight_facts`` counts: parameters, trainable ones, bytes."""
    others_bytes: int | None = None
    """What other processes held on the GPU when the run started; None where that was not known."""
    memory: MemoryReport | None = None
    """Memory phase by phase; on several devices the first rank's."""
    prediction: PredictedOrNot | None = None
    """What was predicted for this run, as ``Prediction.to_dict`` gives it, or why not (``error``)."""
    peak_bytes: int = 0
    """Highest device bytes; on several devices the first rank's."""
    losses: list[float | None] = []
    """One value an optimizer step, None where it was not a finite number."""
    samples: int = 0
    """Samples seen in finished optimizer steps."""
    validation_losses: list[float | None] = []
    """One value an epoch, with ``val_fraction``."""
    train_seconds: float = 0.0
    """Seconds in training steps."""
    wall_seconds: float = 0.0
    """Seconds from start to end of the run's process, all attempts together."""
    exit_code: int | None = None
    """Of the run's process; negative for the signal that ended it."""
    attempts: list[Attempt] = []
    """How the run ended before it was resumed from a checkpoint, oldest first, and at which step."""
    fallback: Fallback | None = None
    """What auto-fit changed against the first run, and what was predicted of that."""
    diagnosis: Diagnosis | None = None
    """What happened to a run that did not end well, the evidence, and what to do."""
    ranks: list[OfRank] = []
    """What ranks after the first have measured, on several devices."""
    ended_by_rank: int | None = None
    """The rank that ended such a run, when it did not end well."""
    job: str | None = None
    """The Slurm job that carried the run out, or resumed it last."""

    @classmethod
    def from_dict(cls, data: Any) -> "Record":
        """The record of which ``data`` was made by this version or an older one; ``ValueError`` says what is wrong."""
        schema = data.get("schema", 1) if isinstance(data, dict) else 1
        if type(schema) is int and schema > SCHEMA:
            raise NewerError(f"its record has version {schema}, and this labkit reads {SCHEMA}")
        now = record_today(data) if type(schema) is int and schema < SCHEMA else data
        try:
            record = shaped(cls, now)
            shaped(_Values, now)
        except ValueError as error:
            raise ValueError(f"its record does not fit: {error}") from None
        record.schema, record.config_hash = SCHEMA, hash_today(data["config"], record.config_hash)
        return record

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; ``from_dict`` reads them."""
        return plain(self)

    def apply(self, event: dict[str, Any]) -> None:
        """Let one event of the run become part of its record."""
        match facts_of(event):
            case Start() as start:
                self.device, self.versions, self.model = start.device, start.versions, start.model
                self.others_bytes = start.others_bytes
                self.memory = started(self.memory, start)
            case PhaseMemory() as phase if self.memory is not None:
                self.peak_bytes = max(self.peak_bytes, add_phase(self.memory, phase))
            case Progress() as progress:
                self.losses += progress.losses
                self.samples, self.train_seconds = progress.samples, progress.train_seconds
            case Result() as result:
                self.status = result.status
                for key in ("reason", "died_in", "out_of_memory", "validation_losses"):
                    if (value := getattr(result, key)) is not None:
                        setattr(self, key, value)
                self.ended_by_rank = result.rank
                if not self.ended_by_rank:  # the peak is the first rank's
                    self.peak_bytes = max(self.peak_bytes, result.peak_bytes)
            case Resumed() as resumed:
                self._resume(resumed)

    def _resume(self, event: Resumed) -> None:
        """Forget what came after the checkpoint, but not how the run had ended."""
        self.attempts.append(msgspec.structs.replace(event.ended, resumed_at_step=event.step))
        self.losses = self.losses[: event.step]
        self.samples, self.train_seconds = event.samples, event.train_seconds
        self.validation_losses = event.validation_losses
        self.job = event.job
        if self.memory:
            forget_from(self.memory, event.step)
        self.status, self.exit_code = "running", None
        self.reason = self.died_in = self.out_of_memory = self.as_expected = self.ended_by_rank = None

    @property
    def every_rank(self) -> list[OfRank]:
        """What each rank has measured, on one device one."""
        held = self.out_of_memory.held if self.out_of_memory else None
        first = OfRank(
            rank=0, device=self.device, status=None, peak_bytes=self.peak_bytes, memory=self.memory, held=held
        )  # fmt: skip
        return [first, *self.ranks]

    @property
    def fullest(self) -> OfRank:
        """The rank with the highest peak; the first, unless another's is more than a percent above."""
        most = max(self.every_rank, key=lambda one: one.peak_bytes)
        return most if most.peak_bytes > 1.01 * self.peak_bytes else self.every_rank[0]

    @property
    def category_peaks(self) -> dict[str, int]:
        """Highest bytes of each category, in a reported phase or when memory ran out."""
        return highest(self.memory, self.out_of_memory.held if self.out_of_memory else {})


class _Config(msgspec.Struct):
    accumulate_grad_batches: int


class _Values(msgspec.Struct):
    """A run's values, as far as the ledger reads them itself."""

    config: _Config
