"""Disk room: what checkpoints take on disk, whether there is room for them, and what could make room."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import nn

from labkit.config.place import FOLDER, saved_steps, steps_between
from labkit.config.schema import RunConfig
from labkit.memory.units import human_bytes
from labkit.train.errors import CheckpointError


def checkpoint_bytes(config: RunConfig, parameters: Iterable[nn.Parameter]) -> int:
    """What one checkpoint takes on disk: the trained parameters and the optimizer's state for them."""
    trained = [p for p in parameters if p.requires_grad]
    state = {
        # two moments in the parameters' dtype
        "adamw": lambda p: 2 * p.nbytes,
        "sgd": lambda p: 0,
        # a byte each, and a scale for every 256 of them; small tensors keep 32 bits (bitsandbytes' min_8bit_size)
        "adam_8bit": lambda p: 8 * p.numel() if p.numel() < 4096 else 2 * p.numel() + 8 * -(-p.numel() // 256),
        # ZeRO keeps master weights and two moments in 32 bits
        "deepspeed_cpu": lambda p: 12 * p.numel(),
    }
    size = state[config.optim.removeprefix("paged_")]
    return sum(p.nbytes + size(p) for p in trained)


def check_room(config: RunConfig, folder: Path, size_bytes: int, steps: int) -> None:
    """``CheckpointError`` when the disk cannot hold what a run of so many steps saves, with what could be deleted."""
    # one more while the newest is written; a short run saves fewer, and perhaps one because it was asked to stop
    at_once = min(config.keep_checkpoints + 1, steps // steps_between(config, steps) + 1)
    needed_bytes = at_once * size_bytes
    held_bytes = sum(_size_bytes(saved) for saved in saved_steps(folder))
    free_bytes = shutil.disk_usage(folder).free + held_bytes
    if free_bytes < needed_bytes:
        raise CheckpointError(
            f"the run's checkpoints need {human_bytes(needed_bytes)} on disk (keep_checkpoints="
            f"{config.keep_checkpoints}, one more while it is written), and {human_bytes(free_bytes)} are free in "
            f"{folder}. {deletable(folder)}"
        )


def deletable(folder: Path) -> str:
    """What takes room beside this run: the other runs with the largest checkpoints."""
    others = [path for path in folder.parents[2].glob(f"*/*/*/{FOLDER}") if path.parent != folder]
    sizes = sorted(((_size_bytes(path), path) for path in others), reverse=True)[:3]
    if not sizes:
        return "Make room, set keep_checkpoints=1, or set LABKIT_RUNS to a folder on another disk."
    words = ", ".join(f"{path} ({human_bytes(size)})" for size, path in sizes)
    return f"Delete checkpoints that nobody needs: {words}; or set LABKIT_RUNS to a folder on another disk."


@contextlib.contextmanager
def room_for(partial: Path) -> Iterator[None]:
    """Leave nothing half written behind, and say what fills the disk."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch tells of a full disk as a RuntimeError of its zip writer
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        run = partial.parents[1]
        reason = getattr(error, "strerror", None) or "the disk is full, or cannot be written"
        raise CheckpointError(
            f"{partial.stem.strip('.')} of {run} could not be saved: {reason}. The checkpoints before it are kept. "
            f"{deletable(run)}"
        ) from error


def _size_bytes(folder: Path) -> int:
    size = 0
    with contextlib.suppress(FileNotFoundError):  # another run may delete its oldest meanwhile
        for path in folder.rglob("*"):
            size += path.stat().st_size if path.is_file() else 0
    return size
