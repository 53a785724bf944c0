"""Replay of PyTorch's CUDA caching allocator: what a log of births and deaths makes it reserve.

The rules are those of torch's CUDA caching allocator, versions 2.11 to 2.13, with its default settings, one stream
and no CUDA graphs (``c10/cuda/CUDACachingAllocator.cpp``, in the newest versions
``c10/core/CachingDeviceAllocator.h``). No GPU was at hand: the replay was compared with the source, not with a GPU.
What it has to assume:

- a segment's address is above all earlier ones (the driver may take an old address again; it only breaks ties),
- the driver gives a segment whenever the sum of all segments stays within the capacity,
- nothing waits for another stream, so what dies is free at once,
- an expandable segment never runs out of addresses (torch takes 9/8 of the GPU's memory for each).
"""

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

MIB = 2**20

BLOCK_BYTES = 512
"""Sizes are multiples of this (``kMinBlockSize`` in ``c10/core/AllocatorConfig.h``, as the next four)."""
SMALL_BYTES = MIB
"""Blocks up to this live in the small pool (``kSmallSize``)."""
SMALL_SEGMENT_BYTES = 2 * MIB
"""Segments, or pages of an expandable segment, of the small pool (``kSmallBuffer``)."""
OWN_SEGMENT_BYTES = 10 * MIB
"""Blocks from this on get a segment of their own size (``kMinLargeAlloc``)."""
SEGMENT_STEP_BYTES = 2 * MIB
"""Such segments are multiples of this (``kRoundLarge``)."""
LARGE_SEGMENT_BYTES = 20 * MIB
"""Segments, or pages, of the large pool (``kLargeBuffer``; now the default of ``large_segment_size_mb``)."""

_ENDLESS_BYTES = 2**50  # addresses of one expandable segment
_LARGE_BASE = LARGE_SEGMENT_BYTES * 2**30  # above the small pool's addresses, and where a page begins

Event = tuple[Hashable, int | str]
"""``(key, size_bytes)`` is a birth, ``(key, 0)`` or a negative size a death, ``(None, name)`` a mark."""


class Block:
    """A stretch of a segment, in use or free. ``address`` and ``size_bytes`` are in bytes."""

    __slots__ = ("address", "after", "before", "free", "mapped", "pool", "size_bytes")

    def __init__(self, address: int, size_bytes: int, pool: "_Pool", mapped: bool = True) -> None:
        self.address = address
        self.size_bytes = size_bytes
        self.pool = pool
        self.mapped = mapped
        self.free = True
        self.before: Block | None = None
        self.after: Block | None = None


class _Pool:
    """The free blocks of one pool, best fit first: sorted by size, then address."""

    __slots__ = ("free", "least_rest_bytes", "page_bytes", "unmapped")

    def __init__(self, page_bytes: int, least_rest_bytes: int) -> None:
        self.page_bytes = page_bytes
        self.least_rest_bytes = least_rest_bytes  # a smaller rest stays with its block
        self.free: list[tuple[int, int, Block]] = []
        self.unmapped: list[tuple[int, Block]] = []  # addresses without memory behind them; expandable segments only

    def put(self, block: Block) -> None:
        insort(self.free, (block.size_bytes, block.address, block))

    def take(self, block: Block) -> None:
        if block.mapped:
            del self.free[bisect_left(self.free, (block.size_bytes, block.address))]
        else:
            del self.unmapped[bisect_left(self.unmapped, (block.address,))]


