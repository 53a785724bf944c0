"""The ledger keeps what is whole, and says so when something is not."""

import io
import json
import os
import subprocess
import sys

import pytest

from labkit.cli import main
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger import shape
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.parts import DiedIn
from labkit.ledger.records import SCHEMA, Record
from labkit.ledger.whole_file import write_whole
from labkit.memory.categories import CATEGORIES
from labkit.runs.ranks.files import other_ranks


@pytest.fixture
def resolved():
    return resolve(Workspace.find(), "baseline")


def test_a_run_is_running_while_it_is_watched_and_killed_when_no_one_does(ledger, resolved):
    with ledger.open_run(resolved, {}, {}) as folder:
        assert folder.is_watched
        assert folder.read().status == "running"
    assert not folder.is_watched
    assert folder.read().status == "killed"


def test_only_who_has_opened_a_run_has_its_lock_to_hand_on(ledger, resolved):
    with ledger.open_run(resolved, {}, {}) as folder:
        assert folder.held_lock == folder.lock
        with pytest.raises(RuntimeError, match=f"{folder.path.name} is not locked by this process"):
            _ = ledger.find(folder.path.name).held_lock


def test_what_is_made_for_a_record_is_held_against_its_shape():
    died_in = {"step": 0, "micro_step": 1, "phase": "forward"}
    assert shape.shaped(DiedIn, died_in) == DiedIn(**died_in)
    with pytest.raises(ValueError, match="^phase is missing$"):
        shape.shaped(DiedIn, {"step": 0, "micro_step": 1})


def test_a_record_survives_writing_and_reading(ledger, resolved):
    with ledger.open_run(resolved, {"lr": "0.1"}, {}) as folder:
        record = folder.read()
        record.status, record.losses = "ok", [1.5, 0.25]
        folder.write(record)
    assert ledger.records() == [record]
    assert ledger.records("tiny", "baseline") == [record]
    assert ledger.records("h100-94gb") == []
    assert ledger.find(record.id[:-1]).read() == record


def test_a_crash_while_writing_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_whole(path, {"status": "ok"})

    def crash(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, {"status": "half"})
    assert json.loads(path.read_text()) == {"status": "ok"}


@pytest.mark.parametrize("damage", ["", "{", '{"id": 1}', "[]", "null"])
def test_a_damaged_record_is_named_and_hides_no_other(ledger, resolved, damage):
    with ledger.open_run(resolved, {}, {}) as good:
        good.write(good.read())
    with ledger.open_run(resolved, {}, {}) as bad:
        bad.record.write_text(damage)
    with pytest.raises(LedgerError, match=bad.path.name):
        bad.read()
    assert [record.id for record in ledger.records()] == [good.path.name]


