"""Feed: what the panel needs to know of a run since it asked last."""

import re
from pathlib import Path
from typing import Any

from labkit.memory.report import CATEGORIES, HOST_CATEGORIES
from labkit.runs.events import EventReader
from labkit.runs.records import Ledger, LedgerError, RunFolder

EVENTS_AT_ONCE = 500
NEWEST = 20

NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)
"""What profiles, experiments and runs are called that have a panel; a file of one's own may be called otherwise."""


def find_run(runs: Path, profile: str, experiment: str, id: str) -> RunFolder | None:
    """The folder of a run by its names; None for one that is not in the ledger."""
    if not all(NAME.fullmatch(part) for part in (profile, experiment, id)):
        return None
    folder = RunFolder(runs / profile / experiment / id)
    return folder if folder.config.exists() else None


def newest(runs: Path) -> list[dict[str, str]]:
    """The newest runs of a ledger, the newest first: ``id, title, path``."""
    found = []
    for folder in Ledger(runs).folders()[: -NEWEST - 1 : -1]:
        id, experiment, profile = folder.path.name, folder.path.parent.name, folder.path.parents[1].name
        if all(NAME.fullmatch(part) for part in (profile, experiment)):
            found.append(
                {"id": id, "title": f"{experiment} on {profile}, {id}", "path": f"{profile}/{experiment}/{id}"}
            )
    return found


def feed(folder: RunFolder, offset: int) -> dict[str, Any]:
    """Events from byte ``offset`` on, at most ``EVENTS_AT_ONCE``, and how the run stands.

    ``next`` is the offset to ask from; ``more`` says that there is more already. ``status`` is ``running`` or how it
    ended, with ``reason``; ``unreadable`` where the folder is damaged. ``restart`` says that the file is not the one
    that ``offset`` was in.
    """
    found: dict[str, Any] = {"events": [], "more": False, "restart": False}
    size = folder.events.stat().st_size if folder.events.exists() else 0
    if offset > size:
        offset, found["restart"] = 0, True
    reader = EventReader(folder.events, offset)
    for event in reader.new():
        found["events"].append(_short(event))
        if len(found["events"]) == EVENTS_AT_ONCE:
            found["more"] = True
            break
    found["next"] = reader.offset
    if not found["more"]:  # how it stands is asked after the events: a run that has ended has no more of them
        found |= _standing(folder)
    if offset == 0:
        found |= _about(folder)
    return found


def _about(folder: RunFolder) -> dict[str, Any]:
    try:
        record = folder.read()
    except LedgerError as error:
        return {"title": folder.path.name, "reason": str(error)}
    values = " ".join(f"{key}={value}" for key, value in sorted(record.overrides.items()))
    return {
        "title": f"{record.experiment} {values}".strip(), "profile": record.profile, "id": record.id,
        "micro_steps": record.config.get("accumulate_grad_batches", 1),
        "categories": [category for category in CATEGORIES if category not in HOST_CATEGORIES],
    }  # fmt: skip


def _standing(folder: RunFolder) -> dict[str, Any]:
    if not folder.record.exists() and folder.is_watched:
        return {"status": "running", "reason": None}
    try:
        record = folder.read()
    except LedgerError as error:
        return {"status": "unreadable", "reason": str(error)}
    return {"status": record.status, "reason": record.reason, "peak_bytes": record.peak_bytes}


def _short(event: dict[str, Any]) -> dict[str, Any]:
    """An event without what the panel does not show."""
    if event["event"] == "phase":
        return {key: event[key] for key in ("event", "phase", "step", "micro_step", "peak")}
    return event
