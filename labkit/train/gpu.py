"""The GPU of a rank: which one it is, and how a run ends that cannot have it."""

import os
from typing import Any

import torch

from labkit.config.errors import ConfigError
from labkit.config.kernels import without_code
from labkit.config.schema import RunConfig
from labkit.memory.obstacle import Obstacle, find_obstacle


def local_rank(config: RunConfig) -> int:
    """Which of the machine's GPUs this process takes, as torchrun says it, or Slurm."""
    said = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") if config.world_size > 1 else None
    return int(said or 0)


def without_gpu(index: int) -> dict[str, Any] | None:
    """How a run ends that cannot have this GPU; None where it can.

    Raises ``ConfigError`` for one that the installed torch has no code for.
    """
    if (obstacle := find_obstacle(index)) is not None:
        return _result(obstacle)
    refuse_foreign_gpu()
    return None


def refuse_foreign_gpu() -> None:
    """Raise ``ConfigError`` for a GPU that the installed torch has no code for: it would fail at the first kernel."""
    build = f"torch {torch.__version__}"
    reason = without_code(torch.cuda.get_arch_list(), torch.cuda.get_device_capability(), build)
    if reason is not None:
        raise ConfigError(f"{torch.cuda.get_device_name()} has {reason}; use another GPU, or a torch that has.")


def _result(obstacle: Obstacle) -> dict[str, Any]:
    """Skipped where there is no GPU, failed where torch cannot use the one there is."""
    reason = f"device=cuda, but {obstacle.reason}"
    if obstacle.full:
        died_in = {"step": 0, "micro_step": 0, "phase": "load_model"}
        return {"status": "oom", "died_in": died_in, "reason": reason}
    if obstacle.gpu is None:
        return {"status": "skipped", "reason": f"{reason}; use --profile tiny for the simulated GPU"}
    step = "'labkit doctor' says what to do"
    if obstacle.without_cuda:
        step = "'pip install --force-reinstall torch', without an index for CPU builds, brings one that can"
    return {"status": "failed", "reason": f"{reason}. {step}; --profile tiny takes the simulated GPU"}
