"""The allocator replay: each rule by hand, two slow models written from the rules, and what holds of every log."""

import time
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labkit.plan.allocator import CachingAllocator, SimulatedAllocator
from labkit.plan.expandable import ExpandableAllocator
from labkit.plan.replay import Mark, replay

KIB, MIB = 2**10, 2**20
KINDS = {False: CachingAllocator, True: ExpandableAllocator}
PAGE = {"small": 2 * MIB, "large": 20 * MIB}


def allocations(*sizes):
    return [(f"b{i}", size) for i, size in enumerate(sizes)]


def reserved(*sizes, expandable=False):
    return replay(allocations(*sizes), kind=KINDS[expandable]).peak_reserved_bytes


def rounded(size):
    return max(512, -(-size // 512) * 512)


def test_the_simulated_gpu_counts_bytes_and_nothing_else():
    log = [("a", 512), ("b", 3 * MIB), ("a", 0), (None, "here"), ("c", 5 * MIB), ("b", -1)]
    found = replay(log, 8 * MIB, SimulatedAllocator)
    assert found.fits
    assert (found.peak_allocated_bytes, found.peak_reserved_bytes) == (8 * MIB, 8 * MIB)
    assert (found.marks[0].allocated_bytes, found.marks[0].peak_allocated_bytes) == (3 * MIB, 3 * MIB + 512)
    assert found.allocated_bytes == found.reserved_bytes == 5 * MIB
    less = replay(log, 8 * MIB - 1, SimulatedAllocator)
    assert (less.failed_at, less.requested_bytes, less.allocated_bytes) == (4, 5 * MIB, 3 * MIB)


# -- the rules, by hand


@pytest.mark.parametrize(("asked", "got"), [(1, 512), (511, 512), (512, 512), (513, 1024), (MIB - 1, MIB)])
def test_sizes_are_rounded_up_to_512_bytes(asked, got):
    assert replay([("a", asked)]).allocated_bytes == got


@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (1, 2 * MIB), (MIB, 2 * MIB), (MIB + 1, 20 * MIB), (10 * MIB - 512, 20 * MIB), (10 * MIB - 511, 10 * MIB),
        (10 * MIB, 10 * MIB), (10 * MIB + 1, 12 * MIB), (12 * MIB, 12 * MIB), (1000 * MIB + 1, 1002 * MIB),
    ],
)  # fmt: skip
def test_a_first_block_reserves_the_segment_of_its_size(size, segment):
    assert reserved(size) == segment


@pytest.mark.slow
def test_small_blocks_share_a_segment_until_it_is_full():
    assert reserved(*[512] * 4096) == 2 * MIB
    assert reserved(*[512] * 4097) == 4 * MIB


def test_small_and_large_blocks_do_not_share():
    assert reserved(4 * MIB, MIB) == 22 * MIB


def test_blocks_of_1_to_10_mib_share_20_mib():
    assert reserved(*[4 * MIB] * 5) == 20 * MIB
    assert reserved(*[4 * MIB] * 6) == 40 * MIB
    assert reserved(*[6 * MIB] * 3) == 20 * MIB


def test_a_rest_of_1_mib_of_a_large_segment_stays_with_its_block():
    log = [("a", 12 * MIB), ("a", 0), ("b", 11 * MIB)]
    assert replay(log).allocated_bytes == 12 * MIB
    log = [("a", 12 * MIB), ("a", 0), ("b", 11 * MIB - 512)]
    assert replay(log).allocated_bytes == 11 * MIB - 512


def test_a_small_segment_is_split_down_to_512_bytes():
    log = [("a", MIB), ("b", MIB), ("b", 0), ("c", MIB - 512), ("d", 512)]
    done = replay(log)
    assert (done.allocated_bytes, done.reserved_bytes) == (2 * MIB, 2 * MIB)


