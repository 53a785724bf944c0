"""Read a run's events while it goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class EventReader:
    """Events of a file that still grows; each call of ``new`` gives those since the last."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self.path = path
        self._offset = path.stat().st_size if from_end else 0

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
