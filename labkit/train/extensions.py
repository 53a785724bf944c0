"""Extensions: what DeepSpeed compiles at its first use, by one process at a time."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

LOCK = "labkit.lock"


def set_folder() -> Path:
    """Where they are kept: a ``TORCH_EXTENSIONS_DIR`` that is set already is respected, else the Python environment."""
    return Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions")))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A context in which no other run compiles, or looks whether it has to, in ``TORCH_EXTENSIONS_DIR``.

    torch marks a build by a file ``lock`` and waits without end while it is there. A run that is killed during a build
    leaves the file, and every later run would wait. The lock here ends with its process, so a ``lock`` file found while
    holding it was left by a dead process.
    """
    folder = set_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for mark in folder.glob("*/lock"):
            mark.unlink(missing_ok=True)
        yield
