"""State files: the files of a checkpoint, read as data and nothing else.

A pickle may name any function and have it called. torch's reader with ``weights_only`` makes tensors, containers and
numbers, and of other types those it is given; what names anything else is refused before it is made.
"""

import contextlib
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from labkit.config.regular_file import open_regular
from labkit.memory.exhaustion import is_exhausted
from labkit.memory.tracker import host
from labkit.train.errors import CheckpointError

MALFORMED = (
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError,
    RuntimeError, MemoryError, struct.error, UnpicklingError,
)  # fmt: skip
"""Errors that torch's readers, and users of what was read, raise for damaged bytes."""

_NAMED = re.compile(r"(?:GLOBAL|class|function) ([\w.]+)")
"""What torch says that a file asks for."""


class HostCheckpoints(TorchCheckpointIO):
    """Lightning's files, read in host memory and without running what a pickle may ask for."""

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint; ``CheckpointError`` for one that is damaged, or is more than data."""
        with reading(Path(path).parent):
            state = read_state(Path(path))
            if not isinstance(state, dict):
                raise ValueError(f"{Path(path).name} holds no state but {type(state).__name__}")
            return state


def read_state(path: Path, types: Sequence[type] = ()) -> Any:
    """What ``torch.save`` has written into ``path``, in host memory; of types that are not data only ``types``.

    Raises one of ``MALFORMED``, by the name of the file and of what it asks for.
    """
    with host(), open_regular(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")  # of a file that torch has not written
        try:
            with torch.serialization.safe_globals(list(types)):
                return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            named = _NAMED.search(str(error))
            what = (
                f"asks for {named[1]}, which is not data; nothing of it was run" if named else "is not a file of torch"
            )
            raise ValueError(f"{path.name} {what}") from error
        except EOFError:
            raise ValueError(f"{path.name} is cut") from None


@contextlib.contextmanager
def reading(saved: Path) -> Iterator[None]:
    """Turn errors while a checkpoint is read into a ``CheckpointError`` that names it."""
    try:
        yield
    except MALFORMED as error:
        if is_exhausted(error):  # says nothing about the file
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{saved} is damaged ({reason}); delete it to resume from the step before it.") from error
