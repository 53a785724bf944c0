"""Read a run's events while it runs."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

from labkit.config.device import source_today
from labkit.ledger.own_file import open_own
from labkit.ledger.parts import Attempt, DiedIn, Model, OutOfMemory
from labkit.ledger.shape import shaped
from labkit.memory.report import PhaseMemory, Source


class Start(Struct, frozen=True, kw_only=True):
    """The event ``start``."""

    steps: int
    source: Source
    capacity_bytes: int | None
    device: str
    versions: dict[str, str]
    model: Model
    others_bytes: int | None = None


class Progress(Struct, frozen=True, kw_only=True):
    """The event ``progress``."""

    step: int
    losses: list[float | None]
    samples: int
    train_seconds: float


class Result(Struct, frozen=True, kw_only=True):
    """The event ``result``."""

    status: str
    reason: str | None = None
    died_in: DiedIn | None = None
    out_of_memory: OutOfMemory | None = None
    validation_losses: list[float | None] | None = None
    peak_bytes: int = 0
    rank: int | None = None
    exit_code: int | None = None


class Resumed(Struct, frozen=True, kw_only=True):
    """The event ``resumed``."""

    step: int
    samples: int
    train_seconds: float
    validation_losses: list[float | None]
    ended: Attempt
    job: str | None = None


Facts = Start | PhaseMemory | Progress | Result | Resumed

KINDS: dict[str, type[Facts]] = {
    "start": Start, "phase": PhaseMemory, "progress": Progress, "result": Result, "resumed": Resumed,
}  # fmt: skip
"""The events that a record is made of, and what each of them has to have."""

LONGEST_BYTES = 4 * 2**20
"""Longest line, in bytes; the longest of the course has 2 KB."""


LARGEST_LOSS = 1e300
"""A larger number counts as infinite: JSON may hold whole numbers that are too large for a float."""

MARK_BYTES = 256
"""How much of what was read last is kept, to see that a file is still the same."""


class EventReader:
    """Events of a file that still grows; each call of ``new`` gives those since the last.

    ``offset`` is the byte where the next one begins. ``skipped`` counts the lines that were not an event: damaged, too
    long, of an unknown kind or lacking something. ``more``: whether the last call has left whole lines for the next.
    ``replaced``: whether the file is another than the one that was read, or was cut; then nothing more comes.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.skipped = 0
        self.offset = offset
        self.more = self.replaced = False
        self._inside_long_line = False
        self._mark = b""
        self._inode: int | None = None
        self._read_to_end: tuple[int, int, int] | None = None

    def new(self, most_bytes: int | None = None) -> Iterator[dict[str, Any]]:
        """Events that have become whole since the last call. A line without an end is left for the next.

        Stops after the line that ``most_bytes`` end in. Raises ``OSError``, and ``ValueError`` for what is not a
        regular file.
        """
        try:
            file = open_own(self.path)
        except FileNotFoundError:
            self.replaced = self.replaced or self.offset > 0
            return
        with file:
            found = os.fstat(file.fileno())
            state = (found.st_ino, found.st_size, found.st_mtime_ns)
            if state == self._read_to_end:
                return
            self.replaced = self.replaced or not self._is_the_same(file, found)
            if not self.replaced:
                self._inode, self._read_to_end = found.st_ino, None  # the caller may stop at any event
                yield from self._read(file, most_bytes)
                self._read_to_end = None if self.more else state

    def _is_the_same(self, file: BinaryIO, found: os.stat_result) -> bool:
        """Whether the file is the one that was read, and still has what was read last."""
        if self._inode not in (None, found.st_ino):
            return False
        file.seek(self.offset - len(self._mark))
        return file.read(len(self._mark)) == self._mark

    def _read(self, file: BinaryIO, most_bytes: int | None) -> Iterator[dict[str, Any]]:
        self.more = False
        begin = self.offset
        file.seek(begin)
        while line := file.readline(LONGEST_BYTES):
            ended = line.endswith(b"\n")
            if not ended and len(line) < LONGEST_BYTES:
                return
            self.offset += len(line)
            self._mark = (self._mark + line[-MARK_BYTES:])[-MARK_BYTES:]
            event = read_event(line) if ended and not self._inside_long_line else None
            self._inside_long_line = not ended
            # before the event is given: the caller may stop there
            self.more = most_bytes is not None and self.offset - begin >= most_bytes
            if event is not None:
                yield event
            elif ended:
                self.skipped += 1
            if self.more:
                return


def read_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None for a line that is not an event. A loss that is not a finite number is None."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or event["event"] not in KINDS:
        return None
    for key in ("losses", "validation_losses"):
        if isinstance(event.get(key), list):
            event[key] = [None if _is_infinite(loss) else loss for loss in event[key]]
    try:
        facts_of(event)
    except ValueError:
        return None
    return event


def facts_of(event: dict[str, Any]) -> Facts:
    """What an event says, typed and in the words of today; ``ValueError`` when it is not what its kind must be."""
    values = values_of(event)
    if event["event"] == "start":
        values |= {key: source_today(values[key]) for key in ("source", "device") if isinstance(values.get(key), str)}
    return shaped(KINDS[event["event"]], values)


def values_of(event: dict[str, Any]) -> dict[str, Any]:
    """What an event says, without its kind and its time."""
    return {key: value for key, value in event.items() if key not in ("event", "time")}


def phase_of(event: dict[str, Any]) -> PhaseMemory:
    """The phase that an event ``phase`` tells of."""
    return PhaseMemory(**values_of(event))


def _is_infinite(loss: Any) -> bool:
    return type(loss) in (int, float) and not abs(loss) <= LARGEST_LOSS  # not so for NaN
