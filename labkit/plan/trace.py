"""Trace: the life of every storage over the steps that were executed on ``meta``, whatever the capacity."""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from labkit.memory.report import MemoryReport

LOADED = "loaded"
"""Name of the mark after model and optimizer; each of the others is a phase's."""

Event = tuple[int | None, int] | tuple[None, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """Allocations and frees in order, and the report of the phases that they happened in.

    ``moves`` has the bytes of an allocation, or for a free minus the number of the move that allocated it, minus 1. A
    0 stands where cached segments are released (``torch.cuda.empty_cache``).
    ``operations`` has for each move an index into ``names``. ``marks`` are the numbers of moves after which the model
    was loaded and each phase of ``report`` ended. ``rank`` is the device's number. ``checkpoint_bytes`` is what one
    checkpoint takes on disk, ``loaded_bytes`` what loading the weights from a checkpoint brings onto the device.
    """

    moves: np.ndarray
    operations: np.ndarray
    names: list[str]
    marks: list[int]
    report: MemoryReport
    rank: int = 0
    checkpoint_bytes: int = 0
    loaded_bytes: int = 0

    @classmethod
    def of(
        cls, events: Iterable[tuple[int | None, int, Any]], marks: list[int], report: MemoryReport,
        checkpoint_bytes: int = 0, loaded_bytes: int = 0,
    ) -> "Trace":  # fmt: skip
        """The trace of a tracker's events. Raises ``ValueError`` for a free without an allocation."""
        moves: list[int] = []
        operations: list[int] = []
        numbers: dict[str, int] = {}
        allocated: dict[int | None, int] = {}
        for index, (key, size_bytes, operation_there) in enumerate(events):
            if size_bytes > 0:
                allocated[key] = index
                moves.append(size_bytes)
            elif key in allocated:
                moves.append(-allocated.pop(key) - 1)
            elif key is None:
                moves.append(0)
            else:
                raise ValueError(f"event {index}: {key!r} is freed and was not allocated")
            operations.append(numbers.setdefault(str(operation_there), len(numbers)))
        return cls(
            moves=np.array(moves, np.int64), operations=np.array(operations, np.int32), names=list(numbers),
            marks=marks, report=report, checkpoint_bytes=checkpoint_bytes, loaded_bytes=loaded_bytes,
        )  # fmt: skip

    @property
    def operation(self) -> str:
        """The operation that made the highest peak after loading."""
        start = self.marks[0]
        changes = np.maximum(self.moves, 0)
        frees = self.moves < 0
        changes[frees] = -self.moves[-self.moves[frees] - 1]
        return self.operation_of(start + int(np.cumsum(changes)[start:].argmax()))

    def first(self, steps: int | None) -> "Trace":
        """The part up to the end of so many optimizer steps; None is all of it."""
        phases = [p for p in self.report.phases if steps is None or p.step < steps]
        if len(phases) == len(self.report.phases):
            return self
        marks = self.marks[: len(phases) + 1]
        return dataclasses.replace(
            self, moves=self.moves[: marks[-1]], operations=self.operations[: marks[-1]], marks=marks,
            report=dataclasses.replace(self.report, phases=phases),
        )  # fmt: skip

    def events(self) -> Iterator[Event]:
        """What an allocator replays, with a mark after loading and after each phase."""
        start = 0
        names = [LOADED, *(p.phase for p in self.report.phases)]
        moves = self.moves.tolist()
        for name, end in zip(names, self.marks, strict=True):
            for index in range(start, end):
                move = moves[index]
                yield (index, move) if move > 0 else (-move - 1 if move else None, 0)
            yield None, name
            start = end

    def at(self, event: int) -> tuple[int, int]:
        """Of an index into ``events``: the number of the move, and of the marks before it."""
        passed = 0
        for number, end in enumerate(self.marks):  # each mark is an event of its own
            if event - number < end:
                break
            passed = number + 1
        return event - passed, passed

    def operation_of(self, move: int) -> str:
        """The operation that made a move."""
        return self.names[self.operations[move]]

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all."""
        facts = {
            "names": self.names, "marks": self.marks, "report": self.report.to_dict(),
            "rank": self.rank,
            "checkpoint_bytes": self.checkpoint_bytes, "loaded_bytes": self.loaded_bytes,
        }  # fmt: skip
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        try:
            with unfinished.open("wb") as file:
                np.savez_compressed(
                    file, moves=self.moves, operations=self.operations, facts=np.array(json.dumps(facts))
                )
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read what ``save`` wrote. Raises ``OSError`` or ``ValueError`` for a file that is not a trace."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                facts = json.loads(str(data["facts"]))
                report = MemoryReport.from_dict(facts.pop("report"))
                facts["loaded_bytes"]  # files of an earlier labkit lack it
                return cls(moves=data["moves"], operations=data["operations"], report=report, **facts)
        except (EOFError, BadZipFile, AttributeError, KeyError, TypeError) as error:  # each is numpy's way to say so
            raise ValueError(f"{path} is not a trace: {error}") from error
