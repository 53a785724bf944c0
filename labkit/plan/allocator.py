"""A model of PyTorch's CUDA caching allocator: how much it reserves for a sequence of requests.

The rules are those of torch's CUDA caching allocator, versions 2.11 to 2.13, with its default settings, one stream
and no CUDA graphs (``c10/cuda/CUDACachingAllocator.cpp``, in the newest versions
``c10/core/CachingDeviceAllocator.h``). No GPU was at hand: the model was compared with the source, not with a GPU.
What it has to assume:

- a segment's address is above all earlier ones (the driver may take an old address again; it only breaks ties),
- the driver gives a segment whenever the sum of all segments stays within the capacity,
- nothing waits for another stream, so what is freed can be used at once,
- an expandable segment never runs out of addresses (torch takes 9/8 of the GPU's memory for each).
"""

from bisect import bisect_left, insort

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


class Block:
    """A stretch of a segment, in use or free. ``address`` and ``size_bytes`` are in bytes."""

    __slots__ = ("address", "after", "before", "free", "mapped", "pool", "size_bytes")

    def __init__(self, address: int, size_bytes: int, pool: "Pool", mapped: bool = True) -> None:
        self.address = address
        self.size_bytes = size_bytes
        self.pool = pool
        self.mapped = mapped
        self.free = True
        self.before: Block | None = None
        self.after: Block | None = None


class Pool:
    """The free blocks of one pool, best fit first: sorted by size, then address. Sizes in bytes."""

    __slots__ = ("free", "least_rest_bytes", "page_bytes", "unmapped")

    def __init__(self, page_bytes: int, least_rest_bytes: int) -> None:
        self.page_bytes = page_bytes
        self.least_rest_bytes = least_rest_bytes  # a smaller rest stays with its block
        self.free: list[tuple[int, int, Block]] = []
        self.unmapped: list[tuple[int, Block]] = []  # addresses without memory behind them; expandable segments only

    def put(self, block: Block) -> None:
        """Add a free block."""
        insort(self.free, (block.size_bytes, block.address, block))

    def take(self, block: Block) -> None:
        """Remove a block that is here."""
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

    def _pools(self) -> tuple[Pool, Pool]:
        # of a large block more than 1 MiB must be left over, and all sizes are multiples of 512 bytes
        return Pool(SMALL_SEGMENT_BYTES, BLOCK_BYTES), Pool(LARGE_SEGMENT_BYTES, SMALL_BYTES + BLOCK_BYTES)

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

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        at = bisect_left(pool.free, (size,))
        return pool.free.pop(at)[2] if at < len(pool.free) else None

    def _grow(self, pool: Pool, size: int) -> Block | None:
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
        """Link a free block in after ``block`` and put it into its pool."""
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


class SimulatedAllocator(CachingAllocator):
    """The simulated GPU: every block is its own, nothing is cached, and what is reserved is what is allocated."""

    def allocate(self, size_bytes: int) -> Block | None:
        """A block of exactly ``size_bytes``, or None when the capacity does not allow one."""
        if not self._reserve(size_bytes):
            return None
        self.allocated_bytes = self.reserved_bytes
        self.peak_allocated_bytes = self.peak_reserved_bytes
        return Block(0, size_bytes, self._large)

    def free(self, block: Block) -> None:
        """Give back a block in use."""
        self.allocated_bytes = self.reserved_bytes = self.reserved_bytes - block.size_bytes
