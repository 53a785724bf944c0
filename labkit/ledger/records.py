"""The ledger: a folder a run, with a record that is whole or not there."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from labkit.config.layers import Resolved
from labkit.config.place import PLACE, saved_steps
from labkit.config.schema import hash_today
from labkit.config.secrets import redact
from labkit.ledger.events import EventReader
from labkit.ledger.own_file import open_own, refuse_link
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
    read_object,
)
from labkit.memory.report import CATEGORIES, MemoryReport, PhaseMemory
from labkit.memory.units import counted

SCHEMA = 4
"""Version of a record's form, raised when a field comes or goes. Version 1 had no number, attempts, rung, diagnosis;
version 2 no ranks; version 3 no job."""

UNWATCHED = "the process that watched it was killed; no record was written"
"""The reason of a run that nobody saw end."""


class _NewerError(ValueError):
    """A record of a newer labkit."""


class LedgerError(Exception):
    """The ledger cannot be written or a record cannot be read; the message says where and what to do."""


@dataclass(kw_only=True)
class Record:
    """What one run was and how it ended. ``status`` is ok, oom, killed, timeout, failed, skipped or running.

    ``died_in`` of an out-of-memory: optimizer step and micro step (both from 0) and the activity. ``out_of_memory``:
    the bytes asked for, and what held the memory by category. ``losses``: one value an optimizer step, None where it
    was not a finite number. ``samples``: seen in finished optimizer steps. ``model``: what ``weight_facts`` counts.
    ``others_bytes``: what other processes held on the GPU when the run started, None where nobody could say.
    ``attempts``: how the run ended before it went on from a saved step, oldest first, and at which step it went on.
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
    model: Model = field(default_factory=dict)
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
            raise _NewerError(f"its record has version {schema}, and this labkit reads {SCHEMA}")
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
                phases = self.memory["phases"] if self.memory else []  # of a run that goes on
                self.memory = {"source": event["source"], "capacity_bytes": event["capacity_bytes"], "phases": phases}
            case "phase" if self.memory is not None:
                phase = {key: value for key, value in event.items() if key not in ("event", "time")}
                self.memory["phases"].append(phase)
                self.peak_bytes = max(self.peak_bytes, PhaseMemory(**phase).peak_bytes)
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
        """Forget what came behind the saved step, but not how the run had ended."""
        step = event["step"]
        self.attempts.append(event["ended"] | {"resumed_at_step": step})
        self.losses = self.losses[:step]
        self.samples, self.train_seconds = event["samples"], event["train_seconds"]
        self.validation_losses = event["validation_losses"]
        self.job = event.get("job")
        if self.memory:
            self.memory["phases"] = [phase for phase in self.memory["phases"] if phase["step"] < step]
        self.status, self.exit_code = "running", None
        self.reason = self.died_in = self.out_of_memory = self.as_expected = self.ended_by_rank = None

    @property
    def category_peaks(self) -> dict[str, int]:
        """Highest bytes of each category, in a reported phase or when memory ran out."""
        report, held = self.report, (self.out_of_memory or {}).get("held", {})
        reported = report.category_peaks if report else {}
        return {c: max(reported.get(c, 0), held.get(c, 0)) for c in CATEGORIES}


