"""ZeRO files: DeepSpeed's part of a checkpoint, written by DeepSpeed and read as data.

DeepSpeed 0.19 unpickles its files (``weights_only=False``), whatever they ask for. Import this when the environment
is set (``strategies.set_environment``): it imports deepspeed.
"""

from pathlib import Path
from typing import Any

from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from labkit.config.regular_file import read_regular
from labkit.train.state_files import read_state

TYPES = (DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address)
"""What ZeRO's optimizers save besides tensors, containers and numbers: plain values, which are made without calling a
function."""

TAG = "checkpoint"
"""The folder in DeepSpeed's folder that Lightning has it write to."""


class ZeroFiles(TorchCheckpointEngine):
    """DeepSpeed's own way to write, with a way to read that runs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.zipfile_serialization = True

    def load(self, path: str, map_location: Any = None) -> Any:
        """The state in a file; raises one of ``state_files.MALFORMED``."""
        return read_state(Path(path), TYPES)


def check_latest(folder: Path) -> None:
    """``ValueError`` when the file ``latest``, from which DeepSpeed takes the folder that it reads, names another."""
    named = read_regular(folder / "latest", 1000).decode(errors="replace").strip()
    if named != TAG:
        raise ValueError(f"latest names {named!r}, and a run saves to {TAG!r}")
