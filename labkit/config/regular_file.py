"""Regular file: open a path that a user gave, if it is a plain file, and read no more than a limit."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def open_regular(path: Path) -> BinaryIO:
    """``path``, or what it links to, opened to read; never blocks, as opening a pipe does.

    Raises ``OSError`` where there is nothing to open, and ``ValueError`` with the name for anything but a regular file.
    """
    _refuse_others(path, path.stat().st_mode)  # before it is opened: opening a device may do something
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_others(path, os.fstat(opened).st_mode)  # of what was opened, which may have taken its place
    except ValueError:
        os.close(opened)
        raise
    return os.fdopen(opened, "rb")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of at most ``most_bytes``.

    Raises ``OSError`` where it cannot be read, and ``ValueError`` with the name for a pipe, socket, device or folder,
    and for a larger file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > most_bytes else file.read(most_bytes + 1)
    if size > most_bytes or len(data) > most_bytes:  # one that grows has a size of its past
        raise ValueError(f"{path} has over {_words(most_bytes)}, which is more than it may have")
    return data


def _refuse_others(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((words for holds, words in _KINDS if holds(mode)), "something else")
        raise ValueError(f"{path} is {kind}, where a regular file is needed")


def _words(count: int) -> str:
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} bytes"
