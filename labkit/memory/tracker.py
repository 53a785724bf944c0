"""Tracker: follow the life of every tensor storage; with a capacity it is the simulated GPU."""

import operator
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from labkit.borrowed.torch import TorchDispatchMode, sparse_parts, storage_key, tree_iter, without_modes
from labkit.memory.categories import CATEGORIES, HOST_CATEGORIES, on_device
from labkit.memory.units import human_bytes

BLOCK_BYTES = 512
"""CUDA's caching allocator hands out multiples of this (``kMinBlockSize`` in CUDACachingAllocator)."""

UNDECIDED = ""
"""Category of a storage that was allocated in the phase that has not ended."""


class SimulatedOutOfMemoryError(torch.OutOfMemoryError):
    """The simulated GPU is full. The message has the numbers of CUDA's own message; so have the attributes."""

    def __init__(
        self, requested_bytes: int, capacity_bytes: int, allocated_bytes: int, operation: str, held: dict[str, int]
    ) -> None:
        self.requested_bytes = requested_bytes
        self.capacity_bytes = capacity_bytes
        self.allocated_bytes = allocated_bytes
        self.operation = operation
        self.held = held
        free = capacity_bytes - allocated_bytes
        super().__init__(
            f"Simulated GPU out of memory. Tried to allocate {human_bytes(requested_bytes)}. "
            f"The simulated GPU has a total capacity of {human_bytes(capacity_bytes)} of which {human_bytes(free)} is "
            f"free. Process {os.getpid()} has {human_bytes(allocated_bytes)} memory in use. Of the allocated memory "
            f"{human_bytes(allocated_bytes)} is allocated by PyTorch, and 0 bytes is reserved by PyTorch but "
            f"unallocated. The operation was {operation}."
        )


class _Life(weakref.ref[torch.UntypedStorage]):
    """Calls back when a storage is freed, which ``key`` names; in less time than ``weakref.finalize``."""

    __slots__ = ("key",)
    key: int


class _Block:
    """One live storage: its size as the allocator rounds it, and what it is for."""

    __slots__ = ("category", "life", "size_bytes")

    def __init__(self, size_bytes: int, category: str, life: _Life) -> None:
        self.size_bytes = size_bytes
        self.category = category
        self.life = life


