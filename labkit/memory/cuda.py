"""CUDA's own numbers: the caching allocator's counters, the driver's, and what others held before."""

import os
from dataclasses import dataclass

import torch

from labkit.memory.nvidia_smi import list_devices, visible_devices


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Bytes of one device. ``allocated`` is in tensors, ``reserved`` what the caching allocator holds for them,
    ``device_used`` what the driver has given out to anyone, CUDA contexts and other processes included."""

    allocated_bytes: int
    peak_bytes: int
    reserved_bytes: int
    device_used_bytes: int


class AllocatorCounters:
    """Reads the counters of PyTorch's caching allocator. ``run_peak_bytes`` is the highest of all phases so far."""

    def __init__(self) -> None:
        self._highest_bytes = 0

    @property
    def run_peak_bytes(self) -> int:
        """Highest bytes allocated since the first tensor, however often the phases began again."""
        return max(self._highest_bytes, torch.cuda.max_memory_allocated())

    def begin_phase(self) -> None:
        """From now on ``peak_bytes`` is a new phase's."""
        self._highest_bytes = self.run_peak_bytes
        torch.cuda.reset_peak_memory_stats()

    def read(self) -> Counters:
        """The current numbers. The allocator counts when memory is asked for, so nothing has to wait for the device."""
        free, total = torch.cuda.mem_get_info()
        return Counters(
            allocated_bytes=torch.cuda.memory_allocated(), peak_bytes=torch.cuda.max_memory_allocated(),
            reserved_bytes=torch.cuda.memory_reserved(), device_used_bytes=total - free,
        )  # fmt: skip


def reconcile(
    end: dict[str, int], peak: dict[str, int], highest: dict[str, int], tracked: tuple[int, int], counters: Counters
) -> None:
    """Make a phase's breakdowns add up to the allocator's numbers; ``tracked`` are their own totals (end, peak).

    What the allocator has and no operation was seen to make, such as a kernel's workspace, is ``unattributed``. A
    negative number there says that the tracker has counted something that is no longer allocated.
    """
    end["unattributed"] += counters.allocated_bytes - tracked[0]
    peak["unattributed"] += counters.peak_bytes - tracked[1]
    highest["unattributed"] = max(highest["unattributed"], end["unattributed"], peak["unattributed"])


def used_by_others_bytes(index: int = 0) -> int | None:
    """Bytes in use on the GPU that is number ``index`` for this process; None where nvidia-smi does not tell.

    Asked before this process touches CUDA, it is what other processes hold, and the little that the driver does.
    Numbers are taken in PCI order, which is a run's (``find_obstacle``). Process ids would say more, but a container
    does not see those outside. Of a part of a GPU (MIG) nvidia-smi tells nothing here.
    """
    shown = visible_devices(list_devices()[0], os.environ.get("CUDA_VISIBLE_DEVICES"))
    return shown[index].used_bytes if index < len(shown) else None
