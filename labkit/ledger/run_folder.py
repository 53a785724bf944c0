"""The folder of a run: what lies in it, and its record, which is whole or not there."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from labkit.config.place import PLACE, checkpoints
from labkit.ledger.errors import LedgerError, NewerError
from labkit.ledger.events import EventReader
from labkit.ledger.lock import is_locked
from labkit.ledger.own_file import refuse_link
from labkit.ledger.records import Record
from labkit.ledger.shape import read_object
from labkit.ledger.whole_file import write_whole
from labkit.memory.units import counted

UNWATCHED = "the process that watched it was killed; no record was written"
"""The reason of a run whose end was not seen."""


class RunFolder:
    """One run on disk: ``config.json`` from the start, ``events.jsonl`` and ``log.txt`` while it runs,
    ``record.json`` at the end. While a process watches the run, the folder is locked; ``stop`` in it asks that process
    to stop the run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.events = path / "events.jsonl"
        self.log = path / "log.txt"
        self.record = path / "record.json"
        self.stop = path / "stop"
        self.lock: int | None = None
        """File descriptor of the lock, while this process holds it; the child keeps it too."""

    @property
    def held_lock(self) -> int:
        """The ``lock`` of a run that this process has opened."""
        if self.lock is None:
            raise RuntimeError(f"{self.path} is not locked by this process, which is about to work in it")
        return self.lock

    @property
    def is_watched(self) -> bool:
        """Whether a process is alive that watches this run, or is it."""
        return is_locked(self.path)

    def request_stop(self) -> None:
        """Ask the process that watches this run to stop it, on whatever machine that is; it looks all the time.

        Raises ``LedgerError`` for a run that no process watches, and where nothing can be written.
        """
        if self.record.exists() or not self.is_watched:
            raise LedgerError(f"the run {self.path.name} is over; there is nothing to stop.")
        try:
            # never through a link, and what is there already has asked
            os.close(os.open(self.stop, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
        except OSError as error:
            raise LedgerError(f"{self.stop} cannot be written: {error.strerror}. Stop the run with Ctrl-C.") from None

    @property
    def stop_requested(self) -> bool:
        """Whether ``request_stop`` was called since the run began or was resumed."""
        return self.stop.exists()

    def read(self) -> Record:
        """The record; of a run without one what is known: ``running``, or ``killed`` when no process watches it.

        Raises ``LedgerError`` for a folder that is damaged.
        """
        return self._read(watched=None)

    def read_ended(self) -> Record:
        """The record of a run that no process watches; the same as ``read`` for the one that holds its lock."""
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
                if event["event"] != "result":  # how it ended is known once a watcher has seen it end
                    record.apply(event)
            if not watched:
                record.status, record.reason = "killed", UNWATCHED
            if reader.skipped:
                said = f"skipped {counted(reader.skipped, 'line')} of events.jsonl that cannot be read"
                record.reason = f"{record.reason}; {said}" if record.reason else said
            return record

    @contextlib.contextmanager
    def _damage(self) -> Generator[None]:
        """What is wrong with the folder, as a ``LedgerError``."""
        try:
            yield
        except NewerError as error:
            raise LedgerError(f"{self.path} cannot be read ({error}); update labkit.") from None
        except FileNotFoundError:
            if not self.path.is_dir():
                raise LedgerError(f"{self.path} is gone: somebody moved or removed the run's folder.") from None
            raise LedgerError(f"{self.path} holds no run, for it has no config.json; move the folder away.") from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise LedgerError(f"{self.path} holds no readable run ({why}); move the folder away.") from None

    def newest_checkpoint(self) -> Path | None:
        """The place of the newest step that the run has saved; None when there is none."""
        found = [place for saved in checkpoints(self.path) if (place := saved / PLACE).exists()]
        return found[-1] if found else None

    def write(self, record: Record) -> None:
        """Put the record there, whole or not at all; ``LedgerError`` when the disk does not take it."""
        try:
            write_whole(self.record, record.to_dict())
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
