"""The message of a GPU that is out of memory: its seven numbers in every spelling since torch 0.4, and who they say
holds the memory."""

import re
from dataclasses import dataclass
from typing import Literal

from labkit.config.gpus import CONTEXT_BYTES
from labkit.memory.units import human_bytes

Finding = Literal["other_process", "fragmented", "larger_than_gpu", "blocked", "full"]

_SIZE = r"(-?[\d.]+) (bytes|KiB|MiB|GiB)"
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_START = re.compile(r"(?:CUDA|HIP|XPU|NPU|MUSA)\s+out\s+of\s+memory")
_MESSAGE = re.compile(
    r"(?:CUDA|HIP|XPU|NPU|MUSA)\s+out\s+of\s+memory\.?\s+Tried\s+to\s+allocate\s+(?:more\s+than\s+)?"
    + _SIZE.replace(" ", r"\s+")
)
_CAPACITY = re.compile(rf"total capaci?ty of {_SIZE}")  # "capacty" in torch 2.1
_FREE = re.compile(rf"of which {_SIZE} is free")
_ALLOWED = re.compile(rf"{_SIZE} allowed")
_OTHER = re.compile(rf"(?<!this )Process (\d+) has {_SIZE} memory in use")
_OWN = re.compile(rf"this process has {_SIZE} memory in use")
_ALLOCATED = re.compile(rf"Of the allocated memory {_SIZE} is allocated by PyTorch")
_POOLS = re.compile(rf"with {_SIZE} allocated in private pools")
_UNALLOCATED = re.compile(rf"and {_SIZE} is reserved by PyTorch but unallocated")
_RANK = re.compile(r"\n\[?(?:rank|default)?\d+\]?:\s*")
_SETTING = re.compile(r"PYTORCH_\w*ALLOC_CONF")
_OLD = re.compile(  # torch 1.x to 2.0
    rf"\((?:GPU|XPU|NPU) (?P<gpu>\d+); {_SIZE} total capacity; {_SIZE} already allocated; {_SIZE} free; "
    rf"{_SIZE} (?:reserved in total by PyTorch|cached)"
)

_MOST = 20
"""Messages looked at, from the end of a log; all but one that was cut are whole."""

ALLOCATOR_SETTING = "PYTORCH_CUDA_ALLOC_CONF"
"""The environment variable as most versions of torch call it; the message says its own."""

NOTICED = 0.02
"""Share of the capacity from which others and holes count; below it, the GPU simply counts as full."""

HIDDEN_BYTES = 2**31
"""Memory without a named owner that from this size on counts as another process's: the driver, the CUDA context and
NCCL's buffers keep less."""

ONE_REQUEST = 0.25
"""Share of the capacity from which a single request is a finding of its own: one tensor, not many small ones."""


@dataclass(frozen=True, kw_only=True)
class CudaMessage:
    """The numbers of one message, in bytes; None for what it does not say.

    ``capacity`` is the GPU's, ``allowed`` what this process may reserve of it where that was limited, ``free`` what
    the driver still had. ``own`` is all that this process holds, with the CUDA context. ``others`` is what others
    hold, by process id; ``hidden`` what others hold whom the driver does not name, as from inside a container.
    ``allocated`` is in tensors; ``unallocated`` are holes in what PyTorch has reserved.
    """

    tried_bytes: int
    capacity_bytes: int
    free_bytes: int
    allowed_bytes: int | None
    others: dict[int, int]
    hidden_bytes: int
    own_bytes: int | None
    allocated_bytes: int
    unallocated_bytes: int
    setting: str

    @property
    def others_bytes(self) -> int:
        """What other processes hold, named or not."""
        return sum(self.others.values()) + self.hidden_bytes

    @property
    def finding(self) -> Finding:
        """What the numbers say.

        ``larger_than_gpu``: no GPU of this size could ever give it. ``blocked``: there was more than enough, so
        something else than memory refuses. ``other_process`` and ``fragmented``: somebody else's memory or holes in
        its own, the larger of those that would have been enough. Else simply ``full``.
        """
        if self.tried_bytes > self.capacity_bytes or self.tried_bytes < 0:
            return "larger_than_gpu"
        reserved = self.allocated_bytes + self.unallocated_bytes
        may_reserve = max(0, (self.allowed_bytes or self.capacity_bytes) - reserved)
        now = min(self.free_bytes, may_reserve)
        if now - _segment_bytes(self.tried_bytes) > NOTICED * self.capacity_bytes:
            return "blocked"
        without_others = min(self.free_bytes + self.others_bytes, may_reserve)
        enough: dict[Finding, int] = {}
        if now < self.tried_bytes <= without_others:
            enough["other_process"] = self.others_bytes
        if now < self.tried_bytes <= self.unallocated_bytes:
            enough["fragmented"] = self.unallocated_bytes
        if not enough and self.tried_bytes <= without_others + self.unallocated_bytes:
            enough["other_process"] = self.others_bytes
        noticed = {finding: size for finding, size in enough.items() if size > NOTICED * self.capacity_bytes}
        return max(noticed, key=lambda finding: noticed[finding], default="full")

    @property
    def is_one_request(self) -> bool:
        """Whether a single tensor is a large part of the GPU."""
        return self.tried_bytes >= ONE_REQUEST * self.capacity_bytes

    def lines(self) -> list[str]:
        """The seven numbers, one a line, in the order of the message."""
        others = [f"process {pid} {human_bytes(held)}" for pid, held in self.others.items()]
        others += [f"processes that are not named {human_bytes(self.hidden_bytes)}"] if self.hidden_bytes else []
        own = "not said" if self.own_bytes is None else human_bytes(self.own_bytes)
        allowed = "" if self.allowed_bytes is None else f"; this process may use {human_bytes(self.allowed_bytes)}"
        return [
            f"tried to allocate          {human_bytes(self.tried_bytes)}",
            f"capacity of the GPU        {human_bytes(self.capacity_bytes)}{allowed}",
            f"free                       {human_bytes(self.free_bytes)}",
            f"held by other processes    {', '.join(others) or 'nothing seen'}",
            f"held by this process       {own}",
            f"allocated by PyTorch       {human_bytes(self.allocated_bytes)} (in tensors)",
            f"reserved, not allocated    {human_bytes(self.unallocated_bytes)} (holes between tensors)",
        ]


