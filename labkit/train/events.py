"""Events of the child process: one JSON object per line, so that a reader can attach at any time."""

import json
import time
from pathlib import Path
from typing import Any

from labkit.config.secrets import redact


class EventWriter:
    """Append events to a file; every event is whole on disk when ``write`` returns, and holds no secret.

    Kinds: ``start`` (device, versions, number of steps), ``phase`` (a ``PhaseMemory``), ``progress`` (steps done,
    losses since the last one), ``result`` (how the run ended, with all that belongs into its record).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, kind: str, **values: Any) -> None:
        """Add one event with the current time."""
        self._file.write(json.dumps({"event": kind, "time": time.time(), **redact(values)}) + "\n")