def test_the_smallest_block_that_is_large_enough_is_taken():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(size * MIB) for size in (40, 20, 30)]
    for block in blocks:
        allocator.free(block)
    assert allocator.allocate(19 * MIB) is blocks[1]
    assert allocator.allocate(25 * MIB) is blocks[2]
    assert allocator.allocate(25 * MIB) is blocks[0]
    assert allocator.reserved_bytes == 90 * MIB


def test_of_equal_blocks_the_lowest_address_is_taken():
    allocator = CachingAllocator()
    first, second = allocator.allocate(20 * MIB), allocator.allocate(20 * MIB)
    allocator.free(second)
    allocator.free(first)
    assert allocator.allocate(20 * MIB) is first


@pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])
def test_freed_neighbours_merge_in_any_order(order):
    log = [("a", 6 * MIB), ("b", 6 * MIB), ("c", 6 * MIB), *((key, 0) for key in order), ("d", 9 * MIB), ("e", 9 * MIB)]
    assert replay(log).peak_reserved_bytes == 20 * MIB


def test_a_hole_between_blocks_in_use_is_not_joined_with_another():
    log = [*allocations(*[5 * MIB] * 4), ("b0", 0), ("b2", 0), ("x", 9 * MIB)]
    assert replay(log).reserved_bytes == 40 * MIB


def test_blocks_of_two_segments_never_merge():
    log = [("a", 10 * MIB), ("b", 10 * MIB), ("a", 0), ("b", 0), ("c", 20 * MIB)]
    assert replay(log).reserved_bytes == 40 * MIB


def test_a_free_segment_stays_reserved_until_the_capacity_is_reached():
    log = [("a", 30 * MIB), ("a", 0), ("b", 40 * MIB)]
    assert replay(log).reserved_bytes == 70 * MIB
    capped = replay(log, 69 * MIB)
    assert capped.fits
    assert (capped.reserved_bytes, capped.peak_reserved_bytes, capped.retries) == (40 * MIB, 40 * MIB, 1)


def test_a_segment_with_one_block_in_use_is_not_released():
    log = [("a", 2 * MIB), ("b", 4 * MIB), ("b", 0), ("c", 30 * MIB)]
    failed = replay(log, 49 * MIB)
    assert (failed.failed_at, failed.requested_bytes, failed.retries) == (3, 30 * MIB, 1)
    assert (failed.allocated_bytes, failed.reserved_bytes) == (2 * MIB, 20 * MIB)
    assert not failed.fits


def test_an_event_has_free_segments_released_and_is_no_retry():
    log = [("a", 2 * MIB), ("b", 30 * MIB), ("b", 0), (None, 0), (None, "released"), ("c", 41 * MIB)]
    done = replay(log)
    assert (done.marks[0].allocated_bytes, done.marks[0].reserved_bytes) == (2 * MIB, 20 * MIB)
    assert (done.reserved_bytes, done.peak_reserved_bytes, done.retries) == (62 * MIB, 62 * MIB, 0)
    done = replay(log, kind=ExpandableAllocator)  # b was in two pages, of which one is a's too
    assert (done.marks[0].allocated_bytes, done.marks[0].reserved_bytes) == (2 * MIB, 20 * MIB)


def test_a_failure_counts_events_from_0_with_marks_and_drops_the_marks_after():
    log = [(None, "start"), ("a", 10 * MIB), (None, "middle"), ("b", 10 * MIB), (None, "end")]
    failed = replay(log, 19 * MIB)
    assert failed.failed_at == 3
    assert [mark.name for mark in failed.marks] == ["start", "middle"]


def test_a_mark_has_the_state_and_the_peaks_since_the_mark_before():
    log = [("a", 10 * MIB), ("b", 30 * MIB), ("b", 0), (None, "one"), ("c", 12 * MIB), ("c", 0), (None, "two")]
    done = replay(log)
    assert done.marks == [
        Mark(name="one", allocated_bytes=10 * MIB, reserved_bytes=40 * MIB, peak_allocated_bytes=40 * MIB,
             peak_reserved_bytes=40 * MIB),
        Mark(name="two", allocated_bytes=10 * MIB, reserved_bytes=40 * MIB, peak_allocated_bytes=22 * MIB,
             peak_reserved_bytes=40 * MIB),
    ]  # fmt: skip
    assert (done.peak_allocated_bytes, done.peak_reserved_bytes) == (40 * MIB, 40 * MIB)


