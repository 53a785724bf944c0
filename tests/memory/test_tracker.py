"""The tracker counts every storage once, from allocation to free, and its capacity is a hard one."""

import gc
import os
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.memory.categories import CATEGORIES, HOST_CATEGORIES, on_device
from labkit.memory.tracker import BLOCK_BYTES, Tracker, host
from labkit.memory.units import human_bytes

torch.set_num_threads(1)

KIB = 1024


def kib(count: int) -> torch.Tensor:
    """A new tensor of ``count`` KiB."""
    return torch.ones(count * KIB // 4)


def rounded(size_bytes: int) -> int:
    """What CUDA's allocator takes for so many bytes."""
    return -(-size_bytes // 512) * 512


# -- allocations and frees


@pytest.mark.parametrize(("count", "taken"), [(0, 0), (1, 512), (512, 512), (513, 1024), (1024, 1024)])
def test_sizes_are_rounded_up_to_512_bytes(count, taken):
    with Tracker() as tracker:
        kept = torch.zeros(count, dtype=torch.uint8)
        assert tracker.allocated_bytes == taken == tracker.peak_bytes
        del kept
        assert tracker.allocated_bytes == 0


def test_a_storage_counts_once_however_often_it_is_viewed():
    with Tracker() as tracker:
        whole = kib(4)
        views = [whole[:10], whole.view(2, -1), whole.t(), whole.detach(), whole.expand(3, -1), whole.add_(1)]
        assert tracker.allocated_bytes == 4 * KIB
        copy = whole.clone()
        assert tracker.allocated_bytes == 8 * KIB
        del views, copy
        assert tracker.allocated_bytes == 4 * KIB


def test_a_storage_lives_until_its_last_view_dies():
    with Tracker() as tracker:
        whole = kib(4)
        first, last = whole[:1], whole[-1:]
        del whole
        assert tracker.allocated_bytes == 4 * KIB
        del first
        assert tracker.allocated_bytes == 4 * KIB
        del last
        assert tracker.allocated_bytes == 0


@pytest.mark.slow
def test_a_storage_that_only_autograd_holds_is_alive():
    weight = kib(4).requires_grad_()
    with Tracker() as tracker:
        loss = weight.exp().sum()  # the result of exp is saved for backward, and Python has no name for it
        gc.collect()
        assert tracker.allocated_bytes == 4 * KIB + BLOCK_BYTES
        loss.backward()
        assert tracker.allocated_bytes == BLOCK_BYTES + rounded(weight.grad.nbytes)


def test_deaths_count_outside_the_context_too():
    with Tracker() as tracker:
        kept = kib(4)
    unseen = kib(4)
    assert tracker.allocated_bytes == 4 * KIB
    del kept, unseen
    assert tracker.allocated_bytes == 0


@pytest.mark.parametrize(("count", "taken"), [(3000, 12288), (100, 512), (0, 0)])
def test_a_resize_in_place_changes_the_size_and_keeps_the_category(count, taken):
    with Tracker() as tracker:
        tensor = kib(4)
        tracker.assign([tensor], "inputs")
        tensor.resize_(count)
        tensor.untyped_storage().resize_(count * 4)  # resize_ alone never shrinks a storage
        tensor.add_(1)
        assert tracker.allocated_bytes == taken
        assert tracker.breakdown()["inputs"] == taken
        del tensor
        assert tracker.allocated_bytes == 0


def test_foreach_operations_count_every_result():
    with Tracker() as tracker:
        tensors = [kib(1), kib(2), kib(3)]
        results = torch._foreach_mul(tensors, 2.0)
        assert tracker.allocated_bytes == 12 * KIB
        torch._foreach_add_(tensors, results)
        assert tracker.allocated_bytes == tracker.peak_bytes == 12 * KIB


def test_sparse_gradients_count_by_their_parts():
    with Tracker() as tracker:
        embedding = torch.nn.Embedding(1000, 64, sparse=True)
        embedding(torch.arange(8)).sum().backward()
        tracker.assign([embedding.weight], "parameters")
        tracker.assign([embedding.weight.grad], "gradients")
        found = tracker.breakdown()
    assert found["parameters"] == 1000 * 64 * 4
    assert found["gradients"] == rounded(8 * 64 * 4) + rounded(8 * 8)


def test_other_devices_are_not_followed():
    with Tracker() as tracker:
        kept = [torch.empty(1000, device="meta"), torch.empty(1000, device="meta") + 1]
        assert tracker.allocated_bytes == 0
        del kept


def test_host_categories_count_on_whatever_device_their_tensors_are():
    with Tracker(capacity_bytes=4 * KIB, device_type="meta") as tracker:  # meta is the device, the CPU the host
        on_the_device = torch.empty(KIB // 4, device="meta")
        state, unsaid = kib(8), kib(8)
        assert tracker.allocated_bytes == KIB
        tracker.assign([state], "optimizer_cpu")
        tracker.assign([unsaid], "gradients")
        found = tracker.breakdown()
        assert found["optimizer_cpu"] == 8 * KIB
        assert found["gradients"] == 0  # which only the device has
        assert tracker.allocated_bytes == tracker.peak_bytes == KIB
        del state, on_the_device
        assert set(tracker.breakdown().values()) == {0}


def test_work_in_host_memory_is_not_followed():
    with Tracker() as tracker:
        with host():
            batch = kib(4) + 1
        assert tracker.peak_bytes == 0
        kept = kib(1)
        assert tracker.allocated_bytes == 1 * KIB
        del kept, batch


# -- categories


def test_what_lived_before_is_told_by_assign():
    model = torch.nn.Linear(128, 128)
    with Tracker() as tracker:
        assert tracker.allocated_bytes == 0
        tracker.assign(model.parameters(), "parameters")
        tracker.assign(model.parameters(), "parameters")
    assert tracker.allocated_bytes == tracker.breakdown()["parameters"] == (128 * 128 + 128) * 4
    del model
    assert tracker.allocated_bytes == 0


def test_optimizer_state_in_host_memory_leaves_the_device():
    with Tracker() as tracker:
        state = kib(4)
        tracker.assign([state], "optimizer_cpu")
        assert tracker.allocated_bytes == 0
        assert tracker.breakdown()["optimizer_cpu"] == 4 * KIB
        del state
        assert tracker.allocated_bytes == 0
        assert tracker.breakdown()["optimizer_cpu"] == 0


def test_what_comes_back_from_host_memory_takes_room_on_the_device():
    with Tracker() as tracker:
        state = kib(4)
        tracker.assign([state], "optimizer_cpu")
        tracker.assign([state], "gradients")
        assert tracker.allocated_bytes == on_device(tracker.breakdown()) == 4 * KIB
        del state
        assert tracker.allocated_bytes == 0


def test_what_lived_in_host_memory_before_needs_no_room_on_the_device():
    state = kib(8)
    tracker = Tracker(capacity_bytes=4 * KIB)
    tracker.assign([state], "optimizer_cpu")
    assert tracker.allocated_bytes == 0
    assert tracker.breakdown()["optimizer_cpu"] == 8 * KIB


def test_a_phase_tells_survivors_from_temporaries():
    with Tracker() as tracker:
        old = kib(4)
        tracker.assign([old], "parameters")
        tracker.begin_phase()
        gone, kept = kib(16), kib(2)
        del gone
        later = kib(1)
        end, peak, highest = tracker.end_phase("activations")
    none = dict.fromkeys(CATEGORIES, 0)
    assert end == none | {"parameters": 4 * KIB, "activations": 3 * KIB}
    assert peak == none | {"parameters": 4 * KIB, "activations": 2 * KIB, "temporaries": 16 * KIB}
    assert highest == none | {"parameters": 4 * KIB, "activations": 3 * KIB, "temporaries": 16 * KIB}
    del old, kept, later


def test_what_was_born_before_a_phase_is_none_of_its_survivors():
    with Tracker() as tracker:
        old = kib(4)
        tracker.begin_phase()
        new = kib(1)
        end, peak, _ = tracker.end_phase("activations")
    assert (end["unattributed"], end["activations"]) == (4 * KIB, 1 * KIB)
    assert peak == end
    del old, new


def test_a_phase_counts_what_was_assigned_late_from_its_allocation():
    with Tracker() as tracker:
        tracker.begin_phase()
        gradient = kib(4)
        temporary = kib(8)
        del temporary
        tracker.assign([gradient], "gradients")
        _, peak, _ = tracker.end_phase("unattributed")
    assert (peak["gradients"], peak["temporaries"], peak["unattributed"]) == (4 * KIB, 8 * KIB, 0)


# -- capacity


def test_a_full_device_stops_the_very_operation_that_does_not_fit():
    with Tracker(capacity_bytes=12 * KIB) as tracker:
        first, second = kib(4), kib(4)
        tracker.assign([first], "parameters")
        third = first.sin()  # exactly full
        with pytest.raises(torch.OutOfMemoryError) as caught:
            second.exp()
        error = caught.value
        assert error.operation == "aten.exp.default"
        assert error.requested_bytes == 4 * KIB
        assert error.capacity_bytes == 12 * KIB
        assert error.allocated_bytes == tracker.allocated_bytes == 12 * KIB
        assert error.held == dict.fromkeys(CATEGORIES, 0) | {"parameters": 4 * KIB, "unattributed": 8 * KIB}
        assert on_device(error.held) == error.allocated_bytes
        assert tracker.peak_bytes == 12 * KIB
        del third
        second.exp()  # room again


def test_a_device_that_is_one_byte_too_small_is_full():
    with Tracker(capacity_bytes=12 * KIB - 1) as tracker:
        first, second = kib(4), kib(4)
        with pytest.raises(torch.OutOfMemoryError):
            first.sin()
        assert tracker.peak_bytes == first.nbytes + second.nbytes


CUDA_MESSAGE = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.15 GiB of which 11.12 MiB is "
    "free. Process 12345 has 79.13 GiB memory in use. Of the allocated memory 78.50 GiB is allocated by PyTorch, and "
    "137.50 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
SIZE = r"([\d.]+ (?:bytes|KiB|MiB|GiB))"
NUMBERS = re.compile(
    rf"out of memory\. Tried to allocate {SIZE}\. .+ has a total capacity of {SIZE} of which {SIZE} is free\. "
    rf"Process (\d+) has {SIZE} memory in use\. Of the allocated memory {SIZE} is allocated by PyTorch, and {SIZE} is "
    r"reserved by PyTorch but unallocated\."
)


def test_the_message_has_the_numbers_of_cudas_message():
    assert NUMBERS.search(CUDA_MESSAGE)
    with Tracker(capacity_bytes=10 * KIB), pytest.raises(torch.OutOfMemoryError) as caught:
        kept = kib(2)
        kib(3000)
    found = NUMBERS.search(str(caught.value)).groups()
    two = "2.00 KiB"
    assert found == ("2.93 MiB", "10.00 KiB", "8.00 KiB", str(os.getpid()), two, two, "0 bytes")
    assert human_bytes(caught.value.requested_bytes) == found[0]
    del kept


@pytest.mark.slow
def test_out_of_memory_comes_through_autograd():
    with Tracker(capacity_bytes=20 * KIB) as tracker:
        weight = kib(4).requires_grad_()
        loss = weight.exp().exp().sum()
        before = tracker.allocated_bytes
        ballast = kib(6)
        with pytest.raises(torch.OutOfMemoryError) as caught:
            loss.backward()
        assert caught.value.operation == "aten.mul.Tensor"  # the derivative of exp
        assert caught.value.requested_bytes == 4 * KIB
        assert weight.grad is None
        del caught, ballast
        gc.collect()
        # what backward had not come to is still saved
        assert tracker.allocated_bytes <= before
        del loss, weight
        gc.collect()
        assert tracker.allocated_bytes == 0


@pytest.mark.slow
def test_after_the_error_everything_is_free_again():
    tracker = Tracker(capacity_bytes=12 * KIB)

    def too_much() -> None:
        kept = [kib(2), kib(2)]
        kept.append(torch._foreach_add([*kept, kept[0], kept[1]], 1.0))
        kept.append(torch._foreach_add(kept[:2], 1.0))

    with tracker, pytest.raises(torch.OutOfMemoryError) as caught:
        too_much()
    assert caught.value.allocated_bytes == 12 * KIB
    del caught
    gc.collect()
    assert tracker.allocated_bytes == 0
    assert on_device(tracker.breakdown()) == 0
    with tracker:
        again = kib(12)
    assert tracker.allocated_bytes == 12 * KIB
    del again


@pytest.mark.slow
def test_a_failed_operation_on_several_tensors_leaves_none_of_them():
    with Tracker(capacity_bytes=7 * KIB) as tracker:
        tensors = [kib(1), kib(1), kib(2)]
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch._foreach_add(tensors, 1.0)
        assert caught.value.operation == "aten._foreach_add.Scalar"
        assert caught.value.requested_bytes == 2 * KIB  # the third result
        del caught
        gc.collect()
        assert tracker.allocated_bytes == 4 * KIB


def test_before_error_may_find_room_and_else_names_the_rest():
    with Tracker(capacity_bytes=4 * KIB) as tracker:
        counter, kept = kib(1), kib(3)

        def move() -> str:
            tracker.assign([counter], "optimizer_cpu")
            return "temporaries"

        tracker.before_error = move
        fits = kib(1)
        assert on_device(tracker.breakdown()) == tracker.allocated_bytes == 4 * KIB
        with pytest.raises(torch.OutOfMemoryError) as caught:
            kib(1)
        assert caught.value.held["temporaries"] == 4 * KIB
        assert caught.value.held["optimizer_cpu"] == 1 * KIB
        del fits, kept


def test_before_error_may_meet_storages_that_do_not_fit_either():
    model = torch.nn.Linear(64, 64)
    tracker = Tracker(capacity_bytes=4 * KIB)

    def move() -> str:
        tracker.assign(model.parameters(), "parameters")
        return "unattributed"

    tracker.before_error = move
    with pytest.raises(torch.OutOfMemoryError):
        tracker.assign(model.parameters(), "parameters")


# -- any sequence

SIZES = st.integers(0, 1500)
ACTIONS = st.one_of(
    st.tuples(st.just("allocate"), SIZES),
    st.tuples(st.just("view"), st.integers(0, 50)),
    st.tuples(st.just("clone"), st.integers(0, 50)),
    st.tuples(st.just("write"), st.integers(0, 50)),
    st.tuples(st.just("free"), st.integers(0, 50)),
    st.tuples(st.just("grow"), st.integers(0, 50)),
    st.tuples(st.just("phase"), st.just(0)),
)
ASSIGNMENTS = st.tuples(
    st.just("assign"), st.integers(0, 50), st.sampled_from(("parameters", "gradients", "optimizer_cpu"))
)


def live_bytes(tensors: list[torch.Tensor]) -> int:
    """Rounded bytes of the distinct storages below these tensors, by the address of their data."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(rounded(size) for size in sizes.values())


def act(action: tuple, tensors: list[torch.Tensor], tracker: Tracker) -> None:
    """Do one action to the tensors."""
    kind, value = action[:2]
    if kind == "allocate":
        tensors.append(torch.zeros(value, dtype=torch.uint8))
    elif tensors:
        place = value % len(tensors)
        if kind == "view":
            tensors.append(tensors[place][: len(tensors[place]) // 2])
        elif kind == "clone":
            tensors.append(tensors[place].clone())
        elif kind == "write":
            tensors[place].add_(1)
        elif kind == "free":
            tensors.pop(place)
        elif kind == "grow":
            tensors[place].resize_(len(tensors[place]) + 700)
        elif kind == "assign":
            tracker.assign([tensors[place]], action[2])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(ACTIONS, max_size=30))
def test_any_sequence_of_allocations_views_and_frees_adds_up(actions):
    tensors: list[torch.Tensor] = []
    highest = highest_of_phase = now = 0
    with Tracker() as tracker:
        tracker.begin_phase()
        for action in [*actions, ("phase", 0)]:
            act(action, tensors, tracker)
            now = live_bytes(tensors)
            highest, highest_of_phase = max(highest, now), max(highest_of_phase, now)
            assert tracker.allocated_bytes == on_device(tracker.breakdown()) == now
            assert tracker.peak_bytes == highest
            if action[0] == "phase":
                end, peak, _ = tracker.end_phase("activations")
                assert on_device(end) == now
                assert on_device(peak) == highest_of_phase
                tracker.begin_phase()
                highest_of_phase = now
        tensors.clear()
        assert tracker.allocated_bytes == 0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.one_of(ASSIGNMENTS, ASSIGNMENTS, ACTIONS), max_size=30))
def test_any_sequence_of_assignments_keeps_phases_consistent(actions):
    tensors: list[torch.Tensor] = []
    with Tracker() as tracker:
        tracker.begin_phase()
        for action in [*actions, ("phase", 0)]:
            act(action, tensors, tracker)
            assert sum(tracker.breakdown().values()) == live_bytes(tensors)
            assert tracker.allocated_bytes == on_device(tracker.breakdown()) <= tracker.peak_bytes
            if action[0] == "phase":
                end, peak, highest = tracker.end_phase("activations")
                assert end == tracker.breakdown()
                assert on_device(peak) >= on_device(end)
                assert all(highest[c] >= max(end[c], peak[c]) for c in CATEGORIES)
                assert min(*end.values(), *peak.values()) >= 0
                assert on_device(peak) <= sum(highest[c] for c in CATEGORIES if c not in HOST_CATEGORIES)
                tracker.begin_phase()
        tensors.clear()
        assert tracker.allocated_bytes == 0
        assert set(tracker.breakdown().values()) == {0}
