"""The lock of a run: its folder is locked while a process watches the run, on every machine that sees the disk."""

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO

from labkit.ledger.own_file import open_own

LOCK = "lock"
"""In a run's folder."""


@contextlib.contextmanager
def new_lock(folder: Path) -> Generator[IO[str]]:
    """Make the lock of a new run, and hold it."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock


@contextlib.contextmanager
def old_lock(folder: Path) -> Generator[IO[str]]:
    """Hold the lock of a run that is over; ``BlockingIOError`` while it still runs."""
    with open(folder / LOCK, "a", opener=_at_once) as lock:
        _lock(lock)
        yield lock


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a run."""
    try:
        with open_own(folder / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ValueError):  # no lock, one that may not be opened, or something else of its name
        return False
    return False


def _at_once(path: str, flags: int) -> int:
    """Open a lock, unless it is a link; where it is a pipe without a reader this fails, and does not wait."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)


def _lock(file: IO[str]) -> None:
    """Lock at once, or after a moment, when another process has only looked whether it is locked; ``BlockingIOError``
    after a second."""
    deadline = time.monotonic() + 1
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
