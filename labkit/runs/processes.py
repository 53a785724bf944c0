"""Processes of a run, found by their open files: a forked process has the command line of its server."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.runs.serving import shown_name

if TYPE_CHECKING:
    import psutil


def processes_of(folder: Path, module: str = "") -> list[int]:
    """Live processes, but this one, that have a file below ``folder`` open, or ``folder`` in their command line.

    Of a run these are the training process of each device, its loader workers, the one that watches several devices,
    and the prediction. ``module`` keeps those that run it.
    """
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and _runs(process, module) and _uses(process, folder):
                found.append(process.pid)
        except (psutil.Error, OSError):  # it has ended meanwhile, or is another user's
            continue
    return found


def _runs(process: "psutil.Process", module: str) -> bool:
    if process.status() == "zombie":
        return False
    return not module or module in process.cmdline() or process.name() == shown_name(module)


def _uses(process: "psutil.Process", folder: Path) -> bool:
    if any(str(folder) in word for word in process.cmdline()):
        return True
    below = f"{folder.resolve()}{os.sep}"
    return any(file.path.startswith(below) for file in process.open_files())