def read_cuda_message(text: str) -> CudaMessage | None:
    """The numbers of the last message in ``text`` that a GPU is out of memory; None when there is none that is whole.

    Reads the wording since torch 2.1 with its variants and the ones before, also where a terminal has wrapped it.
    """
    starts = list(_START.finditer(text))
    for start in reversed(starts[-_MOST:]):
        part = _RANK.sub("\n", text[start.start() : start.start() + 4000])
        # wrapped between two words, or in the middle of one
        for joined in (" ".join(part.split()), part.replace("\n", "")):
            if (found := _new(joined) or _old(joined)) is not None:
                return found
    return None


def tried_bytes(text: str) -> int | None:
    """What the last message asked for, where that much of it can be read."""
    starts = list(_MESSAGE.finditer(text))
    return _size(*starts[-1].groups()[-2:]) if starts else None


def _segment_bytes(request_bytes: int) -> int:
    """What the allocator asks the driver for when it needs ``request_bytes`` (c10/cuda/CUDACachingAllocator.cpp)."""
    if request_bytes <= 2**20:
        return 2 * 2**20
    return 20 * 2**20 if request_bytes < 10 * 2**20 else -(-request_bytes // 2**21) * 2**21


def _new(text: str) -> CudaMessage | None:
    tried, capacity, free = (_bytes(pattern, text) for pattern in (_MESSAGE, _CAPACITY, _FREE))
    allocated, unallocated = _bytes(_ALLOCATED, text), _bytes(_UNALLOCATED, text)
    if tried is None or free is None or allocated is None or not capacity:
        return None
    own, reserved = _bytes(_OWN, text), allocated + (unallocated or 0)
    processes = {int(pid): _size(number, unit) for pid, number, unit in _OTHER.findall(text)}
    # a driver that may not say how much a process holds answers with all bits set
    processes = {pid: held for pid, held in processes.items() if 0 <= held <= capacity}
    if own is None:
        # in a container a process does not know its own number outside, and counts as somebody else
        mine = [pid for pid, held in processes.items() if reserved <= held <= reserved + 4 * CONTEXT_BYTES]
        if reserved and mine:
            own = processes.pop(min(mine, key=lambda pid: processes[pid]))
    known = own if own is not None else reserved + CONTEXT_BYTES
    hidden = capacity - free - known - sum(processes.values())
    return CudaMessage(
        tried_bytes=tried, capacity_bytes=capacity, free_bytes=free, allowed_bytes=_bytes(_ALLOWED, text),
        others=processes, hidden_bytes=hidden if hidden > HIDDEN_BYTES else 0, own_bytes=own,
        allocated_bytes=allocated, unallocated_bytes=unallocated or 0, setting=_setting(text),
    )  # fmt: skip


def _old(text: str) -> CudaMessage | None:
    if (match := _OLD.search(text)) is None:
        return None
    numbers = match.groups()[1:]
    capacity, allocated, free, reserved = (_size(*numbers[i : i + 2]) for i in range(0, 8, 2))
    if not capacity:
        return None
    if "cached" in match.group():  # of torch before 1.5: in addition to what is allocated
        reserved += allocated
    hidden = capacity - free - reserved - CONTEXT_BYTES
    return CudaMessage(
        tried_bytes=_bytes(_MESSAGE, text) or 0, capacity_bytes=capacity, free_bytes=free, allowed_bytes=None,
        others={}, hidden_bytes=hidden if hidden > HIDDEN_BYTES else 0, own_bytes=None,
        allocated_bytes=allocated, unallocated_bytes=max(0, reserved - allocated), setting=_setting(text),
    )  # fmt: skip


def _bytes(pattern: re.Pattern, text: str) -> int | None:
    match = pattern.search(text)
    return _size(*match.groups()[-2:]) if match else None


def _size(number: str, unit: str) -> int:
    try:
        return int(float(number) * _UNITS[unit])
    except ValueError:  # dots in odd places, from a log that was cut
        return 0


def _setting(text: str) -> str:
    match = _SETTING.search(text)
    return match.group() if match else ALLOCATOR_SETTING
