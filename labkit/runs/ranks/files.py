"""Rank files: what each rank of a run on several devices has left in the run's folder.

Rank 0 has ``events.jsonl`` and ``log.txt``, as a run on one device; rank 1 has ``events.rank1.jsonl`` and
``log.rank1.txt``.
"""

import contextlib
from pathlib import Path
from typing import Any

from labkit.ledger.events import EventReader, Result, Resumed, Start, facts_of
from labkit.ledger.measured import add_phase, forget_from, highest, started
from labkit.ledger.parts import OfRank
from labkit.ledger.records import Record
from labkit.memory.report import PhaseMemory


def events_of(folder: Path, rank: int) -> Path:
    """The events of a rank."""
    return folder / (f"events.rank{rank}.jsonl" if rank else "events.jsonl")


def log_of(folder: Path, rank: int | None) -> Path:
    """What a rank has printed; None is the first."""
    return folder / (f"log.rank{rank}.txt" if rank else "log.txt")


def events_of_others(folder: Path) -> list[Path]:
    """The events of all ranks after the first that have any."""
    return sorted(folder.glob("events.rank*.jsonl"))


def logs(folder: Path) -> list[Path]:
    """The logs of all ranks that have one."""
    return sorted(folder.glob("log*.txt"))


def other_ranks(folder: Path) -> list[OfRank]:
    """What ranks 1 and up have measured, for ``Record.ranks``: ``rank, device, status, peak_bytes, memory``."""
    found: list[OfRank] = []
    rank = 1
    while (path := events_of(folder, rank)).exists():
        seen = OfRank(rank=rank, device=None, status=None, peak_bytes=0, memory=None)
        with contextlib.suppress(OSError, ValueError):  # a rank's file that cannot be read costs the run no record
            for event in EventReader(path).new():
                _apply(seen, event)
        found.append(seen)
        rank += 1
    return found


def _apply(seen: OfRank, event: dict[str, Any]) -> None:
    match facts_of(event):
        case Start() as start:
            seen.device = start.device
            seen.memory = started(seen.memory, start)
        case PhaseMemory() as phase if seen.memory is not None:
            seen.peak_bytes = max(seen.peak_bytes, add_phase(seen.memory, phase))
        case Result() as result:
            seen.status = result.status
            seen.peak_bytes = max(seen.peak_bytes, result.peak_bytes)
            if result.out_of_memory is not None:
                seen.held = result.out_of_memory.held
        case Resumed() as resumed:
            seen.status = seen.held = None
            if seen.memory is not None:
                forget_from(seen.memory, resumed.step)


def side_by_side(record: Record) -> list[dict[str, Any]]:
    """A row for each rank of a record: ``rank, status, peak_bytes`` and ``by_category``, its own highest of each.

    Empty for a run on one device.
    """
    if not record.ranks:
        return []
    return [
        {
            "rank": one.rank, "status": one.status, "peak_bytes": one.peak_bytes,
            "by_category": highest(one.memory, one.held or {}),
        }
        for one in record.every_rank
    ]  # fmt: skip