class Tracker(TorchDispatchMode):
    """Count every storage that operations make, from allocation to free, in bytes and by category.

        with Tracker(capacity_bytes=100 * 2**20) as gpu:
            gpu.assign(model.parameters(), "parameters")
            model(batch)
        gpu.peak_bytes, gpu.breakdown()["parameters"]

    Use it as a context around the code to follow. Register storages that existed before with ``assign``.
    ``allocated_bytes`` counts what is alive, ``peak_bytes`` the most that was; sizes are rounded up to 512 bytes. With
    ``capacity_bytes`` the operation whose output would exceed the capacity raises ``SimulatedOutOfMemoryError``, a
    ``torch.OutOfMemoryError``. Only storages on ``device_type`` count; on the simulated GPU that is the CPU, and
    ``host()`` marks work that a real machine would do in host memory.

    With ``keep_events`` every allocation and free on the device is kept, for an allocator to replay: ``events`` has
    (key of the storage, its bytes, the operation), and 0 bytes when it is freed. The key is None where cached memory
    goes back to the driver.

    ``before_error`` is called before the error, to assign what is alive; it returns the category of the rest.

    What an operation allocates and frees inside its own kernel is not seen.
    """

    def __init__(self, capacity_bytes: int | None = None, device_type: str = "cpu", keep_events: bool = False) -> None:
        super().__init__()
        self.capacity_bytes = capacity_bytes
        self.device_type = device_type
        self._is_there = operator.attrgetter(f"is_{device_type}")
        self.allocated_bytes = 0
        self.peak_bytes = 0
        self.events: list[tuple[int | None, int, Any]] | None = [] if keep_events else None
        self._live: dict[int, _Block] = {}
        self.before_error: Callable[[], str] | None = None
        self._log: list[tuple[_Block, int]] | None = None
        self._at_start: list[_Block] = []
        self._peak_before_bytes = 0

    # -- storages

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self._compute(func, args, kwargs or {})
        if isinstance(out, torch.Tensor):
            self._see_parts(out, func)
        elif isinstance(out, (list, tuple)):
            for item in tree_iter(out):
                if isinstance(item, torch.Tensor):
                    self._see_parts(item, func)
        return out

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)

    def _see_parts(self, tensor: torch.Tensor, operation: Any) -> None:
        if tensor.layout is torch.strided:
            self._see(tensor, operation)
            return
        for part in _parts(tensor):
            self._see(part, operation)

    def _see(self, tensor: torch.Tensor, operation: Any, category: str = UNDECIDED) -> _Block | None:
        # what is said to be host memory counts there, wherever the device is
        if not self._is_there(tensor) and category not in HOST_CATEGORIES:
            return None
        storage = tensor.untyped_storage()
        key = storage_key(storage)
        size_bytes = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        block = self._live.get(key)
        if block is not None and block.size_bytes == size_bytes:
            return block
        if block is not None:  # the storage was resized in place
            self._forget(key)
        if not size_bytes:
            return None
        if block is not None:
            category, life = block.category, block.life
        else:
            life = _Life(storage, self._ended)
            life.key = key
        new = _Block(size_bytes, category, life)
        if (
            self.capacity_bytes is not None
            and self.allocated_bytes + size_bytes > self.capacity_bytes
            and new.category not in HOST_CATEGORIES
        ):
            self._make_room(size_bytes, operation)
        self._live[key] = new
        self._count(new, +1, operation)
        return new

    def _ended(self, life: _Life) -> None:
        self._forget(life.key)

    def _make_room(self, requested_bytes: int, operation: Any) -> None:
        assert self.capacity_bytes is not None
        undecided = "unattributed"
        ask, self.before_error = self.before_error, None  # it assigns, and what it meets may not fit either
        if ask is not None:
            try:
                undecided = ask()  # may find optimizer state that a real machine keeps in host memory
            finally:
                self.before_error = ask
        if self.allocated_bytes + requested_bytes > self.capacity_bytes:
            self.reassign(UNDECIDED, undecided)
            raise SimulatedOutOfMemoryError(
                requested_bytes, self.capacity_bytes, self.allocated_bytes, str(operation), self.breakdown()
            )

    def _forget(self, key: int) -> None:
        block = self._live.pop(key, None)
        if block is not None:
            self._count(block, -1)

    def _count(self, block: _Block, sign: int, operation: Any = None) -> None:
        if block.category not in HOST_CATEGORIES:
            if self.events is not None:
                self.events.append((id(block), block.size_bytes if sign > 0 else 0, operation))
            self.allocated_bytes += sign * block.size_bytes
            if self.allocated_bytes > self.peak_bytes:
                self.peak_bytes = self.allocated_bytes
        if self._log is not None:
            self._log.append((block, sign))

    # -- categories and phases

    def assign(self, tensors: Iterable[torch.Tensor], category: str) -> None:
        """Say what these tensors are for. Those not seen yet count from now on."""
        for tensor in tensors:
            for part in _parts(tensor):
                block = self._see(part, "assign", category)
                if block is not None and block.category != category:
                    self._move(block, category)

    def category(self, tensor: torch.Tensor) -> str | None:
        """What a tensor's storage is for, empty before that is decided; None for one that was never seen."""
        parts = _parts(tensor)
        block = self._live.get(storage_key(parts[0].untyped_storage())) if parts else None
        return block.category if block else None

    def reassign(self, category: str, into: str) -> None:
        """Move all that is alive in ``category`` to another one."""
        for block in list(self._live.values()):  # a storage may be freed, and leave, while this runs
            if block.category == category:
                self._move(block, into)

    def _move(self, block: _Block, category: str) -> None:
        was_on_device = block.category not in HOST_CATEGORIES
        block.category = category
        if was_on_device != (category not in HOST_CATEGORIES):
            if self.events is not None:
                self.events.append((id(block), 0 if was_on_device else block.size_bytes, "assign"))
            self.allocated_bytes += -block.size_bytes if was_on_device else block.size_bytes
            self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)

    def breakdown(self) -> dict[str, int]:
        """Bytes alive now, by category; what is not assigned yet is ``unattributed``."""
        return _sum(list(self._live.values()))

    def begin_phase(self) -> None:
        """Start to log allocations and frees, so that ``end_phase`` can say what the peak was made of."""
        self.reassign(UNDECIDED, "unattributed")
        self._log = []
        self._at_start = list(self._live.values())
        self._peak_before_bytes = self.peak_bytes

    def end_phase(self, survivors: str) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Breakdowns of the phase that ends now: at its end, at its peak, and each category's own maximum.

        Storages that were allocated in the phase and not assigned become ``survivors`` if they are still allocated,
        ``temporaries`` if they are freed.
        """
        log, self._log = self._log or [], None  # categories are final only now, so the log is replayed now
        self.reassign(UNDECIDED, survivors)
        now = _sum(self._at_start)
        peak, highest, peak_bytes = dict(now), dict(now), on_device(now)
        total = peak_bytes
        for block, sign in log:
            category = block.category or "temporaries"
            size = sign * block.size_bytes
            now[category] += size
            highest[category] = max(highest[category], now[category])
            if category not in HOST_CATEGORIES:
                total += size
                if total > peak_bytes:
                    peak_bytes, peak = total, dict(now)
        # what turned out to be host memory had counted until it was assigned
        self.peak_bytes = max(self._peak_before_bytes, peak_bytes)
        return self.breakdown(), peak, highest

    def stop_phase(self) -> None:
        """Stop to log, without a report."""
        self._log = None


def host() -> Any:
    """A context in which operations are not followed: work that happens in host memory on a real machine."""
    return without_modes()


def _sum(blocks: Iterable[_Block]) -> dict[str, int]:
    found = dict.fromkeys(CATEGORIES, 0)
    for block in blocks:
        found[block.category or "unattributed"] += block.size_bytes
    return found


def _parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors that have storages: a dense one itself, of a sparse one its indices and values."""
    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        return sparse_parts(tensor)
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return ()
