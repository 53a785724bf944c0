"""Resume: continue a run where it stopped."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labkit.config.layers import Resolved
from labkit.config.place import Place
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.parts import Attempt
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.ledger.shape import plain
from labkit.runs.ranks.files import events_of_others

DONE = ("ok", "skipped")
"""How a run ends that has nothing left to do."""

ENDING_S = 6.0
"""How long to wait for what a killed run has left: a loader worker looks every 5 s whether its parent is there."""


def unfinished(ledger: Ledger, resolved: Resolved, environment: dict[str, str]) -> RunFolder | None:
    """The newest run with the same config and environment, if it stopped before its end and has saved a step."""
    if not resolved.config.enable_checkpointing:
        return None
    for folder in reversed(ledger.folders(resolved.profile.name, resolved.experiment.name)):
        try:
            record = folder.read()
        except LedgerError:  # another run's damage is no reason not to resume this one
            continue
        its_own = record.fallback.environment if record.fallback else {}
        if record.config_hash != resolved.config.hash or its_own != environment:
            continue
        deadline = time.monotonic() + ENDING_S
        while folder.is_watched and time.monotonic() < deadline:
            time.sleep(0.1)
        can_resume = (
            not folder.is_watched and folder.read().status not in DONE and folder.newest_checkpoint() is not None
        )
        return folder if can_resume else None
    return None


def prepare(folder: RunFolder, record: Record) -> tuple[Path, Record]:
    """Put down in the run's events that it is resumed; the checkpoint, and the record as it is then.

    The lock must be held. What had been written after the checkpoint is not counted any more; how the run had ended
    stays in ``attempts``. Raises ``LedgerError`` for a run that is done or has saved nothing.
    """
    if record.status in DONE:
        raise LedgerError(f"the run {record.id} has nothing left to do: it ended {record.status}.")
    place = folder.newest_checkpoint()
    if place is None:
        raise LedgerError(
            f"the run {record.id} has saved no step; run it again, with enable_checkpointing=true to save some."
        )
    # a record has the time of all attempts, and each attempt its own
    earlier_s = sum(attempt.wall_seconds for attempt in record.attempts)
    ended = Attempt(
        status=record.status, reason=record.reason, exit_code=record.exit_code, died_in=record.died_in,
        wall_seconds=max(0.0, round(record.wall_seconds - earlier_s, 3)),
    )  # fmt: skip
    try:
        at = asdict(Place.of(place.parent))
        known = {key: at[key] for key in ("step", "samples", "train_seconds", "validation_losses")}
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"{place.parent} is damaged ({error}); delete it to resume from the step before it."
        ) from None
    job = os.environ.get("SLURM_JOB_ID")
    event = {"event": "resumed", "time": time.time(), **known, "ended": plain(ended), "job": job}
    try:
        folder.stop.unlink(missing_ok=True)  # of an attempt whose watcher was killed before it looked
        for path in (*events_of_others(folder.path), folder.events):  # whose word counts, and so comes last
            _append(path, event)
    except OSError as error:
        raise LedgerError(f"{folder.events} cannot be written: {error.strerror}; make room.") from None
    record.apply(event)
    folder.record.unlink(missing_ok=True)  # from now on the events say how it is
    return place.parent, record


def _append(path: Path, event: dict[str, Any]) -> None:
    """Add a line, after the last that is whole: a child that was killed may have left a part of one."""
    with path.open("r+b") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)
        file.seek(0, 2)
        file.write(json.dumps(event).encode() + b"\n")