def test_an_empty_log_holds_nothing():
    done = replay([])
    assert (done.peak_allocated_bytes, done.peak_reserved_bytes, done.retries, done.fits) == (0, 0, 0, True)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([("a", 512), ("a", 512)], "event 1: 'a' is allocated a second time"),
        ([("a", 0)], "event 0: 'a' is freed and was not allocated"),
        ([("a", 512), ("a", -512), ("a", -512)], "event 2: 'a' is freed"),
    ],
)
def test_what_is_no_log_is_refused_with_its_event(log, words):
    with pytest.raises(ValueError, match=words):
        replay(log)


def test_more_capacity_can_be_worse():
    """At 68 MiB the third allocation makes the allocator release all, at 70 MiB it does not and leaves a hole."""
    sizes = [("a", 20), ("b", 4), ("a", 0), ("b", 0), ("c", 30), ("d", 16), ("e", 21)]
    log = [(key, size * MIB) for key, size in sizes]
    assert [replay(log, capacity * MIB).fits for capacity in (66, 68, 70, 72)] == [False, True, False, True]


def test_a_log_can_fit_below_its_uncapped_peak_of_allocated_bytes():
    """Uncapped, a cached block gives 12 MiB for 11; capped it was released. So only the log's own peak is a bound."""
    sizes = [("a", 11), ("a", 0), ("b", 21), ("b", 0), ("c", 11), ("d", 11)]
    log = [(key, size * MIB) for key, size in sizes]
    assert replay(log).peak_allocated_bytes == 23 * MIB
    assert replay(log, 22 * MIB).fits


# -- expandable segments, by hand


@pytest.mark.parametrize(
    ("sizes", "mapped"),
    [([1], 2 * MIB), ([MIB, MIB, 1], 4 * MIB), ([2 * MIB], 20 * MIB), ([21 * MIB], 40 * MIB),
     ([15 * MIB, 15 * MIB], 40 * MIB), ([41 * MIB, 18 * MIB], 60 * MIB), ([MIB, 2 * MIB], 22 * MIB)],
)  # fmt: skip
def test_an_expandable_segment_grows_by_pages(sizes, mapped):
    assert reserved(*sizes, expandable=True) == mapped


def test_an_expandable_segment_has_no_rests_that_stay_with_a_block():
    log = [("a", 12 * MIB), ("a", 0), ("b", 11 * MIB)]
    assert replay(log, kind=ExpandableAllocator).allocated_bytes == 11 * MIB


def test_a_larger_block_grows_from_the_free_end():
    log = [("a", 30 * MIB), ("a", 0), ("b", 60 * MIB)]
    assert replay(log).reserved_bytes == 90 * MIB
    assert replay(log, kind=ExpandableAllocator).reserved_bytes == 60 * MIB


def test_pages_without_a_block_in_use_are_unmapped_at_the_capacity():
    log = [("a", 70 * MIB), ("b", 5 * MIB), ("a", 0), ("c", 75 * MIB)]
    # b holds the fourth page, so 20 MiB stay mapped; c takes the last 5 of them and needs four pages more after
    assert not replay(log, 100 * MIB - 1, kind=ExpandableAllocator).fits
    capped = replay(log, 100 * MIB, kind=ExpandableAllocator)
    assert (capped.fits, capped.retries, capped.reserved_bytes) == (True, 1, 100 * MIB)


# -- two slow models, written from the rules in another way


