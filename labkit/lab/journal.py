"""Journal: what a student answered and which checks held, kept beside the runs for grading."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.ledger.errors import LedgerError


class Journal:
    """``answers.jsonl`` in the ledger: one JSON object a line, only ever added to.

    ``kind`` is ``answer``, ``check``, ``derived``, ``written``, ``quiz`` or ``told``. An answer has ``lab, question,
    answer, unit, profile, mode`` and ``committed``: ``after`` where every run that it is about was there already or had
    been predicted, else ``before``. A check has ``lab, check, outcome, left, right, runs, profile, mode``, a derivation
    ``lab, derivation, outcome, given, runs, profile, mode``, where ``given`` are the results of its cases, an exercise
    ``lab, exercise, text``, a quiz ``lab, seed, when, answers``. What was told without a run of the course has ``lab,
    what, profile``: ``what`` is the config hash of a prediction, or says what else a cell has shown
    (``Question.told_by``).
    """

    def __init__(self, runs: Path) -> None:
        self.path = runs / "answers.jsonl"

    def add(self, kind: str, **values: Any) -> None:
        """Add one line with the current time. Raises ``LedgerError`` where nothing can be written."""
        line = json.dumps({"kind": kind, "time": datetime.now(UTC).isoformat(timespec="seconds"), **values}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.seek(0, 2) and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                    line = "\n" + line  # after one that a kernel has left torn
                file.write(line.encode())  # at once and at the end, also when several notebooks write
        except OSError as error:
            raise LedgerError(
                f"{self.path} cannot be written: {error.strerror}. Set LABKIT_RUNS to a folder that can."
            ) from None

    def entries(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """Lines of a kind with these values, oldest first; what is not JSON, such as a torn line, is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("kind") == kind:
                found.append(entry)
        return [entry for entry in found if all(entry.get(key) == value for key, value in wanted.items())]