def test_a_folder_without_a_whole_config_is_no_run(ledger, resolved, monkeypatch):
    def crash(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(LedgerError, match="No space left"), ledger.open_run(resolved, {}, {}):
        pass
    assert ledger.folders() == []


def test_an_id_that_fits_no_run_or_several_is_refused(ledger, resolved):
    for _ in range(2):
        with ledger.open_run(resolved, {}, {}):
            pass
    with pytest.raises(LedgerError, match="no run"):
        ledger.find("1999")
    with pytest.raises(LedgerError, match="2 runs"):
        ledger.find("20")


def test_samples_count_finished_optimizer_steps(resolved):
    config = resolved.config.to_dict() | {"batch_size": 16, "accumulate_grad_batches": 4}
    record = Record(
        id="x", experiment="e", profile="p", status="ok", overrides={}, config=config, config_hash="", created="",
    )  # fmt: skip
    record.apply({"event": "progress", "step": 0, "losses": [2.0, None], "samples": 100, "train_seconds": 1.0})
    assert (record.samples, record.losses) == (100, [2.0, None])


def test_a_ledger_that_does_not_exist_yet_is_empty(tmp_path):
    assert Ledger(tmp_path / "none").records() == []


BYTES = dict.fromkeys(CATEGORIES, 1)
PHASE = {"phase": "after_forward", "step": 0, "micro_step": 0, "end": BYTES, "peak": BYTES, "highest": BYTES}
MEMORY = {"source": "CUDA", "capacity_bytes": None, "phases": [PHASE]}


@pytest.fixture
def runs(ledger, resolved):
    """Two runs that are over; the second can be damaged."""
    folders = []
    for _ in range(2):
        with ledger.open_run(resolved, {}, {}) as folder:
            folder.write(folder.read())
            folders.append(folder)
    return folders


def skipped_in(ledger) -> tuple[list[str], list[str]]:
    said = []
    found = ledger.records(on_skipped=lambda error: said.append(str(error)))
    return [record.id for record in found], said


def test_the_version_of_its_form_is_in_every_file_and_older_records_are_read(ledger, runs):
    good, old = runs
    for path in (good.record, good.config):
        data = json.loads(path.read_text())
        assert data.get("record", data)["schema"] == SCHEMA
    data = json.loads(old.record.read_text())
    del data["schema"]
    old.record.write_text(json.dumps(data))
    assert len(ledger.records()) == 2
    assert old.read().schema == SCHEMA


@pytest.mark.parametrize(
    "change",
    [
        {"of_tomorrow": 1}, {"id": None}, {"id": 7}, {"losses": 1.5}, {"losses": ["high"]}, {"samples": 1.5},
        {"samples": True}, {"schema": "2"}, {"schema": None}, {"overrides": []}, {"config": {}}, {"versions": {"t": 2}},
        {"died_in": {"step": 1}}, {"died_in": "forward"}, {"out_of_memory": {}}, {"prediction": {"phases": []}},
        {"prediction": {"error": 1}}, {"memory": {"phases": []}}, {"memory": MEMORY | {"phases": [PHASE, {}]}},
        {"memory": MEMORY | {"phases": [PHASE | {"peak": None}]}},
        {"memory": MEMORY | {"phases": [PHASE | {"end": {"parameters": "many"}}]}},
        {"memory": MEMORY | {"phases": [PHASE | {"more": 1}]}}, {"model": {"parameters": "many"}},
    ],
    ids=lambda change: json.dumps(change)[:40],
)  # fmt: skip
def test_a_record_of_another_form_is_named_with_its_field_and_hides_no_other(ledger, runs, change):
    good, bad = runs
    data = json.loads(bad.record.read_text())
    bad.record.write_text(json.dumps(data | {"memory": MEMORY}))
    assert len(ledger.records()) == 2
    bad.record.write_text(json.dumps(data | change))
    found, (said,) = skipped_in(ledger)
    assert found == [good.path.name]
    assert str(bad.path) in said
    assert next(iter(change)) in said
    assert "move the folder away" in said


def test_a_record_without_a_field_is_named_with_it(ledger, runs):
    _, bad = runs
    data = json.loads(bad.record.read_text())
    del data["created"]
    bad.record.write_text(json.dumps(data))
    assert "created is missing" in skipped_in(ledger)[1][0]


def test_a_record_of_a_newer_labkit_says_that_labkit_is_old(ledger, runs):
    good, bad = runs
    bad.record.write_text(json.dumps({"schema": SCHEMA + 1, "everything": "else"}))
    found, (said,) = skipped_in(ledger)
    assert found == [good.path.name]
    assert f"version {SCHEMA + 1}" in said
    assert "update labkit" in said
    assert "move" not in said


def truncated(folder):
    folder.record.write_bytes(folder.record.read_bytes()[:200])


def nested(folder):
    folder.record.write_text("[" * 10**5)


def half_a_character(folder):
    folder.record.write_text(folder.record.read_text().replace('"baseline"', '"\\ud800"'))


def not_text(folder):
    folder.record.write_bytes(b"\xff\xfe{}")


def huge(folder):
    with folder.record.open("r+b") as file:
        file.truncate(shape.LARGEST_BYTES + 1)  # a file with a hole takes no room


def a_pipe(folder):
    folder.record.unlink()
    os.mkfifo(folder.record)


def a_folder(folder):
    folder.record.unlink()
    folder.record.mkdir()


def endless(folder):
    folder.record.unlink()
    folder.record.symlink_to("/dev/zero")


def linked_to_itself(folder):
    for path in (folder.record, folder.config):
        path.unlink()
        path.symlink_to(path)


def without_config(folder):
    folder.record.unlink()
    folder.config.unlink()


def config_without_record(folder):
    folder.record.unlink()
    folder.config.write_text("{}")


@pytest.mark.parametrize(
    "damage",
    [truncated, nested, half_a_character, not_text, huge, a_pipe, a_folder, endless, linked_to_itself,
     without_config, config_without_record],
)  # fmt: skip
def test_a_folder_that_cannot_be_read_is_named_and_hides_no_other(ledger, runs, damage):
    good, bad = runs
    damage(bad)
    found, (said,) = skipped_in(ledger)
    assert found == [good.path.name]
    assert str(bad.path) in said
    assert said.endswith("move the folder away.")
    assert len(said) < 400 + len(str(bad.path))


def test_links_that_lead_nowhere_or_in_a_circle_are_named(ledger, runs):
    good, _ = runs
    around = good.path.with_name("around")
    around.symlink_to(around)
    (ledger.root / "again").symlink_to(ledger.root)
    found, said = skipped_in(ledger)
    assert len(found) == 2
    assert any(str(around) in line for line in said)
    assert all(line.endswith("move the folder away.") for line in said)


def test_lost_events_of_a_run_without_a_record_are_said(runs):
    _, bad = runs
    bad.record.unlink()
    bad.events.write_text('{"event": "start"}\n{"event": "phase"}\n{"event": "pro')
    record = bad.read()
    assert record.status == "killed"
    assert "2 lines of events.jsonl" in record.reason


@pytest.mark.slow
def test_what_is_skipped_is_said_beside_the_table_and_the_newest_readable_run_is_shown(runs, capsys):
    good, bad = sorted(runs, key=lambda folder: folder.path.name)
    truncated(bad)
    for command in (["compare"], ["compare", "--json"], ["show", "baseline"], ["show", "baseline", "--json"]):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert err.count("\n") == 1
        assert err.startswith("skipped ")
        assert bad.path.name in err
        assert (good.path.name if command != ["compare"] else "running") in out
        if "--json" in command:
            json.loads(out)


def test_a_record_is_opened_once_and_nothing_else_of_a_run_that_is_over(ledger, runs, monkeypatch):
    opened = []
    for module in (io, os):  # what pathlib opens with, and what opens regular files

        def counted(path, *args, real=module.open, **kwargs):
            opened.extend([] if isinstance(path, int) else [str(path)])
            return real(path, *args, **kwargs)

        monkeypatch.setattr(module, "open", counted)
    assert len(ledger.records()) == 2
    assert sorted(opened) == sorted(str(folder.record) for folder in runs)


WRITE_A_HUNDRED = """
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger.ledger import Ledger
workspace = Workspace.find()
resolved = resolve(workspace, "baseline")
for _ in range(100):
    with Ledger(workspace.runs).open_run(resolved, {}, {}) as folder:
        record = folder.read()
        record.status, record.losses = "ok", [1.0] * 2000
        folder.write(record)
"""


@pytest.mark.slow
def test_two_processes_write_two_hundred_runs_and_a_reader_sees_only_whole_ones(ledger):
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_A_HUNDRED]) for _ in range(2)]
    seen, said = set(), []
    while any(writer.poll() is None for writer in writers):
        for record in ledger.records(on_skipped=said.append):
            assert record.status == "running" or (record.status == "ok" and len(record.losses) == 2000)
            seen.add(record.status)
    assert [writer.returncode for writer in writers] == [0, 0]
    records = ledger.records(on_skipped=said.append)
    assert said == []
    assert "ok" in seen
    assert len({record.id for record in records}) == len(records) == 200
    assert {record.status for record in records} == {"ok"}


