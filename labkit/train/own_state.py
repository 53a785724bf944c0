"""What a rank saves in a file of its own, next to those of rank 0."""

import random
from pathlib import Path
from typing import Any

import numpy
import torch
from lightning.pytorch.strategies import ParallelStrategy

RANDOM = "random.ckpt"
"""In the folder of a checkpoint: the random state of a rank after the first; ``state.ckpt`` has the first's."""


def of_rank(path: Path, rank: int) -> Path:
    """The file that a rank has in place of rank 0's: ``state.rank1.ckpt`` for ``state.ckpt``."""
    return path.with_name(f"{path.stem}.rank{rank}{path.suffix}") if rank else path


class OwnState(ParallelStrategy):
    """Part of a strategy in which ranks hold different things: each saves and reads a whole file of its own."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write this rank's file."""
        self.checkpoint_io.save_checkpoint(checkpoint, of_rank(Path(filepath), self.global_rank))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read this rank's file."""
        return self.checkpoint_io.load_checkpoint(of_rank(Path(checkpoint_path), self.global_rank))


def random_state() -> dict[str, Any]:
    """The state of every generator that this rank draws from."""
    kind, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": random.getstate(), "numpy": (kind, keys.tolist(), position, has_gauss, cached),
        "torch": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else [],
    }  # fmt: skip


def set_random_state(state: dict[str, Any]) -> None:
    """Let every generator continue from ``state``."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    numpy.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])
