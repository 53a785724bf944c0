"""Events can be read while they are written."""

import json
import os

import pytest

from labkit.ledger import events
from labkit.ledger.events import EventReader
from labkit.memory.categories import CATEGORIES
from labkit.train.events import EventWriter

PROGRESS = {"step": 1, "losses": [1.0, None], "samples": 8, "train_seconds": 0.5}
START = {"steps": 3, "source": "CUDA", "capacity_bytes": None, "device": "x", "versions": {"torch": "2"}, "model": {}}
BYTES = dict.fromkeys(CATEGORIES, 1)
PHASE = {"phase": "after_forward", "step": 0, "micro_step": 0, "end": BYTES, "peak": BYTES, "highest": BYTES}


def test_a_reader_gets_each_event_once_and_waits_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert list(reader.new()) == []
    with EventWriter(path) as writer:
        writer.write("start", **START)
    assert [event["event"] for event in reader.new()] == ["start"]
    assert list(reader.new()) == []
    with path.open("a") as file:
        file.write('{"event": "result", ')
        file.flush()
        assert list(reader.new()) == []
        file.write('"status": "ok"}\n')
    assert list(reader.new()) == [{"event": "result", "status": "ok"}]
    assert reader.skipped == 0


def test_a_reader_that_comes_late_gets_all(tmp_path):
    with EventWriter(tmp_path / "events.jsonl") as writer:
        for step in range(5):
            writer.write("progress", **PROGRESS | {"step": step})
    assert [event["step"] for event in EventReader(writer.path).new()] == list(range(5))
    assert all("time" in json.loads(line) for line in writer.path.read_text().splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "[]", "null", "1", '"start"', "{}", '{"event": 1}', '{"event": null}', '{"event": ["start"]}',
        '{"event": "start"}', '{"event": "a later kind", "steps": 3}', "[" * 10**5, "1" * 5000, "\udcff\udcfe",
        json.dumps({"event": "progress"} | PROGRESS | {"losses": 1.0}),
        json.dumps({"event": "progress"} | PROGRESS | {"losses": ["high"]}),
        json.dumps({"event": "progress"} | PROGRESS | {"samples": True}),
        json.dumps({"event": "start"} | START | {"model": [1]}),
        json.dumps({"event": "start"} | START | {"versions": {"torch": 2}}),
        json.dumps({"event": "phase"} | PHASE | {"end": {"parameters": "many"}}),
        json.dumps({"event": "phase"} | PHASE | {"of_tomorrow": 1}),
        json.dumps({"event": "result", "status": "oom", "died_in": {"step": 1}}),
        json.dumps({"event": "result", "status": "oom", "out_of_memory": {"held": {}}}),
        json.dumps({"event": "result", "status": None}),
    ],
    ids=lambda line: line[:40],
)  # fmt: skip
def test_a_line_that_is_no_event_is_counted_and_the_others_are_read(tmp_path, line):
    good = [json.dumps({"event": kind} | values) for kind, values in (("start", START), ("progress", PROGRESS))]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join([good[0], line, good[1], ""]), encoding="utf-8", errors="surrogateescape")
    reader = EventReader(path)
    assert [event["event"] for event in reader.new()] == ["start", "progress"]
    assert reader.skipped == 1


def test_a_line_that_never_ends_is_passed_over_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "LONGEST_BYTES", 200)
    good = json.dumps({"event": "progress"} | PROGRESS) + "\n"
    path = tmp_path / "events.jsonl"
    path.write_text(good + "x" * 1000)
    reader = EventReader(path)
    assert len(list(reader.new())) == 1
    with path.open("a") as file:
        file.write("x" * 1000)
        file.flush()
        assert list(reader.new()) == []
        # the rest of the long line looks like an event, and is none
        file.write(good + good)
    assert len(list(reader.new())) == 1
    assert reader.skipped == 1


def test_what_the_child_writes_is_what_the_reader_takes(tmp_path):
    with EventWriter(tmp_path / "events.jsonl") as writer:
        writer.write("start", **START, others_bytes=7)
        writer.write("phase", **PHASE, reserved_bytes=None, device_used_bytes=5)
        writer.write("result", status="failed", reason="a token hf_" + "a" * 30)
    reader = EventReader(writer.path)
    assert [event["event"] for event in reader.new()] == ["start", "phase", "result"]
    assert reader.skipped == 0
    assert "hf_a" not in writer.path.read_text()


def test_losses_that_are_no_finite_numbers_are_none(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(
        json.dumps({"event": "progress"} | PROGRESS | {"losses": [float("nan"), float("-inf"), 10**400, 2, None]})
        .replace("2, null", "2, 1e999") + "\n"
    )  # fmt: skip
    (event,) = EventReader(path).new()
    assert event["losses"] == [None, None, None, 2, None]


def test_a_reader_stops_after_so_many_bytes_and_says_that_there_is_more(tmp_path):
    with EventWriter(tmp_path / "events.jsonl") as writer:
        for step in range(10):
            writer.write("progress", **PROGRESS | {"step": step})
    reader, counts = EventReader(writer.path), []
    while reader.more or not counts:
        counts.append(len(list(reader.new(most_bytes=writer.path.stat().st_size // 4))))
    assert sum(counts) == 10 and max(counts) <= 3


def test_a_reader_that_stops_in_the_middle_gets_the_rest_later(tmp_path):
    with EventWriter(tmp_path / "events.jsonl") as writer:
        for step in range(3):
            writer.write("progress", **PROGRESS | {"step": step})
    reader = EventReader(writer.path)
    assert next(reader.new())["step"] == 0
    assert [event["step"] for event in reader.new()] == [1, 2]


@pytest.mark.parametrize("change", ["cut", "written over", "replaced", "gone"])
def test_a_file_that_is_another_is_noticed_and_nothing_of_it_is_taken_for_new(tmp_path, change):
    path = tmp_path / "events.jsonl"
    good = [json.dumps({"event": "progress"} | PROGRESS | {"step": step}) + "\n" for step in range(9)]
    path.write_text("".join(good[:4]))
    reader = EventReader(path)
    assert len(list(reader.new())) == 4 and not reader.replaced
    if change == "replaced":
        path.with_suffix(".new").write_text("".join(good))
        path.with_suffix(".new").rename(path)
    elif change == "gone":
        path.unlink()
    else:
        path.write_text(good[0] if change == "cut" else "".join(good[5:] + good))
    assert list(reader.new()) == []
    assert reader.replaced


def test_a_link_and_a_pipe_are_refused_and_not_waited_for(in_time, tmp_path):
    (tmp_path / "real").write_text(json.dumps({"event": "progress"} | PROGRESS) + "\n")
    path = tmp_path / "events.jsonl"
    path.symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match=r"events\.jsonl is a link"):
        list(EventReader(path).new())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"events\.jsonl is a pipe"):
        list(EventReader(path).new())
