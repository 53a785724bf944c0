"""Work: the runs, answers and checks of one submission, read as untrusted data."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig, keys, read_config
from labkit.grading.archive import ANSWERS, Submission, check_numbers, read_json
from labkit.lab.result import Result
from labkit.ledger.events import read_event
from labkit.ledger.records import Record

ENDED = ("ok", "oom")
"""How a run that says something ends."""


@dataclass(kw_only=True)
class Run:
    """One run as it was handed in.

    ``record`` is what its record says, ``replayed`` what its own events make of its start; None without events.
    ``config`` is None for a config that this labkit cannot read, which ``unread`` then explains. ``times`` are those
    of the events, in seconds since 1970.
    """

    folder: str
    record: Record
    replayed: Record | None
    times: list[float]
    ended: str | None
    """The status of its last event ``result``; None where it has none."""
    config: RunConfig | None
    unread: str = ""

    @functools.cached_property
    def result(self) -> Result:
        """It as evidence."""
        return Result(self.record)

    @functools.cached_property
    def created(self) -> datetime | None:
        """When it began, as it says; None where that is not a time."""
        return read_time(self.record.created)

    @property
    def device(self) -> str:
        """``cuda`` or ``simulated``, also of a config that cannot be read."""
        found = self.config.device if self.config else self.record.config.get("device")
        return found if isinstance(found, str) else ""

    @property
    def devices(self) -> int:
        """How many GPUs it held."""
        return self.config.devices if self.config else 1

    @functools.cached_property
    def config_hash(self) -> str | None:
        """The hash of its settings as they are; None for those that cannot be read."""
        return self.config.hash if self.config else None

    @property
    def tells(self) -> bool:
        """Whether lessons can be judged by it: it came to its end, and its settings are those that it names."""
        return self.record.status in ENDED and self.config_hash == self.record.config_hash


@dataclass(kw_only=True)
class Work:
    """What one student handed in. ``unread`` names what could not be read, with the reason."""

    submission: Submission
    runs: list[Run] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @functools.cached_property
    def by_id(self) -> dict[str, Run]:
        """Runs by their id."""
        return {run.record.id: run for run in self.runs}

    @functools.cached_property
    def by_lab(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Lines of the journal by kind and lab, the oldest first."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for entry in self.journal:
            found.setdefault((entry["kind"], entry["lab"]), []).append(entry)
        return found

    def told(self, profile: str, what: str) -> list[datetime | None]:
        """When a prediction of these settings, or what else a cell has shown, was told."""
        told = [lines for (kind, _), lines in self.by_lab.items() if kind == "told"]
        same = [e for lines in told for e in lines if e.get("what") == what and e.get("profile") == profile]
        return [read_time(entry["time"]) for entry in same]

    def same(self, profile: str, config_hash: str) -> list[Run]:
        """Runs with these settings on this profile, the oldest first."""
        return self._by_settings.get((profile, config_hash), [])

    @functools.cached_property
    def _by_settings(self) -> dict[tuple[str, str], list[Run]]:
        found: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            found.setdefault((run.record.profile, run.record.config_hash), []).append(run)
        return found


def read_work(submission: Submission) -> Work:
    """The work in a submission. What is damaged is left out and named; nothing raises."""
    work = Work(submission=submission)
    folders = {name.rpartition("/")[0] for name in submission.texts if name.startswith("runs/")}
    for folder in sorted(folders, key=lambda folder: folder.rpartition("/")[2]):
        try:
            work.runs.append(_run(folder, submission.texts))
        except ValueError as error:  # a ConfigError is one
            work.unread.append(f"{folder}: {error}")
    for number, line in enumerate(submission.texts.get(ANSWERS, b"").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            entry = read_json(line)
        except ValueError as error:
            work.unread.append(f"{ANSWERS} line {number}: {error}")
            continue
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("kind", "lab", "time")):
            work.journal.append(entry)
        else:
            work.unread.append(f"{ANSWERS} line {number}: no answer and no check")
    return work


def read_time(text: Any) -> datetime | None:
    """A time as records and journals have it, in UTC; None where it is not a time."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None


def _run(folder: str, texts: dict[str, bytes]) -> Run:
    if f"{folder}/config.json" not in texts:
        raise ValueError("it has no config.json")
    request = read_json(texts[f"{folder}/config.json"])
    start = Record.from_dict(request.get("record") if isinstance(request, dict) else None)
    lines = texts.get(f"{folder}/events.jsonl")
    check_numbers(lines or b"")
    times: list[float] = []
    ended = None
    for event in _events(lines or b""):
        if isinstance(event.get("time"), int | float):
            times.append(float(event["time"]))
        if event["event"] in ("result", "resumed"):
            ended = event.get("status")
        start.apply(event)
    record = start
    if f"{folder}/record.json" in texts:
        record = Record.from_dict(read_json(texts[f"{folder}/record.json"]))
    else:
        record.status = "running"  # how it ended is known once a watcher has seen it end
    config, unread = None, ""
    if missing := set(keys()) - record.config.keys():
        unread = f"its config has no {min(missing)}: it is of another version of labkit"
    else:
        try:
            config = read_config(dict(record.config))
        except ConfigError as error:
            unread = str(error)
    return Run(
        folder=folder, record=record, replayed=None if lines is None else start, times=times, ended=ended,
        config=config, unread=unread,
    )  # fmt: skip


def _events(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.split(b"\n"):
        event = read_event(line) if line else None
        if event is not None:
            yield event
