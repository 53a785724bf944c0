"""Traces: moves and marks, and back to what a tracker saw."""

import pytest

from labkit.memory.report import MemoryReport, PhaseMemory
from labkit.memory.tracker import _sum
from labkit.plan.replay import replay
from labkit.plan.trace import LOADED, Trace

ZEROS = _sum([])
EVENTS = [(7, 512, "empty"), (8, 1024, "add"), (7, 0, None), (7, 2048, "mul"), (8, 0, None)]


def made(marks=(1, 3, 5)):
    phases = [
        PhaseMemory(phase=name, step=0, micro_step=0, end=ZEROS, peak=ZEROS, highest=ZEROS)
        for name in ("before_forward", "after_forward")
    ]
    report = MemoryReport(source="predicted", phases=phases)
    return Trace.of(EVENTS, list(marks), report)


def test_allocations_and_frees_come_back_with_marks_between():
    assert list(made().events()) == [
        (0, 512), (None, LOADED), (1, 1024), (0, 0), (None, "before_forward"), (3, 2048), (1, 0),
        (None, "after_forward"),
    ]  # fmt: skip
    assert replay(made().events()).allocated_bytes == 2048


def test_a_key_that_is_used_again_is_another_storage():
    assert made().moves.tolist() == [512, 1024, -1, 2048, -2]
    assert [made().operation_of(i) for i in (0, 1, 3)] == ["empty", "add", "mul"]


def test_where_cached_segments_are_released_is_an_event_of_its_own():
    events = [(7, 1024, "empty"), (7, 0, None), (None, 0, "release"), (8, 1536, "add"), (8, 0, None), (9, 768, "mul")]
    report = MemoryReport(source="predicted", phases=made().report.phases[:1])
    trace = Trace.of(events, [0, 6], report)
    assert trace.moves.tolist() == [1024, -1, 0, 1536, -4, 768]
    assert list(trace.events())[1:5] == [(0, 1024), (0, 0), (None, 0), (3, 1536)]
    assert (trace.operation, trace.operation_of(2)) == ("add", "release")


@pytest.mark.parametrize(("event", "move", "passed"), [(0, 0, 0), (2, 1, 1), (3, 2, 1), (5, 3, 2), (6, 4, 2)])
def test_an_event_is_found_again(event, move, passed):
    assert made().at(event) == (move, passed)


def test_a_free_without_an_allocation_is_no_trace():
    with pytest.raises(ValueError, match="event 1"):
        Trace.of([(1, 512, "a"), (2, 0, None)], [2], MemoryReport(source="predicted"))


def test_what_is_saved_is_what_is_read(tmp_path):
    made().save(tmp_path / "one.npz")
    read = Trace.load(tmp_path / "one.npz")
    assert list(read.events()) == list(made().events())
    assert (read.report, read.marks, read.names, read.operation) == (
        made().report, made().marks, made().names, made().operation
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["one.npz"]
