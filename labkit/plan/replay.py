"""Replay: what a log of allocations and frees makes CUDA's caching allocator reserve."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from labkit.plan.allocator import Block, CachingAllocator

Event = tuple[Hashable, int] | tuple[None, str]
"""``(key, size_bytes)`` is an allocation, ``(key, 0)`` or a negative size a free, ``(None, name)`` a mark, and
``(None, 0)`` has cached segments released."""


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
    """What a log of allocations and frees did, in bytes.

    ``allocated_bytes`` and ``reserved_bytes`` are those at the end: of the log, or where it stopped. In that
    case ``failed_at`` is the index of the allocation that did not fit, counted over all events, ``requested_bytes``
    what it asked for, and cached segments were released before. Marks after it are missing.
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


def replay(
    events: Iterable[Event], capacity_bytes: int | None = None, kind: type[CachingAllocator] = CachingAllocator
) -> Replay:
    """Feed a log to an allocator and say what it allocated and reserved.

    An event is ``(key, size_bytes)`` for an allocation, the same key with 0 or a negative size for its free,
    ``(None, name)`` for a mark, and ``(None, 0)`` for ``torch.cuda.empty_cache``. ``kind`` is the caching allocator,
    ``ExpandableAllocator`` or ``SimulatedAllocator``. Without ``capacity_bytes`` nothing fails. A capacity of at
    least the uncapped peak reserved changes nothing; one below the log's own peak, sizes rounded up to 512 bytes,
    always fails. In between more capacity is nearly always better, but not always: releasing cached segments early can
    leave fewer holes.

    Raises ``ValueError`` with the index of an event that is not a log: a key allocated twice, or freed without an
    allocation.
    """
    allocator = kind(capacity_bytes)
    live: dict[Hashable, Block] = {}
    marks: list[Mark] = []
    peak_allocated = peak_reserved = 0
    failed_at = requested = None
    for index, (key, size) in enumerate(events):
        if isinstance(size, str):
            marks.append(Mark(
                name=size, allocated_bytes=allocator.allocated_bytes, reserved_bytes=allocator.reserved_bytes,
                peak_allocated_bytes=allocator.peak_allocated_bytes, peak_reserved_bytes=allocator.peak_reserved_bytes,
            ))  # fmt: skip
            peak_allocated = max(peak_allocated, allocator.peak_allocated_bytes)
            peak_reserved = max(peak_reserved, allocator.peak_reserved_bytes)
            allocator.reset_peaks()
        elif size > 0:
            if key in live:
                raise ValueError(f"event {index}: {key!r} is allocated a second time")
            block = allocator.allocate(size)
            if block is None:
                failed_at, requested = index, size
                break
            live[key] = block
        elif key in live:
            allocator.free(live.pop(key))
        elif key is None:
            allocator.release_cached()
        else:
            raise ValueError(f"event {index}: {key!r} is freed and was not allocated")
    return Replay(
        peak_allocated_bytes=max(peak_allocated, allocator.peak_allocated_bytes),
        peak_reserved_bytes=max(peak_reserved, allocator.peak_reserved_bytes),
        allocated_bytes=allocator.allocated_bytes, reserved_bytes=allocator.reserved_bytes,
        retries=allocator.retries, marks=marks, failed_at=failed_at, requested_bytes=requested,
    )  # fmt: skip