class CachingAllocator:
    """The allocator itself, with segments from ``cudaMalloc``; ``replay`` feeds it a log.

    ``allocated_bytes`` counts blocks in use, with a rest that was too small to split off; ``reserved_bytes`` counts
    segments. Both peaks are since ``reset_peaks``. ``retries`` counts how often cached segments were released because
    the capacity was reached (``num_alloc_retries``).
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.allocated_bytes = self.reserved_bytes = 0
        self.peak_allocated_bytes = self.peak_reserved_bytes = 0
        self.retries = 0
        self._next_address = 0
        self._small, self._large = self._pools()

    def _pools(self) -> tuple[_Pool, _Pool]:
        # of a large block more than 1 MiB must be left over, and all sizes are multiples of 512 bytes
        return _Pool(SMALL_SEGMENT_BYTES, BLOCK_BYTES), _Pool(LARGE_SEGMENT_BYTES, SMALL_BYTES + BLOCK_BYTES)

    def allocate(self, size_bytes: int) -> Block | None:
        """A block of at least ``size_bytes`` (above 0), or None when the capacity does not allow one."""
        size = -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        pool = self._small if size <= SMALL_BYTES else self._large
        block = self._best_fit(pool, size) or self._grow(pool, size)
        if block is None:
            self.release_cached()
            self.retries += 1
            block = self._grow(pool, size)
            if block is None:
                return None
        rest = block.size_bytes - size
        if rest >= pool.least_rest_bytes:
            block.size_bytes = size
            self._insert_after(block, Block(block.address + size, rest, pool))
        block.free = False
        self.allocated_bytes += block.size_bytes
        if self.allocated_bytes > self.peak_allocated_bytes:
            self.peak_allocated_bytes = self.allocated_bytes
        return block

    def free(self, block: Block) -> None:
        """Give back a block in use; it merges with free neighbours of its segment."""
        self.allocated_bytes -= block.size_bytes
        block.free = True
        self._merge(block)
        block.pool.put(block)

    def release_cached(self) -> None:
        """Give every segment without a block in use back to the driver, as ``torch.cuda.empty_cache`` does."""
        for pool in (self._large, self._small):
            kept = []
            for entry in pool.free:
                if entry[2].before is None and entry[2].after is None:
                    self.reserved_bytes -= entry[0]
                else:
                    kept.append(entry)
            pool.free = kept

    def reset_peaks(self) -> None:
        """Let both peaks start again from what is held now."""
        self.peak_allocated_bytes = self.allocated_bytes
        self.peak_reserved_bytes = self.reserved_bytes

    def _best_fit(self, pool: _Pool, size: int) -> Block | None:
        at = bisect_left(pool.free, (size,))
        return pool.free.pop(at)[2] if at < len(pool.free) else None

    def _grow(self, pool: _Pool, size: int) -> Block | None:
        """A new segment as one block, or None when the capacity is reached."""
        segment = pool.page_bytes if size < OWN_SEGMENT_BYTES else -(-size // SEGMENT_STEP_BYTES) * SEGMENT_STEP_BYTES
        if not self._reserve(segment):
            return None
        block = Block(self._next_address, segment, pool)
        self._next_address += segment
        return block

    def _reserve(self, size_bytes: int) -> bool:
        reserved = self.reserved_bytes + size_bytes
        if self.capacity_bytes is not None and reserved > self.capacity_bytes:
            return False
        self.reserved_bytes = reserved
        if reserved > self.peak_reserved_bytes:
            self.peak_reserved_bytes = reserved
        return True

    @staticmethod
    def _insert_after(block: Block, new: Block) -> None:
        """Link a free block in behind ``block`` and put it into its pool."""
        new.before, new.after = block, block.after
        if block.after is not None:
            block.after.before = new
        block.after = new
        if new.mapped:
            new.pool.put(new)
        else:
            insort(new.pool.unmapped, (new.address, new))

    @staticmethod
    def _merge(block: Block) -> None:
        """Take in free neighbours of the same kind; ``block`` itself is in no list meanwhile."""
        other = block.before
        if other is not None and other.free and other.mapped is block.mapped:
            other.pool.take(other)
            block.address = other.address
            block.size_bytes += other.size_bytes
            block.before = other.before
            if block.before is not None:
                block.before.after = block
        other = block.after
        if other is not None and other.free and other.mapped is block.mapped:
            other.pool.take(other)
            block.size_bytes += other.size_bytes
            block.after = other.after
            if block.after is not None:
                block.after.before = block


class ExpandableAllocator(CachingAllocator):
    """The allocator under ``PYTORCH_ALLOC_CONF=expandable_segments:True``: one growing segment for each pool.

    Memory is mapped behind its addresses page by page, 2 MiB each in the small pool and 20 MiB in the large one, and
    free whole pages can be unmapped again. The capacity is compared with what is mapped, as the driver does;
    ``torch.cuda.set_per_process_memory_fraction`` refuses earlier, since it adds the whole request.
    """

    def _pools(self) -> tuple[_Pool, _Pool]:
        pools = _Pool(SMALL_SEGMENT_BYTES, BLOCK_BYTES), _Pool(LARGE_SEGMENT_BYTES, BLOCK_BYTES)
        for base, pool in zip((0, _LARGE_BASE), pools, strict=True):
            pool.unmapped.append((base, Block(base, _ENDLESS_BYTES, pool, mapped=False)))
        return pools

    def release_cached(self) -> None:
        """Unmap every whole page that no block in use touches."""
        for pool in (self._large, self._small):
            for *_, block in list(pool.free):
                self._unmap(block)

    def _best_fit(self, pool: _Pool, size: int) -> Block | None:
        free = pool.free
        at = bisect_left(free, (size,))
        if at == len(free):
            return None
        # a block counts with what it could still grow by, so that the segment's end is kept for large requests
        while at + 1 < len(free) and _grown_bytes(free[at + 1][2]) < _grown_bytes(free[at][2]):
            at += 1
        return free.pop(at)[2]

    def _grow(self, pool: _Pool, size: int) -> Block | None:
        """Map pages behind the lowest free addresses that hold ``size``."""
        block = self._room(pool, size)
        if not block.mapped and not self._map(block, min(block.size_bytes, size)):
            return None
        while block.size_bytes < size:
            behind = block.after  # unmapped: two free mapped neighbours would have been merged
            assert behind is not None
            if not self._map(behind, min(size - block.size_bytes, behind.size_bytes)):
                return None
            block = behind  # it has taken in the block before it
        pool.take(block)
        return block

    @staticmethod
    def _room(pool: _Pool, size: int) -> Block:
        for _, unmapped in pool.unmapped:
            first = unmapped.before if unmapped.before is not None and unmapped.before.free else unmapped
            room, block = 0, first
            while room < size and block is not None and block.free:
                room += block.size_bytes
                block = block.after
            if room >= size:
                return first
        raise ValueError(f"a block of {size} bytes is larger than any address space")

    def _map(self, block: Block, size: int) -> bool:
        """Put whole pages behind the first ``size`` bytes of an unmapped block; False when the capacity is reached."""
        pool = block.pool
        mapped = -(-size // pool.page_bytes) * pool.page_bytes
        if not self._reserve(mapped):
            return False
        pool.take(block)
        rest = block.size_bytes - mapped
        block.mapped, block.size_bytes = True, mapped
        if rest:
            self._insert_after(block, Block(block.address + mapped, rest, pool, mapped=False))
        self._merge(block)
        pool.put(block)
        return True

    def _unmap(self, block: Block) -> None:
        pool = block.pool
        page, end = pool.page_bytes, block.address + block.size_bytes
        first, last = -(-block.address // page) * page, end // page * page
        if first >= last:
            return
        pool.take(block)
        if last < end:
            self._insert_after(block, Block(last, end - last, pool))
        whole = block
        if first > block.address:
            block.size_bytes = first - block.address
            pool.put(block)
            whole = Block(first, last - first, pool)
            whole.before, whole.after = block, block.after
            if whole.after is not None:
                whole.after.before = whole
            block.after = whole
        whole.size_bytes, whole.mapped = last - first, False
        self._merge(whole)
        insort(pool.unmapped, (whole.address, whole))
        self.reserved_bytes -= last - first


def _grown_bytes(block: Block) -> int:
    behind = block.after
    return block.size_bytes + (behind.size_bytes if behind is not None and not behind.mapped else 0)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The allocator at a mark of the log, in bytes; peaks are since the mark before."""

    name: str
    allocated_bytes: int
    reserved_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What a log of births and deaths did, in bytes.

    ``allocated_bytes`` and ``reserved_bytes`` are those at the end: of the log, or where it did not go on. In that
    case ``failed_at`` is the index of the birth that did not fit, counted over all events, ``requested_bytes`` what
    it asked for, and cached segments were released before. Marks behind it are missing.
    """

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    retries: int
    marks: list[Mark] = field(default_factory=list)
    failed_at: int | None = None
    requested_bytes: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the log went through."""
        return self.failed_at is None