def test_a_secret_that_comes_into_a_record_is_not_written(runs, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted-in-a-reason")
    _, folder = runs
    record = folder.read()
    record.reason = "cannot open planted-in-a-reason"
    folder.write(record)
    assert folder.read().reason == "cannot open [redacted]"


def test_a_file_that_is_too_large_is_not_read(ledger, runs):
    huge(runs[1])
    assert "64 MiB" in skipped_in(ledger)[1][0]


def pipe_of_the_name(path):
    path.unlink()
    os.mkfifo(path)


def link_to_a_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def link_to_a_whole_one_elsewhere(path):
    path.symlink_to(path.rename(path.parents[4] / "another-s"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["events.jsonl", "config.json", "record.json"])
@pytest.mark.parametrize("put", [pipe_of_the_name, link_to_a_device, link_to_a_whole_one_elsewhere])
def test_what_is_no_file_of_a_run_stops_no_command_and_hides_no_other_run(in_time, ledger, runs, capsys, name, put):
    good, bad = sorted(runs, key=lambda folder: folder.path.name)
    bad.events.touch()
    if name != "record.json":  # which is all that is read of a run that has one
        bad.record.unlink()
    put(bad.path / name)
    found, (said,) = skipped_in(ledger)
    assert found == [good.path.name]
    assert name in said and said.endswith("move the folder away.")
    for command in (["compare"], ["show", "baseline"]):
        assert main(command) == 0
        assert bad.path.name in capsys.readouterr().err
    for command in (["show", bad.path.name], ["diagnose", bad.path.name]):
        assert main(command) != 0
        assert name in capsys.readouterr().err


def test_a_pipe_as_log_or_lock_stops_no_command(in_time, ledger, runs, capsys):
    _, bad = runs
    bad.record.unlink()
    (bad.path / "lock").unlink()
    os.mkfifo(bad.path / "lock")
    assert bad.read().status == "killed"
    with pytest.raises(LedgerError, match="cannot be written"), ledger.reopen(bad):
        pass
    os.mkfifo(bad.log)
    assert main(["diagnose", bad.path.name]) != 0
    assert "log.txt is a pipe" in capsys.readouterr().err


def test_a_rank_whose_events_are_a_pipe_costs_the_run_no_record(in_time, runs):
    os.mkfifo(runs[0].path / "events.rank1.jsonl")
    assert [one.rank for one in other_ranks(runs[0].path)] == [1]


DIED = {"step": 1, "micro_step": 0, "phase": "forward"}
OOM = {"requested_bytes": None, "capacity_bytes": 9, "allocated_bytes": 8, "operation": None, "held": BYTES}
WHOLE_PHASE = PHASE | {"reserved_bytes": None, "device_used_bytes": 7}
RANK = {"rank": 1, "device": "x", "status": "ok", "peak_bytes": 1, "memory": MEMORY | {"phases": [WHOLE_PHASE]}}
ENDED = {"status": "killed", "reason": None, "exit_code": -9, "died_in": None, "wall_seconds": 1.5}
TOLD = MEMORY | {"phases": [WHOLE_PHASE], "operation": "aten.add", "reserved_bytes": None, "verdict": "fits",
                 "margin": None, "died_in": DIED | {"operation": "aten.mm"}, "requested_bytes": None,
                 "checkpoint_bytes": 5}  # fmt: skip


@pytest.mark.parametrize(
    "parts",
    [
        {"died_in": DIED}, {"died_in": DIED | {"rank": 1}}, {"out_of_memory": OOM}, {"ranks": [RANK]},
        {"ranks": [RANK | {"held": BYTES}]}, {"attempts": [ENDED, ENDED | {"died_in": DIED, "resumed_at_step": 0}]},
        {"prediction": {"error": "why"}}, {"prediction": TOLD | {"host_bytes": 1}}, {"model": {}},
        {"prediction": TOLD | {"warm_up_bytes": 0, "reserved_without_warm_up_bytes": None, "host_bytes": 1}},
        {"model": {"parameters": 1, "trainable": 1, "parameter_bytes": 4}}, {"expected": None},
        {"model": {"parameters": 1, "trainable": 0, "parameter_bytes": 4, "quantized_bytes": 3,
                   "unquantized_bytes": {"wo": 1}}},
        {"fallback": {"changes": ["batch"], "overrides": {"batch_size": 8}, "environment": {}, "kind": "time",
                      "cost": "", "verdict": "fits", "margin": None, "peak_bytes": 1, "reserved_bytes": None,
                      "host_bytes": 0, "saved_bytes": 1, "planned_share": 0.9, "of": "x"}},
        {"diagnosis": {"kind": "k", "happened": "h", "evidence": ["e"], "next_steps": []}},
    ],
    ids=lambda parts: json.dumps(parts)[:40],
)  # fmt: skip
def test_a_record_is_written_as_it_was_read_key_by_key(runs, parts):
    data = json.loads(runs[0].record.read_text()) | parts
    assert json.dumps(Record.from_dict(data).to_dict()) == json.dumps(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a\x1b[2J\nb": 1}, r"'a\x1b[2J\nb' is not known"),
        ({"k" * 10**5: 1}, "kkkk"),
        ({"memory": MEMORY | {"source": "\x1b[31m\n"}}, r"memory.source: invalid enum value '\x1b[31m\n'"),
        ({"memory": MEMORY | {"phases": [PHASE, {}]}}, "memory.phases[1]: phase is missing"),
        ({"prediction": TOLD | {"margin": "much"}}, "prediction: margin: expected float | null, got str"),
        ({"samples": True}, "samples: expected int, got bool"),
        ({"wall_seconds": 10**400}, "wall_seconds: number out of range"),
        ({"config": {"accumulate_grad_batches": "2"}}, "config.accumulate_grad_batches: expected int, got str"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line_that_a_terminal_can_show(runs, change, said):
    with pytest.raises(ValueError, match="^its record does not fit: ") as found:
        Record.from_dict(json.loads(runs[0].record.read_text()) | change)
    assert said in str(found.value)
    assert str(found.value).isprintable() and len(str(found.value)) < 300
