"""Own file: a file that lies in a run's folder itself. Links are refused, since they may lead to another user's
files."""

from pathlib import Path
from typing import BinaryIO

from labkit.config.regular_file import open_regular


def open_own(path: Path) -> BinaryIO:
    """``path`` opened to read; never waits.

    Raises ``OSError`` where it cannot be opened, and ``ValueError`` with the name for a link and for what is not a
    regular file.
    """
    refuse_link(path)
    return open_regular(path)


def refuse_link(path: Path) -> None:
    """Raise ``ValueError`` when ``path`` is a link: a run has none, and it may lead to what is not to be shown."""
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link, where a file of the run is needed")
