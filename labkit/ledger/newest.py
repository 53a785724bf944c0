"""The newest of many runs, without reading the others whole: the beginning of a record says which run it is."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.own_file import open_own
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder

_HEAD_BYTES = 4096
_HEAD = re.compile(
    r'\s*\{\s*"id": "[^"]*",\s*"experiment": "[^"]*",\s*"profile": "[^"]*",\s*"status": "[^"]*",\s*"overrides": (?=\{)'
)
"""How ``RunFolder.write`` begins a record, whose fields stand in the order of ``Record``."""

OnSkipped = Callable[[LedgerError], None]


def newest(ledger: Ledger, profile: str, on_skipped: OnSkipped = lambda error: None) -> list[Record]:
    """The newest run of each experiment and of each set of typed values on ``profile``, oldest first.

    ``on_skipped`` is called with the error of folders that cannot be read, as far as a newer run does not make them
    needless.
    """
    seen: set[tuple[str, str]] = set()
    found: list[Record] = []
    for folder in reversed(ledger.folders(profile)):
        experiment, values = folder.path.parent.name, _typed(folder)
        if values is not None and (experiment, _key(values)) in seen:
            continue
        if (record := _readable(folder, on_skipped)) is None:
            continue
        key = experiment, _key(record.overrides)
        if key not in seen:
            seen.add(key)
            found.append(record)
    return found[::-1]


def as_it_is(
    folders: Iterable[RunFolder], on_skipped: OnSkipped = lambda error: None
) -> tuple[RunFolder | None, RunFolder | None]:
    """Of an experiment's runs that can be read the newest without typed values, and the newest of all.

    Where all have typed values, the newest stands for both.
    """
    last: RunFolder | None = None
    for folder in sorted(folders, key=lambda folder: folder.path.name, reverse=True):
        if last is not None and _typed(folder):
            continue
        if (record := _readable(folder, on_skipped)) is None:
            continue
        last = last or folder
        if not record.overrides and record.fallback is None:
            return folder, last
    return last, last


def _readable(folder: RunFolder, on_skipped: OnSkipped) -> Record | None:
    try:
        return folder.read()
    except LedgerError as error:
        on_skipped(error)
        return None


def _key(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _typed(folder: RunFolder) -> dict[str, Any] | None:
    """The typed values of a run that is over, from the beginning of its record; None where that does not tell."""
    try:
        with open_own(folder.record) as file:
            text = file.read(_HEAD_BYTES).decode("utf-8", errors="replace")
        if (match := _HEAD.match(text)) is None:
            return None
        values, _ = json.JSONDecoder().raw_decode(text, match.end())
    except (OSError, ValueError):  # no record yet, no file, or values that are longer than that
        return None
    return values
