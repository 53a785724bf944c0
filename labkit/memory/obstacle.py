"""Obstacle: why torch cannot use a GPU here. CUDA itself is asked; NVML alone says yes for a driver that is too old.

    python -m labkit.memory.obstacle

prints what torch finds as one line of JSON, for programs that do not import torch: ``reason`` (null where a GPU can be
used), ``gpu`` and ``architectures``.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from labkit.memory.exhaustion import is_exhausted
from labkit.memory.nvidia_smi import list_devices, names_in, visible_devices

DRIVER_LISTS = Path("/proc/driver/nvidia/gpus")
"""Where the driver lists the machine's GPUs, also to a container or a job that was given none."""

_NONE_HERE = ("no NVIDIA driver", "No CUDA GPUs are available", "no CUDA-capable device is detected", "not compiled")
"""What torch says where it sees no GPU; any other words come from a driver that is there."""


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why torch cannot use a GPU here, in words that end without a full stop.

    ``gpu`` names the one that is here all the same; None where there is none, or ``CUDA_VISIBLE_DEVICES`` hides it.
    ``without_cuda``: the installed torch could use none. ``full``: only its memory is used up.
    """

    reason: str
    gpu: str | None = None
    without_cuda: bool = False
    full: bool = False


def find_obstacle(index: int | None = None) -> Obstacle | None:
    """Initialize CUDA, and with an ``index`` take that GPU for this process; None where that works.

    GPUs are numbered in PCI order from then on, as nvidia-smi does it, unless ``CUDA_DEVICE_ORDER`` says otherwise.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # CUDA's own is the fastest first
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
        if index is not None and index >= count:
            reason = f"GPU {index} (they count from 0) is asked for, and PyTorch sees {count} here"
            return Obstacle(reason=reason, gpu=torch.cuda.get_device_name(0))
        if index is not None:
            torch.cuda.set_device(index)
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
        return _obstacle(error)
    return None


def _obstacle(error: Exception) -> Obstacle:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    visible, build = os.environ.get("CUDA_VISIBLE_DEVICES"), f"torch {torch.__version__}"
    devices, _ = list_devices()
    if not devices and any(words in said for words in _NONE_HERE):
        given = "; this machine has one, which this container or job was not given" if _driver_lists_one() else ""
        return Obstacle(reason=f"PyTorch sees no CUDA GPU here{given}", without_cuda=torch.version.cuda is None)
    if visible is not None and not names_in(visible):
        return Obstacle(reason=f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU")
    shown = visible_devices(devices, visible)
    gpu = (shown or devices)[0].name if devices else "the GPU"
    if torch.version.cuda is None:
        return Obstacle(reason=f"{build} is a build without CUDA, which cannot use {gpu}", gpu=gpu, without_cuda=True)
    if devices and not shown and visible is not None:
        there = ", ".join(f"{device.index} {device.name}" for device in devices)
        return Obstacle(reason=f"CUDA_VISIBLE_DEVICES={visible!r} names no GPU that is here ({there})", gpu=gpu)
    driver = f" (driver {devices[0].driver})" if devices else ""
    return Obstacle(reason=f"{build} cannot use {gpu}{driver}: {said}", gpu=gpu, full=is_exhausted(error))


def _driver_lists_one() -> bool:
    try:
        return any(DRIVER_LISTS.iterdir())
    except OSError:
        return False


def main() -> None:
    """Print what torch finds on the first GPU that it is shown."""
    obstacle = find_obstacle(0)
    found = {"reason": obstacle and obstacle.reason, "gpu": obstacle and obstacle.gpu,
             "architectures": torch.cuda.get_arch_list() if obstacle is None else []}  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
