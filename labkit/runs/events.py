"""Read a run's events while it goes on, and make a record of them when it is over."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.runs.records import Record


class EventReader:
    """Events of a file that still grows; each call of ``new`` gives those since the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Events that have become whole since the last call. A line without an end is left for the next."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)


def apply(record: Record, event: dict[str, Any]) -> None:
    """Let one event become part of the record."""
    match event["event"]:
        case "start":
            record.device, record.versions, record.model = event["device"], event["versions"], event["model"]
            record.memory = {"source": event["source"], "capacity_bytes": event["capacity_bytes"], "phases": []}
        case "phase":
            phase = {key: value for key, value in event.items() if key not in ("event", "time")}
            if record.memory is not None:
                record.memory["phases"].append(phase)
        case "progress":
            record.losses += event["losses"]
            record.train_seconds = event["train_seconds"]
        case "result":
            for key in ("status", "reason", "died_in", "out_of_memory", "validation_losses", "peak_bytes"):
                if key in event:
                    setattr(record, key, event[key])