class Segments:
    """Segments as lists of [size, key or None], all of them looked through for every block."""

    def __init__(self, capacity):
        self.capacity, self.segments, self.retries = capacity, [], 0

    def reserved(self):
        return sum(size for _, parts in self.segments for size, _ in parts)

    def allocated(self):
        return sum(size for _, parts in self.segments for size, key in parts if key is not None)

    def allocate(self, key, size):
        size = rounded(size)
        pool = "small" if size <= MIB else "large"
        fits = [(part[0], s, p) for s, (kind, parts) in enumerate(self.segments) if kind == pool
                for p, part in enumerate(parts) if part[1] is None and part[0] >= size]  # fmt: skip
        if fits:
            _, s, p = min(fits)
        else:
            segment = PAGE[pool] if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            if self.reserved() + segment > self.capacity:
                self.retries += 1
                self.release()
                if self.reserved() + segment > self.capacity:
                    return False
            self.segments.append((pool, [[segment, None]]))
            s, p = len(self.segments) - 1, 0
        parts = self.segments[s][1]
        rest = parts[p][0] - size
        if rest >= 512 if pool == "small" else rest > MIB:
            parts[p : p + 1] = [[size, key], [rest, None]]
        else:
            parts[p][1] = key
        return True

    def release(self):
        self.segments = [(kind, parts) for kind, parts in self.segments if [k for _, k in parts] != [None]]

    def free(self, key):
        for _, parts in self.segments:
            for part in parts:
                if part[1] == key:
                    part[1] = None
            for p in range(len(parts) - 1, 0, -1):
                if parts[p][1] is None and parts[p - 1][1] is None:
                    parts[p - 1][0] += parts.pop(p)[0]


