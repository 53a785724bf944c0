"""The ledger keeps what is whole, and says so when something is not."""

import json
import os

import pytest

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.runs.records import Ledger, LedgerError, Record, write_whole


@pytest.fixture
def resolved():
    return resolve(Workspace.find(), "baseline")


def test_a_run_is_running_while_it_is_watched_and_killed_when_nobody_does(ledger, resolved):
    with ledger.open_run(resolved, {}, {}) as folder:
        assert folder.is_watched
        assert folder.read().status == "running"
    assert not folder.is_watched
    assert folder.read().status == "killed"


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
    record.apply({"event": "progress", "losses": [2.0, None], "samples": 100, "train_seconds": 1.0})
    assert (record.samples, record.losses) == (100, [2.0, None])


def test_a_ledger_that_does_not_exist_yet_is_empty(tmp_path):
    assert Ledger(tmp_path / "none").records() == []
