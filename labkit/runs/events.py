"""Read a run's events while it goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.memory.report import PhaseMemory
from labkit.runs.shape import Progress, Result, Resumed, Start, misfit

KINDS = {"start": Start, "phase": PhaseMemory, "progress": Progress, "result": Result, "resumed": Resumed}
"""The events that a record is made of, and what each of them has to have."""

LONGEST_BYTES = 4 * 2**20
"""What a line may have; the largest of the course has 2 KB."""


class EventReader:
    """Events of a file that still grows; each call of ``new`` gives those since the last.

    ``offset`` is the byte where the next one begins. ``skipped`` counts the lines that were no event: damaged, too
    long, of an unknown kind or lacking something.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.skipped = 0
        self.offset = offset
        self._inside_long_line = False

    def new(self) -> Iterator[dict[str, Any]]:
        """Events that have become whole since the last call. A line without an end is left for the next."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while line := file.readline(LONGEST_BYTES):
                ended = line.endswith(b"\n")
                if not ended and len(line) < LONGEST_BYTES:
                    return
                self.offset += len(line)
                event = read_event(line) if ended and not self._inside_long_line else None
                self._inside_long_line = not ended
                if event is not None:
                    yield event
                elif ended:
                    self.skipped += 1


def read_event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None for a line that is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str) or event["event"] not in KINDS:
        return None
    values = {key: value for key, value in event.items() if key not in ("event", "time")}
    return event if misfit(KINDS[event["event"]], values) is None else None
