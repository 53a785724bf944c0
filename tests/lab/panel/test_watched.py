"""One run as its panel shows it: what is read, what it costs, and files that are not what they should be."""

import json
import os
import socket

import pytest
from panel_runs import BYTES, Runs, line, phase, progress, result, resumed, start

from labkit.lab.panel import watched
from labkit.lab.panel.watched import Watched
from labkit.ledger import events
from labkit.ledger.run_folder import UNWATCHED

ANSWER_BYTES = 100_000
pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def made(tmp_path):
    return Runs(tmp_path / "runs")


@pytest.fixture
def read_bytes(monkeypatch):
    """How many bytes have been read of event files so far."""
    counted = [0]
    real = events.open_own

    def opened(path):
        file = real(path)

        def readline(most, own=file.readline):
            found = own(most)
            counted[0] += len(found)
            return found

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def __getattr__(self, name):
                return readline if name == "readline" else getattr(file, name)

        return Counting()

    monkeypatch.setattr(events, "open_own", opened)
    return counted


def strict(said):
    """The answer, of JSON as the standard has it."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(said.answer, parse_constant=refuse)


def whole(run):
    """Read until there is no more."""
    said = run.read()
    while said.more:
        said = run.read()
    return strict(said)


def test_a_run_is_told_from_its_events(made):
    lines = [start(4), phase(0), phase(0, "before_forward"), progress(1, 3.0), progress(2, 2.0, train_seconds=2.0)]
    found = whole(Watched(made.add("a", *lines, overrides={"lr": 0.1})))
    assert (found["title"], found["steps"], found["device"]) == ("reduced_batch lr=0.1", 4, "CPU")
    assert [one["phase"] for one in found["phases"]] == ["after_forward", "before_forward"]
    assert found["losses"]["mean"] == [3.0, 2.0]
    assert found["progress"] == {"step": 2, "train_seconds": 2.0}
    assert (found["status"], found["reason"]) == ("killed", UNWATCHED)


def test_a_poll_costs_what_is_new(made, read_bytes):
    folder = made.add("a", start(), *[progress(at, 1.0) for at in range(2000)])
    run = Watched(folder)
    first = run.read()
    assert read_bytes[0] == folder.events.stat().st_size
    read_bytes[0] = 0
    assert run.read() == first and read_bytes[0] == 0
    with folder.events.open("a") as file:
        file.write(progress(2000, 7.0))
    later = run.read()
    assert read_bytes[0] == len(progress(2000, 7.0))
    assert later.number != first.number and strict(later)["losses"]["last"] == 7.0


def test_one_poll_reads_so_much_and_says_that_there_is_more(made, read_bytes, monkeypatch):
    monkeypatch.setattr(watched, "BYTES_AT_ONCE", 10_000)
    folder = made.add("a", start(), *["garbage\n" * 5000], progress(1, 1.0))
    run = Watched(folder)
    polls = 0
    while run.read().more:
        polls += 1
        assert read_bytes[0] <= 10_100 * polls
    assert polls >= 4
    assert strict(run.read())["losses"]["mean"] == [1.0]


def test_the_answer_has_an_end_whatever_the_run_brings(made):
    long = "x" * 10**6
    many = dict.fromkeys([*BYTES, *map(str, range(2000))], 10**200)
    lines = [start(10**400, device=long, versions={long: long}, model={"of_tomorrow": [long]})]
    lines += [phase(at, peak=many) for at in range(3)]
    lines += [progress(1, *[float(at) for at in range(100_000)]), result("oom", reason=long)]
    said = whole(Watched(made.add("a", *lines, overrides={"key": long})))
    assert len(json.dumps(said)) < ANSWER_BYTES
    assert said["steps"] is None and set(said["phases"][0]["peak"]) < set(BYTES)


def test_what_is_no_finite_number_is_null(made):
    values = [float("nan"), float("inf"), -float("inf"), 1e308, 1.5]
    lines = [start(), progress(1, *values, train_seconds=float("nan")), progress(6, 2.0).replace("2.0", "1e999")]
    lines += [progress(7, 10**400), phase(0, peak=BYTES | {"activations": 10**400})]
    found = whole(Watched(made.add("a", *lines)))
    assert found["losses"]["mean"] == [None, None, None, None, 1.5, None, None]
    assert found["losses"]["lost"] == 6
    assert found["phases"][0]["peak"]["activations"] is None


def test_steps_that_are_trained_again_are_forgotten(made):
    lines = [start(), phase(0), phase(5), progress(1, 1.0), progress(6, 2.0, 3.0, 4.0, 5.0, 6.0), resumed(2)]
    found = whole(Watched(made.add("a", *lines, progress(3, 9.0))))
    assert found["losses"]["mean"] == [1.0, 2.0, 9.0]
    assert [one["step"] for one in found["phases"]] == [0]


def test_a_torn_line_waits_for_its_end(made):
    folder = made.add("a", start(), progress(1, 1.0), progress(2, 2.0)[:-9])
    run = Watched(folder)
    assert strict(run.read())["losses"]["mean"] == [1.0]
    with folder.events.open("a") as file:
        file.write(progress(2, 2.0)[-9:])
    assert strict(run.read())["losses"]["mean"] == [1.0, 2.0]


def test_a_line_of_fifty_megabytes_and_garbage_are_passed_over(made):
    folder = made.add("a", start(), progress(1, 1.0))
    with folder.events.open("ab") as file:
        file.write(bytes(range(256)) * 64 + b"\n")
        for _ in range(50):
            file.write(b"[" * 2**20)
        file.write(b"\n" + progress(2, 2.0).encode())
    assert whole(Watched(folder))["losses"]["mean"] == [1.0, 2.0]


@pytest.mark.parametrize("again", ["shorter", "longer", "another file", "of the same size"])
def test_a_file_that_begins_again_is_read_again(made, again):
    before = [start(7), progress(1, 1.0), progress(2, 2.0)]
    after = {
        "shorter": [start(8), progress(1, 5.0)],
        "longer": [start(8), *[progress(at, 5.0) for at in range(9)]],
        "another file": [start(8), progress(1, 5.0), progress(2, 5.0), progress(3, 5.0)],
        "of the same size": [start(8), progress(1, 5.0), progress(2, 5.0)],
    }[again]
    folder = made.add("a", *before)
    run = Watched(folder)
    assert whole(run)["losses"]["mean"] == [1.0, 2.0]
    if again == "another file":
        folder.events.rename(folder.events.with_name("events.old"))
    folder.events.write_text("".join(after))
    os.utime(folder.events, ns=(0, 0))  # and the clock goes backwards
    found = whole(run)
    assert found["steps"] == 8
    assert found["losses"]["mean"] == [5.0] * (len(after) - 1)


def test_a_clock_that_goes_backwards_changes_nothing(made):
    lines = [start(), progress(1, 1.0, train_seconds=9.0), progress(2, 2.0, train_seconds=-3.0)]
    lines[1] = lines[1].replace('"time": 1.0', '"time": 1e12')
    found = whole(Watched(made.add("a", *lines)))
    assert found["losses"]["mean"] == [1.0, 2.0] and found["progress"]["train_seconds"] == -3.0


def test_events_that_vanish_are_no_events(made):
    folder = made.add("a", start(), progress(1, 1.0))
    run = Watched(folder)
    whole(run)
    folder.events.unlink()
    assert whole(run)["losses"]["mean"] == []


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder_of_the_name(path):
    path.unlink()
    path.mkdir()


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def link_elsewhere(path):
    path.symlink_to(path.rename(path.parents[1] / "whole-and-somebody-elses"))


def socket_of_the_name(path):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            made.bind(f"/proc/self/fd/{here}/{path.name}")  # the name of a socket is short
        finally:
            os.close(here)


@pytest.mark.parametrize("name", ["events.jsonl", "config.json", "record.json"])
@pytest.mark.parametrize("put", [pipe, folder_of_the_name, device, link_elsewhere, socket_of_the_name])
def test_only_regular_files_of_the_run_are_read(made, name, put):
    folder = made.add("a", start(), progress(1, 42.0))
    folder.record.write_text(json.dumps(made.record("a", status="ok").to_dict()))
    assert whole(Watched(folder))["status"] == "ok"
    put(folder.path / name)
    found = whole(Watched(folder))
    assert found["status"] == "unreadable"
    assert name in found["reason"]
    assert found["losses"]["mean"] == ([42.0] if name == "record.json" else [])


def test_a_pipe_as_lock_is_no_lock(made):
    folder = made.add("a", start())
    os.mkfifo(folder.path / "lock")
    assert whole(Watched(folder))["status"] == "killed"


def test_the_record_is_read_once_and_again_when_it_is_another(made, monkeypatch):
    folder = made.add("a", start())
    record = made.record("a", status="ok", peak_bytes=5)
    folder.record.write_text(json.dumps(record.to_dict()))
    run = Watched(folder)
    assert (whole(run)["status"], whole(run)["peak_bytes"]) == ("ok", 5)
    monkeypatch.setattr(folder, "read", None)
    whole(run)
    monkeypatch.undo()
    folder.record.write_text(json.dumps(record.to_dict() | {"status": "failed", "reason": "broken"}))
    assert (whole(run)["status"], whole(run)["reason"]) == ("failed", "broken")


@pytest.mark.parametrize("name", ["config.json", "record.json"])
def test_a_file_too_large_to_be_taken_apart_in_a_server_is_not(made, name):
    folder = made.add("a", start(), progress(1, 1.0))
    with (folder.path / name).open("a") as file:
        file.truncate(watched.LARGEST_BYTES + 1)
    found = whole(Watched(folder))
    assert found["status"] == "unreadable" and "labkit show a" in found["reason"]


def test_a_config_that_becomes_whole_is_read(made):
    folder = made.add("a", start(), progress(1, 1.0))
    good = folder.config.read_text()
    folder.config.write_text(good[:50])
    run = Watched(folder)
    assert whole(run)["status"] == "unreadable"
    folder.config.write_text(good)
    assert whole(run)["losses"]["mean"] == [1.0]


def test_phases_that_no_one_knows_are_not_shown(made):
    lines = [start(), phase(0, "constructor"), phase(0), phase(0, micro_step=3), line("result", status="ok")]
    assert [one["phase"] for one in whole(Watched(made.add("a", *lines)))["phases"]] == ["after_forward"]


def test_of_many_phases_the_last_are_told(made):
    found = whole(Watched(made.add("a", start(), *[phase(at) for at in range(100)])))
    assert [one["step"] for one in found["phases"]] == list(range(92, 100))


def test_a_torn_line_is_not_read_again_while_nothing_is_added(made, read_bytes):
    run = Watched(made.add("a", start(), "[" * 10**6))
    run.read()
    read_bytes[0] = 0
    run.read()
    assert read_bytes[0] == 0
