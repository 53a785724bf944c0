"""Events can be read while they are written."""

import json

from labkit.runs.events import EventReader
from labkit.train.events import EventWriter


def test_a_reader_gets_each_event_once_and_waits_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert list(reader.new()) == []
    with EventWriter(path) as writer:
        writer.write("start", steps=3)
    assert [event["event"] for event in reader.new()] == ["start"]
    assert list(reader.new()) == []
    with path.open("a") as file:
        file.write('{"event": "progress", ')
        file.flush()
        assert list(reader.new()) == []
        file.write('"losses": [1.0]}\n')
    assert list(reader.new()) == [{"event": "progress", "losses": [1.0]}]


def test_a_reader_that_comes_late_gets_all(tmp_path):
    with EventWriter(tmp_path / "events.jsonl") as writer:
        for step in range(5):
            writer.write("progress", step=step)
    assert [event["step"] for event in EventReader(writer.path).new()] == list(range(5))
    assert all("time" in json.loads(line) for line in writer.path.read_text().splitlines())
