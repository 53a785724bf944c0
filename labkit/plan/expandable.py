"""The caching allocator with expandable segments."""

from bisect import bisect_left, insort

from labkit.plan.allocator import (
    BLOCK_BYTES,
    LARGE_SEGMENT_BYTES,
    SMALL_SEGMENT_BYTES,
    Block,
    CachingAllocator,
    Pool,
)

_ENDLESS_BYTES = 2**50  # addresses of one expandable segment
_LARGE_BASE = LARGE_SEGMENT_BYTES * 2**30  # above the small pool's addresses, and where a page begins


class ExpandableAllocator(CachingAllocator):
    """The allocator under ``PYTORCH_ALLOC_CONF=expandable_segments:True``: one growing segment for each pool.

    Memory is mapped behind its addresses page by page, 2 MiB each in the small pool and 20 MiB in the large one, and
    free whole pages can be unmapped again. The capacity is compared with what is mapped, as the driver does;
    ``torch.cuda.set_per_process_memory_fraction`` refuses earlier, since it adds the whole request.
    """

    def _pools(self) -> tuple[Pool, Pool]:
        pools = Pool(SMALL_SEGMENT_BYTES, BLOCK_BYTES), Pool(LARGE_SEGMENT_BYTES, BLOCK_BYTES)
        for base, pool in zip((0, _LARGE_BASE), pools, strict=True):
            pool.unmapped.append((base, Block(base, _ENDLESS_BYTES, pool, mapped=False)))
        return pools

    def release_cached(self) -> None:
        """Unmap every whole page that no block in use touches."""
        for pool in (self._large, self._small):
            for *_, block in list(pool.free):
                self._unmap(block)

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        free = pool.free
        at = bisect_left(free, (size,))
        if at == len(free):
            return None
        # a block counts with what it could still grow by, so that the segment's end is kept for large requests
        while at + 1 < len(free) and _grown_bytes(free[at + 1][2]) < _grown_bytes(free[at][2]):
            at += 1
        return free.pop(at)[2]

    def _grow(self, pool: Pool, size: int) -> Block | None:
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
    def _room(pool: Pool, size: int) -> Block:
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