class Pages:
    """For each pool the set of mapped pages and the intervals in use; free stretches are worked out each time."""

    END = 10**15

    def __init__(self, capacity):
        self.capacity, self.retries = capacity, 0
        self.mapped, self.used = {"small": set(), "large": set()}, {"small": {}, "large": {}}

    def reserved(self):
        return sum(PAGE[pool] * len(pages) for pool, pages in self.mapped.items())

    def allocated(self):
        return sum(size for used in self.used.values() for _, size in used.values())

    def gaps(self, pool):
        """Stretches between blocks in use, each as a list of (start, end, mapped)."""
        page, at, found = PAGE[pool], 0, []
        for start, size in [*sorted(self.used[pool].values()), (self.END, 0)]:
            runs = []
            while at < start:
                is_mapped = at // page in self.mapped[pool]
                top = max(self.mapped[pool], default=-1)
                end = start if at // page > top else min(start, (at // page + 1) * page)
                if runs and runs[-1][2] == is_mapped:
                    runs[-1] = (runs[-1][0], end, is_mapped)
                else:
                    runs.append((at, end, is_mapped))
                at = end
            found.append(runs)
            at = start + size
        return found

    def allocate(self, key, size):
        size = rounded(size)
        pool = "small" if size <= MIB else "large"
        free = []
        for runs in self.gaps(pool):
            for i, (start, end, is_mapped) in enumerate(runs):
                if is_mapped:
                    behind = runs[i + 1][1] - runs[i + 1][0] if i + 1 < len(runs) else 0
                    free.append((end - start, start, end - start + behind))
        free = sorted(f for f in free if f[0] >= size)
        if free:
            best = 0
            while best + 1 < len(free) and free[best + 1][2] < free[best][2]:
                best += 1
            start = free[best][1]
        else:
            start = self.grow(pool, size)
            if start is None:
                self.retries += 1
                self.release()
                start = self.grow(pool, size)
            if start is None:
                return False
        self.used[pool][key] = (start, size)
        return True

    def grow(self, pool, size):
        runs = next(r for r in self.gaps(pool) if r and r[-1][1] - r[0][0] >= size and not all(m for *_, m in r))
        first, page = runs[0][0], PAGE[pool]
        for start, end, is_mapped in runs:
            if not is_mapped and start < first + size:
                pages = range(start // page, -(-min(end, first + size) // page))
                if self.reserved() + len(pages) * page > self.capacity:
                    return None
                self.mapped[pool].update(pages)
        return first

    def release(self):
        for pool, page in PAGE.items():
            held = {p for start, size in self.used[pool].values()
                    for p in range(start // page, (start + size - 1) // page + 1)}  # fmt: skip
            self.mapped[pool] &= held

    def free(self, key):
        for used in self.used.values():
            used.pop(key, None)


ALLOCATORS = {False: (CachingAllocator, Segments), True: (ExpandableAllocator, Pages)}

SIZES = st.one_of(
    st.integers(1, 3 * KIB), st.integers(1, 2 * MIB), st.integers(MIB, 12 * MIB), st.integers(8 * MIB, 90 * MIB),
    st.sampled_from([512, MIB, 2 * MIB, 10 * MIB, 11 * MIB, 12 * MIB, 19 * MIB, 20 * MIB, 40 * MIB]),
)  # fmt: skip


@st.composite
def logs(draw, everything_dies=False):
    """Allocations and frees; a step with a number frees one of those allocated."""
    log, alive = [], []
    for key, (size, which) in enumerate(draw(st.lists(st.tuples(SIZES, st.none() | st.integers(0, 99)), max_size=40))):
        if which is not None and alive:
            log.append((alive.pop(which % len(alive)), 0))
        else:
            log.append((key, size))
            alive.append(key)
    return log + [(key, 0) for key in alive] if everything_dies else log


def live_bytes(log):
    """Bytes alive after each event, each size rounded up to 512."""
    sizes, found = {}, []
    for key, size in log:
        if size > 0:
            sizes[key] = rounded(size)
        else:
            del sizes[key]
        found.append(sum(sizes.values()))
    return found


def compare(log, expandable, capacity):
    """Feed a log to ours and to the slow model, which must agree after each event; returns the retries."""
    ours, theirs = ALLOCATORS[expandable]
    ours, theirs = ours(capacity), theirs(float("inf") if capacity is None else capacity)
    blocks = {}
    for key, size in log:
        if size > 0:
            blocks[key] = ours.allocate(size)
            assert (blocks[key] is not None) == theirs.allocate(key, size)
            if blocks[key] is None:
                break
        elif key is None:
            ours.release_cached()
            theirs.release()
        else:
            ours.free(blocks.pop(key))
            theirs.free(key)
        assert (ours.allocated_bytes, ours.reserved_bytes) == (theirs.allocated(), theirs.reserved())
        assert ours.retries == theirs.retries
    return ours.retries


@pytest.mark.slow
@given(log=logs(), expandable=st.booleans(), capacity=st.none() | st.integers(20 * MIB, 400 * MIB))
@settings(max_examples=300, deadline=None)
def test_it_does_what_a_slow_model_of_the_rules_does(log, expandable, capacity):
    compare(log, expandable, capacity)


@pytest.mark.slow
@pytest.mark.parametrize("expandable", [False, True])
def test_it_does_what_the_slow_model_does_where_cached_segments_are_often_released(expandable):
    random, retries = Random(0), 0
    for _ in range(1500):
        log, alive = [], []
        for key in range(60):
            if random.random() < 0.05:  # torch.cuda.empty_cache
                log.append((None, 0))
            elif alive and random.random() < 0.48:
                log.append((alive.pop(random.randrange(len(alive))), 0))
            else:
                alive.append(key)
                log.append((key, random.choice([0.5, 1, 2, 5, 5, 10, 15, 20, 25, 35, 45, 65]) * MIB))
        retries += compare([(key, int(size)) for key, size in log], expandable, random.randint(100, 300) * MIB)
    assert retries > 500


# -- what holds of every log


@given(log=logs(), expandable=st.booleans(), capacity=st.none() | st.integers(20 * MIB, 400 * MIB))
@settings(deadline=None)
def test_live_blocks_hold_what_was_asked_and_never_overlap(log, expandable, capacity):
    allocator = ALLOCATORS[expandable][0](capacity)
    blocks = {}
    for (key, size), alive in zip(log, live_bytes(log), strict=True):
        if size > 0:
            block = allocator.allocate(size)
            if block is None:
                assert allocator.retries
                break
            assert block.size_bytes >= size
            blocks[key] = block
        else:
            allocator.free(blocks.pop(key))
        spans = sorted((b.address, b.address + b.size_bytes) for b in blocks.values())
        assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))
        assert allocator.allocated_bytes == sum(b.size_bytes for b in blocks.values())
        assert alive <= allocator.allocated_bytes <= allocator.reserved_bytes
        assert capacity is None or allocator.reserved_bytes <= capacity


@given(log=logs(everything_dies=True), expandable=st.booleans())
@settings(deadline=None)
def test_when_all_is_dead_nothing_is_allocated_and_all_can_be_released(log, expandable):
    done = replay(log, kind=KINDS[expandable])
    assert done.allocated_bytes == 0
    assert done.reserved_bytes == done.peak_reserved_bytes  # nothing was released without a capacity
    allocator = ALLOCATORS[expandable][0]()
    blocks = {}
    for key, size in log:
        if size > 0:
            blocks[key] = allocator.allocate(size)
        else:
            allocator.free(blocks.pop(key))
    allocator.release_cached()
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (0, 0)


@given(log=logs(), expandable=st.booleans(), more=st.integers(0, 50 * MIB))
@settings(deadline=None)
def test_a_capacity_of_the_uncapped_peak_or_more_changes_nothing(log, expandable, more):
    free = replay(log, kind=KINDS[expandable])
    assert free.fits
    assert free.retries == 0
    assert replay(log, free.peak_reserved_bytes + more, KINDS[expandable]) == free


@given(log=logs(), expandable=st.booleans(), below=st.integers(1, 200 * MIB))
@settings(deadline=None)
@example(log=[("a", 1)], expandable=False, below=1)
@example(log=[("a", 40 * MIB)], expandable=True, below=1)
def test_a_capacity_below_what_is_alive_at_the_peak_always_fails(log, expandable, below):
    peak = max(live_bytes(log), default=0)
    if peak:
        failed = replay(log, max(0, peak - below), KINDS[expandable])
        assert not failed.fits
        assert failed.requested_bytes == log[failed.failed_at][1]


@given(log=logs(), expandable=st.booleans(), data=st.data())
@settings(deadline=None)
def test_a_capped_replay_is_the_uncapped_one_until_its_first_retry(log, expandable, data):
    free = replay(log, kind=KINDS[expandable])
    capacity = data.draw(st.integers(0, free.peak_reserved_bytes))
    capped = replay(log, capacity, KINDS[expandable])
    assert capped.peak_reserved_bytes <= capacity
    assert capped.fits or capped.retries > 0
    assert (capped.retries > 0) == (capacity < free.peak_reserved_bytes)


@given(log=logs(), expandable=st.booleans())
@settings(deadline=None)
def test_marks_change_nothing_and_their_highest_peak_is_the_peak(log, expandable):
    marked = [event for i, pair in enumerate(log) for event in (pair, (None, str(i)))]
    plain, done = replay(log, kind=KINDS[expandable]), replay(marked, kind=KINDS[expandable])
    assert done.peak_allocated_bytes == plain.peak_allocated_bytes
    assert done.peak_reserved_bytes == plain.peak_reserved_bytes
    assert max((m.peak_reserved_bytes for m in done.marks), default=0) == plain.peak_reserved_bytes
    assert max((m.peak_allocated_bytes for m in done.marks), default=0) == plain.peak_allocated_bytes


@pytest.mark.parametrize("expandable", [False, True])
def test_100_000_events_take_well_under_a_second(expandable):
    log = []
    for step in range(25):  # 1,000 activations are allocated and freed in reverse, each with a temporary
        for i in range(1000):
            log += [((step, i), 3000 * (i + 1)), ("t", 50_000 * (i % 40 + 1)), ("t", 0)]
        log += [((step, i), 0) for i in reversed(range(1000))]
    started = time.process_time()
    assert replay(log, kind=KINDS[expandable]).fits
    assert time.process_time() - started < 2  # 0.1 s on two idle cores; a slow machine is no failure