class RunFolder:
    """One run on disk: ``config.json`` from the start, ``events.jsonl`` and ``log.txt`` while it runs,
    ``record.json`` at the end. While somebody watches the run, the folder is locked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.events = path / "events.jsonl"
        self.log = path / "log.txt"
        self.record = path / "record.json"
        self.lock: int | None = None
        """File descriptor of the lock, while this process holds it; the child keeps it too."""

    @property
    def is_watched(self) -> bool:
        """Whether a process is alive that watches this run, or is it."""
        try:
            with open_own(self.path / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (OSError, ValueError):  # no lock, none that anybody may open, or something else of its name
            return False
        return False

    def read(self) -> Record:
        """The record; of a run without one what is known: ``running``, or ``killed`` when nobody watches it.

        Raises ``LedgerError`` for a folder that is damaged.
        """
        return self._read(watched=None)

    def read_ended(self) -> Record:
        """The record of a run that nobody watches; the same as ``read`` for whoever holds its lock."""
        return self._read(watched=False)

    def read_begun(self) -> Record:
        """The record as it was when the run began, of its config alone; ``LedgerError`` for a damaged folder."""
        with self._damage():
            return self._begun()

    def _begun(self) -> Record:
        refuse_link(self.config)
        return Record.from_dict(read_object(self.config).get("record"))

    def _read(self, watched: bool | None) -> Record:
        with self._damage():
            if watched is None:
                watched = not self.record.exists() and self.is_watched
            if self.record.exists():  # asked again: a run that ended in between has one by now
                refuse_link(self.record)
                return Record.from_dict(read_object(self.record))
            record = self._begun()
            reader = EventReader(self.events)
            for event in reader.new():
                if event["event"] != "result":  # how it ended is known when somebody has seen it end
                    record.apply(event)
            if not watched:
                record.status, record.reason = "killed", UNWATCHED
            if reader.skipped:
                said = f"skipped {counted(reader.skipped, 'line')} of events.jsonl that cannot be read"
                record.reason = f"{record.reason}; {said}" if record.reason else said
            return record

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """What is wrong with the folder, as a ``LedgerError``."""
        try:
            yield
        except _NewerError as error:
            raise LedgerError(f"{self.path} cannot be read ({error}); update labkit.") from None
        except FileNotFoundError:
            if not self.path.is_dir():
                raise LedgerError(f"{self.path} is gone: somebody moved or removed the run's folder.") from None
            raise LedgerError(f"{self.path} holds no run, for it has no config.json; move the folder away.") from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise LedgerError(f"{self.path} holds no readable run ({why}); move the folder away.") from None

    def saved_step(self) -> Path | None:
        """The place of the newest step that the run has saved; None when there is none."""
        found = [place for saved in saved_steps(self.path) if (place := saved / PLACE).exists()]
        return found[-1] if found else None

    def write(self, record: Record) -> None:
        """Put the record there, whole or not at all; ``LedgerError`` when the disk does not take it."""
        try:
            write_whole(self.record, asdict(record))
        except OSError as error:
            if not self.path.is_dir():
                raise LedgerError(
                    f"{self.path} is gone: somebody moved or removed the run's folder while it ran. It ended with "
                    f"'{record.status}', and no record of it is left; run it again."
                ) from None
            raise LedgerError(
                f"{self.record} cannot be written: {error.strerror}. How the run ended ({record.status}) is in "
                f"{self.events.name} beside it; make room, or set LABKIT_RUNS to another disk."
            ) from None


class Ledger:
    """All runs below one folder: ``<profile>/<experiment>/<id>/``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def open_run(
        self, resolved: Resolved, overrides: dict[str, Any], extra: dict[str, Any], rung: Rung | None = None
    ) -> Iterator[RunFolder]:
        """Make a new run's folder and keep it locked while the context lasts.

        The folder gets its name when its ``config.json`` is whole. Raises ``LedgerError`` when it cannot be made.
        """
        parent = self.root / resolved.profile.name / resolved.experiment.name
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        record = Record(
            id=run_id, experiment=resolved.experiment.name, profile=resolved.profile.name, status="running",
            overrides=overrides, config=resolved.config.to_dict(), config_hash=resolved.config.hash,
            created=now.isoformat(timespec="seconds"),
            expected=asdict(resolved.expected) if resolved.expected else None, rung=rung,
            job=os.environ.get("SLURM_JOB_ID"),
        )  # fmt: skip
        hidden = parent / f".{run_id}"
        with contextlib.ExitStack() as stack:
            try:
                hidden.mkdir(parents=True)
                lock = stack.enter_context((hidden / "lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                request = {"config": record.config, "origins": resolved.origins, "record": asdict(record), **extra}
                write_whole(hidden / "config.json", request)
                folder = RunFolder(hidden.rename(parent / run_id))
                folder.lock = lock.fileno()
            except OSError as error:
                shutil.rmtree(hidden, ignore_errors=True)
                raise LedgerError(
                    f"the run's folder {parent} cannot be written: {error.strerror}. "
                    "Set LABKIT_RUNS to a folder that can."
                ) from None
            yield folder

    @contextlib.contextmanager
    def reopen(self, folder: RunFolder) -> Iterator[Record]:
        """Lock a run that is over, to go on with it; its record. Raises ``LedgerError`` while it still runs."""
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(open(folder.path / "lock", "a", opener=_at_once))
                _lock(lock)
            except BlockingIOError:
                raise LedgerError(f"the run {folder.path.name} still goes on; wait for its end, or stop it.") from None
            except OSError as error:
                raise LedgerError(f"the run's folder {folder.path} cannot be written: {error.strerror}.") from None
            record = folder.read_ended()
            folder.lock = lock.fileno()
            yield record
            folder.lock = None

    def folders(self, profile: str | None = None, experiment: str | None = None) -> list[RunFolder]:
        """Folders where runs lie, oldest first; a damaged one is among them, and says so when it is read."""
        found = [
            run
            for profiles in _entries(self.root, profile)
            for experiments in _entries(profiles, experiment)
            for run in _entries(experiments)
        ]
        return [RunFolder(Path(path)) for path in sorted(found, key=lambda path: path.rpartition("/")[2])]

    def records(
        self,
        profile: str | None = None,
        experiment: str | None = None,
        on_skipped: Callable[[LedgerError], None] = lambda error: None,
    ) -> list[Record]:
        """Records, oldest first, of runs that ended and that go on.

        ``on_skipped`` hears of each folder that cannot be read: which, why, and what to do.
        """
        found = []
        for folder in self.folders(profile, experiment):
            try:
                found.append(folder.read())
            except LedgerError as error:
                on_skipped(error)
        return found

    def find(self, run_id: str) -> RunFolder:
        """The run whose id is, or else begins with, ``run_id``; ``LedgerError`` when none or several do."""
        found = [folder for folder in self.folders() if folder.path.name.startswith(run_id)]
        found = [folder for folder in found if folder.path.name == run_id] or found
        if len(found) != 1:
            said = "no run" if not found else f"{len(found)} runs"
            raise LedgerError(f"{said} in {self.root} with an id that begins with '{run_id}'; see 'labkit compare'.")
        return found[0]


def _at_once(path: str, flags: int) -> int:
    """Open a lock, unless it is a link; where it is a pipe that nobody reads this fails, and does not wait."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)


def _lock(file: IO[str]) -> None:
    """Lock at once, or as soon as somebody has looked whether it is locked; ``BlockingIOError`` after a second."""
    deadline = time.monotonic() + 1
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _entries(folder: Path | str, name: str | None = None) -> list[str]:
    """Folders in a folder, without hidden ones; a link that leads nowhere counts, for somebody meant a folder."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry.path
                for entry in entries
                if name in (None, entry.name)
                and not entry.name.startswith(".")
                and (entry.is_symlink() or entry.is_dir())
            ]
    except OSError:
        return []


def write_whole(path: Path, data: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, and a crash leaves one of them.

    Secrets are taken out of it.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(redact(data), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
