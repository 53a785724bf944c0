"""Kept: where a run has put what it learnt, and whether it can be used, found out without importing anything heavy."""

import os
from pathlib import Path

from labkit.train.errors import CheckpointError

MODEL, ADAPTER = "model", "adapter"
"""Folders below a run's own: the whole model, or the adapter that it has trained."""


def weights_of(folder: Path) -> Path:
    """The folder with what a run has trained; ``CheckpointError`` for one that has kept nothing."""
    for name in (MODEL, ADAPTER):
        if (folder / name).is_dir():
            return folder / name
    raise CheckpointError(f"{folder.name} has kept no weights; run it again with save_model=true.")


def adapter_of(folder: Path) -> Path:
    """The folder with the adapter that a run has trained; ``CheckpointError`` for one that has none."""
    found = weights_of(folder)
    if found.name == MODEL:
        raise CheckpointError(f"{folder.name} has trained the whole model and no adapter; it is in {found}.")
    return found


def check_target(target: Path) -> None:
    """Raise ``CheckpointError`` for a place where no new folder can be made."""
    if os.path.lexists(target):
        what = "a folder" if target.is_dir() else "a file"
        raise CheckpointError(f"{target} exists and is {what}; name a folder that does not exist.")
    above = next(place for place in target.absolute().parents if os.path.lexists(place))
    if not above.is_dir():
        raise CheckpointError(f"{target} cannot be written: {above} is a file; name a folder elsewhere.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise CheckpointError(f"{target} cannot be written: nothing may be made in {above}; name a folder elsewhere.")
