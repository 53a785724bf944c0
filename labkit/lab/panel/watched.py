"""Watched: what the panel shows of one run, kept up to date as its files grow."""

import json
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from labkit.lab.panel.curve import Curve
from labkit.ledger.errors import LedgerError
from labkit.ledger.events import EventReader
from labkit.ledger.run_folder import UNWATCHED, RunFolder
from labkit.memory.categories import STACKED_CATEGORIES
from labkit.memory.report import PHASES

BYTES_AT_ONCE = 4 * 2**20
"""How much of the events one call reads at most."""

LARGEST_BYTES = 16 * 2**20
"""A larger config or record is not read: the server does nothing else while JSON is parsed."""

LAST_PHASES = 8
LONGEST_TEXT = 2000
LARGEST = 1e300
"""A number above it is as good as none; the page calculates with what is below."""


class Said(NamedTuple):
    """An answer in JSON. ``number`` is another one whenever the answer is another."""

    number: int
    more: bool
    answer: bytes


class Watched:
    """One run. Each ``read`` costs what is new since the last; its answer has some ten KB for a run of any length."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._said = Said(secrets.randbelow(10**12), False, b"")  # no page takes it for one of an earlier server
        self._told: tuple[Any, ...] = ()
        self._about: dict[str, Any] = {"title": folder.path.name}
        self._damage: str | None = None
        self._ended: dict[str, Any] = {}
        self._config_state: tuple[int, ...] | None = None
        self._record_state: tuple[int, ...] | None = None
        self._begin()

    def read(self) -> Said:
        """The current state of the run; where ``more`` is true, there are events that are not read yet."""
        more = False
        try:
            standing = self._standing()  # before the events: a run that has ended has no more of them
            self._read_config()
            if self._damage is None:
                more = self._read_events()
            else:
                standing = _unreadable(self._damage)
        except (OSError, ValueError) as error:
            standing = _unreadable(str(error))
        told = (standing, self._about, more)
        if self._news or told != self._told:
            answer = {
                "next": self._said.number + 1, "more": more, **self._about, **standing, **self._start,
                "phases": self._phases, "out_of_memory": self._held, "progress": self._progress,
                "losses": self._curve.to_dict(),
            }  # fmt: skip
            said = json.dumps(_plain(answer), allow_nan=False).encode()
            self._said = Said(self._said.number + 1, more, said)
            self._told, self._news = told, False
        return self._said

    def _begin(self) -> None:
        self._reader = EventReader(self.folder.events)
        self._curve = Curve()
        self._start: dict[str, Any] = {}
        self._phases: list[dict[str, Any]] = []
        self._progress: dict[str, Any] | None = None
        self._held: dict[str, int] | None = None
        self._news = True

    def _read_events(self) -> bool:
        """Take what is new, up to a limit; whether there is more."""
        for event in self._reader.new(BYTES_AT_ONCE):
            self._take(event)
        if self._reader.replaced:
            self._begin()
            return True
        return self._reader.more

    def _take(self, event: dict[str, Any]) -> None:
        self._news = True
        match event["event"]:
            case "start":
                self._start = {key: event[key] for key in ("steps", "device", "capacity_bytes")}
            case "phase" if event["phase"] in PHASES and event["micro_step"] == self._about["micro_steps"] - 1:
                phase = {"phase": event["phase"], "step": event["step"], "peak": _shown(event["peak"])}
                self._phases = [*self._phases, phase][-LAST_PHASES:]
            case "progress":
                self._curve.add(event["losses"])
                self._progress = {key: event[key] for key in ("step", "train_seconds")}
            case "resumed":  # what came after the step that it resumes at is trained again
                self._curve.cut(event["step"])
                self._phases = [phase for phase in self._phases if phase["step"] < event["step"]]
                self._held = None
            case "result":
                self._held = _shown(event["out_of_memory"]["held"]) if event.get("out_of_memory") else None

    def _read_config(self) -> None:
        state = _state(self.folder.config)
        if state == self._config_state:
            return
        self._config_state = state
        try:
            _refuse_large(self.folder.config, state)
            record = self.folder.read_begun()
        except (LedgerError, ValueError) as error:
            self._damage = str(error)
            return
        values = " ".join(f"{key}={value}" for key, value in sorted(record.overrides.items()))
        self._damage = None
        self._about = {
            "title": f"{record.experiment} {values}".strip(), "profile": record.profile, "id": record.id,
            "micro_steps": record.config.get("accumulate_grad_batches", 1),
        }  # fmt: skip

    def _standing(self) -> dict[str, Any]:
        state = _state(self.folder.record)
        if state is None:
            watched = self.folder.is_watched
            return {"status": "running" if watched else "killed", "reason": None if watched else UNWATCHED}
        if state != self._record_state:
            self._ended = self._read_record(state)
            self._record_state = state
        return self._ended

    def _read_record(self, state: tuple[int, ...]) -> dict[str, Any]:
        try:
            _refuse_large(self.folder.record, state)
            record = self.folder.read()
        except (LedgerError, ValueError) as error:
            return _unreadable(str(error))
        return {"status": record.status, "reason": record.reason, "peak_bytes": record.peak_bytes}


def _unreadable(why: str) -> dict[str, Any]:
    return {"status": "unreadable", "reason": why}


def _refuse_large(path: Path, state: tuple[int, ...] | None) -> None:
    if state is not None and state[1] > LARGEST_BYTES:
        raise ValueError(
            f"{path.name} has {state[1] / 2**20:.0f} MiB, more than the {LARGEST_BYTES >> 20} that a panel reads; "
            f"see 'labkit show {path.parent.name}'"
        )


def _state(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None without one."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _shown(categories: dict[str, int]) -> dict[str, int]:
    return {category: categories[category] for category in STACKED_CATEGORIES if category in categories}


def _plain(value: Any) -> Any:
    """``value`` with nothing that is not JSON or has no end: numbers that are not finite are None, text is cut."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]} ..."
    if isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:  # NaN is not between either
        return None
    return value