def replay(events: Iterable[Event], capacity_bytes: int | None = None, expandable_segments: bool = False) -> Replay:
    """Feed a log to the caching allocator and say what it allocated and reserved.

    An event is ``(key, size_bytes)`` for a birth, the same key with 0 or a negative size for its death, and
    ``(None, name)`` for a mark. Without ``capacity_bytes`` nothing fails. A capacity of at least the uncapped peak
    reserved changes nothing; one below the log's own peak, sizes rounded up to 512 bytes, always fails. In between
    more capacity is nearly always better, but not always: releasing cached segments early can leave fewer holes.

    Raises ``ValueError`` with the index of an event that is no log: a key born twice, or dead without a birth.
    """
    allocator = (ExpandableAllocator if expandable_segments else CachingAllocator)(capacity_bytes)
    live: dict[Hashable, Block] = {}
    marks: list[Mark] = []
    peak_allocated = peak_reserved = 0
    failed_at = requested = None
    for index, (key, size) in enumerate(events):
        if key is None:
            marks.append(Mark(
                name=str(size), allocated_bytes=allocator.allocated_bytes, reserved_bytes=allocator.reserved_bytes,
                peak_allocated_bytes=allocator.peak_allocated_bytes, peak_reserved_bytes=allocator.peak_reserved_bytes,
            ))  # fmt: skip
            peak_allocated = max(peak_allocated, allocator.peak_allocated_bytes)
            peak_reserved = max(peak_reserved, allocator.peak_reserved_bytes)
            allocator.reset_peaks()
        elif size > 0:
            if key in live:
                raise ValueError(f"event {index}: {key!r} is born a second time")
            block = allocator.allocate(size)
            if block is None:
                failed_at, requested = index, size
                break
            live[key] = block
        elif key in live:
            allocator.free(live.pop(key))
        else:
            raise ValueError(f"event {index}: {key!r} dies and was not alive")
    return Replay(
        peak_allocated_bytes=max(peak_allocated, allocator.peak_allocated_bytes),
        peak_reserved_bytes=max(peak_reserved, allocator.peak_reserved_bytes),
        allocated_bytes=allocator.allocated_bytes, reserved_bytes=allocator.reserved_bytes,
        retries=allocator.retries, marks=marks, failed_at=failed_at, requested_bytes=requested,
    )  # fmt: skip
