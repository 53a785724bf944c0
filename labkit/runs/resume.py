"""Resume: go on with a run where it stopped."""

import json
import time
from pathlib import Path
from typing import Any

from labkit.config.layers import Resolved
from labkit.runs.records import Ledger, LedgerError, Record, RunFolder

DONE = ("ok", "skipped")
"""How a run ends that has nothing left to do."""

ENDING_S = 6.0
"""How long to wait for what a killed run has left: a loader worker looks every 5 s whether its parent is there."""


def unfinished(ledger: Ledger, resolved: Resolved) -> RunFolder | None:
    """The newest run of the experiment, if it is the same one, stopped before its end and has saved a step."""
    if not resolved.config.enable_checkpointing:
        return None
    folders = ledger.folders(resolved.profile.name, resolved.experiment.name)
    deadline = time.monotonic() + ENDING_S
    while folders and folders[-1].is_watched and time.monotonic() < deadline:
        time.sleep(0.1)
    if not folders or folders[-1].is_watched:
        return None
    record = folders[-1].read()
    same = record.config_hash == resolved.config.hash and record.status not in DONE
    return folders[-1] if same and folders[-1].saved_step() else None


def prepare(folder: RunFolder, record: Record) -> tuple[Path, Record]:
    """Put down in the run's events that it goes on; the saved step, and the record as it is then.

    The lock must be held. What had been written behind the saved step is not counted any more; how the run had ended
    stays in ``attempts``. Raises ``LedgerError`` for a run that is done or has saved nothing.
    """
    if record.status in DONE:
        raise LedgerError(f"the run {record.id} has nothing left to do: it ended {record.status}.")
    place = folder.saved_step()
    if place is None:
        raise LedgerError(
            f"the run {record.id} has saved no step; run it again, with enable_checkpointing=true to save some."
        )
    at = json.loads(place.read_text(encoding="utf-8"))
    ended = {key: getattr(record, key) for key in ("status", "reason", "exit_code", "died_in", "wall_seconds")}
    event = {
        "event": "resumed", "time": time.time(), "step": at["step"], "samples": at["samples"],
        "train_seconds": at["train_seconds"], "validation_losses": at["validation_losses"], "ended": ended,
    }  # fmt: skip
    _append(folder.events, event)
    record.apply(event)
    folder.record.unlink(missing_ok=True)  # from now on the events say how it is
    return place.parent, record


def _append(path: Path, event: dict[str, Any]) -> None:
    """Add a line, behind the last that is whole: a child that was killed may have left a part of one."""
    with path.open("r+b") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)
        file.seek(0, 2)
        file.write(json.dumps(event).encode() + b"\n")
