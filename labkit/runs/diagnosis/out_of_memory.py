"""Out of memory on a GPU: the seven numbers of CUDA's message, who they say holds it, and what a record says."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from labkit.config.gpus import CONTEXT_BYTES
from labkit.memory.units import human_bytes
from labkit.runs.records import Record

Finding = Literal["other_process", "fragmented", "full"]

_SIZE = r"(-?[\d.]+) (bytes|KiB|MiB|GiB)"
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_MESSAGE = re.compile(r"(?:CUDA|HIP) out of memory\.\s+Tried to allocate (?:more than )?" + _SIZE)
_CAPACITY = re.compile(rf"total capacity of {_SIZE}")
_FREE = re.compile(rf"of which {_SIZE} is free")
_ALLOWED = re.compile(rf"{_SIZE} allowed")
_OTHER = re.compile(rf"(?<!this )Process (\d+) has {_SIZE} memory in use")
_OWN = re.compile(rf"this process has {_SIZE} memory in use")
_ALLOCATED = re.compile(rf"Of the allocated memory {_SIZE} is allocated by PyTorch")
_POOLS = re.compile(rf"with {_SIZE} allocated in private pools")
_UNALLOCATED = re.compile(rf"and {_SIZE} is reserved by PyTorch but unallocated")
_SETTING = re.compile(r"PYTORCH_\w*ALLOC_CONF")
_OLD = re.compile(  # torch 1.x to 2.0
    rf"\(GPU (?P<gpu>\d+); {_SIZE} total capacity; {_SIZE} already allocated; {_SIZE} free; "
    rf"{_SIZE} (?:reserved in total by PyTorch|cached)"
)

_MOST = 20
"""Messages looked at, from the end of a log; all but one that was cut are whole."""

ALLOCATOR_SETTING = "PYTORCH_CUDA_ALLOC_CONF"
"""The environment variable as most versions of torch call it; the message says its own."""

NOTICED = 0.02
"""Share of the capacity from which others and holes count: a GPU that is full but for less is full."""

HIDDEN_BYTES = 2**30
"""What nobody is named for from which it is somebody's: a driver keeps less for itself."""


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
        """Somebody else's memory or holes in its own, the larger of those that would be enough; else simply full."""
        reserved = self.allocated_bytes + self.unallocated_bytes
        may_reserve = max(0, (self.allowed_bytes or self.capacity_bytes) - reserved)
        now = min(self.free_bytes, may_reserve)
        without_others = min(self.free_bytes + self.others_bytes, may_reserve)
        enough: dict[Finding, int] = {}
        if now < self.tried_bytes <= without_others:
            enough["other_process"] = self.others_bytes
        if now < self.tried_bytes <= now + self.unallocated_bytes:
            enough["fragmented"] = self.unallocated_bytes
        if not enough and self.tried_bytes <= without_others + self.unallocated_bytes:
            enough["other_process"] = self.others_bytes
        noticed = {finding: size for finding, size in enough.items() if size > NOTICED * self.capacity_bytes}
        return max(noticed, key=lambda finding: noticed[finding], default="full")

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
    """The numbers of the last CUDA out-of-memory message in ``text``; None when there is none that is whole.

    Reads the wording since torch 2.1 with its variants, and the one before.
    """
    starts = list(_MESSAGE.finditer(text))
    for start in reversed(starts[-_MOST:]):
        part = " ".join(text[start.start() : start.start() + 4000].split())
        if (found := _new(part) or _old(part)) is not None:
            return found
    return None


def _new(text: str) -> CudaMessage | None:
    tried, capacity, free = (_bytes(pattern, text) for pattern in (_MESSAGE, _CAPACITY, _FREE))
    allocated, unallocated = _bytes(_ALLOCATED, text), _bytes(_UNALLOCATED, text)
    if None in (tried, capacity, free, allocated):
        return None
    own, reserved = _bytes(_OWN, text), allocated + (unallocated or 0)
    processes = {int(pid): _size(number, unit) for pid, number, unit in _OTHER.findall(text)}
    # a driver that may not say how much a process holds answers with all bits set
    processes = {pid: held for pid, held in processes.items() if held <= capacity}
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
    if "cached" in match.group():  # of torch before 1.5: beside what is allocated
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


_SHRINKS = {
    "parameters": "fewer bits (precision=bf16-true, use_qlora=true) or a smaller model",
    "gradients": "less that is trained (use_lora=true, freeze_vision=true) or precision=bf16-true",
    "optimizer_gpu": "optim=adam_8bit, optim=sgd, use_lora=true, or offload",
    "activations": "a smaller batch_size with more accumulate_grad_batches, act_ckpt=true, or a shorter max_length",
    "temporaries": "a smaller batch_size; in the optimizer step optim_impl=for-loop",
    "inputs": "a smaller batch_size",
}
"""What makes each category smaller."""


def held_lines(record: Record | None) -> list[str]:
    """Where a run ran out of memory and what held it, the largest part first; nothing for another end."""
    if record is None or record.status != "oom":
        return []
    held = (record.out_of_memory or {}).get("held", {})
    on_device = sorted(((n, c) for c, n in held.items() if n >= 2**10 and not c.endswith("_cpu")), reverse=True)
    lines = [f"died in                    {place(record.died_in)}"]
    lines += [f"held by {c.removesuffix('_gpu').replace('_', ' '):18} {human_bytes(n)}" for n, c in on_device]
    if on_device and on_device[0][1] in _SHRINKS:
        lines.append(f"the largest part shrinks with {_SHRINKS[on_device[0][1]]}")
    return lines


def place(died_in: dict[str, Any] | None) -> str:
    """Where a run died, in words."""
    if not died_in or died_in.get("phase") is None:
        return "the run"
    if died_in["phase"] == "load_model":
        return "loading the model"
    phase = str(died_in["phase"]).replace("_", " ")
    return f"the {phase} of step {died_in.get('step')}, micro step {died_in.get('micro_step')}"
