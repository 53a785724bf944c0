"""Which run is meant by an experiment's name, and the newest runs of a ledger of thousands."""

import json
import os
import shutil

import pytest

from labkit.cli import main
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger import newest as module
from labkit.ledger.compare import compare
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.newest import newest
from labkit.ledger.run_folder import RunFolder
from labkit.runs.runner import run


def add(ledger: Ledger, experiment: str, overrides: dict | None = None, status: str = "ok") -> RunFolder:
    resolved = resolve(Workspace.find(), experiment, overrides)
    with ledger.open_run(resolved, overrides or {}, {}) as folder:
        record = folder.read()
        record.status = status
        folder.write(record)
    return folder


def older(folder: RunFolder) -> RunFolder:
    """The same run, of a time before: two within a second have no order."""
    record = folder.read()
    record.id = f"20200101-000000-{record.id[-8:]}"
    moved = RunFolder(folder.path.rename(folder.path.with_name(record.id)))
    moved.write(record)
    return moved


def test_an_experiments_name_means_its_newest_run_as_it_is(ledger, capsys):
    first = older(add(ledger, "baseline"))
    assert main(["show", "baseline", "--json"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["id"], err) == (first.path.name, "")
    own = add(ledger, "baseline", {"batch_size": 4})
    for verb in ("show", "diagnose"):
        assert main([verb, "baseline", "--json"]) == 0
        out, err = capsys.readouterr()
        assert first.path.name in out
        assert "2 runs" in err and own.path.name in err
    own_id = older(own).path.name
    again = add(ledger, "baseline")
    assert main(["show", "baseline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == again.path.name > own_id


def test_where_there_is_only_a_run_with_own_values_it_says_so(ledger, capsys):
    own = add(ledger, "baseline", {"batch_size": 4})
    assert main(["show", "baseline", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["id"] == own.path.name
    assert "there is no run of it as it is" in err and "batch_size=4" in err


@pytest.mark.slow
def test_one_of_each_is_read_however_many_there_are(ledger, monkeypatch):
    """What is read does not grow with the runs that no one asks for."""
    plain, own = add(ledger, "baseline"), add(ledger, "baseline", {"batch_size": 4})
    for source in (plain, own):
        for number in range(50):
            copy = source.path.parent / f"20200101-{number:06}-{source.path.name[-8:]}"
            shutil.copytree(source.path, copy)
    read = []
    original = RunFolder.read
    monkeypatch.setattr(RunFolder, "read", lambda self: (read.append(self), original(self))[1])
    rows = compare(Workspace.find(), ledger, "tiny")
    assert [row["run"] for row in rows] == [plain.path.name, own.path.name]
    assert len(read) == 2
    monkeypatch.setattr(module, "_typed", lambda folder: None)  # a head that does not tell
    assert [row["run"] for row in compare(Workspace.find(), ledger, "tiny")] == [row["run"] for row in rows]


def test_a_damaged_record_gives_way_to_the_one_before_it(ledger):
    whole, cut = sorted((add(ledger, "baseline"), add(ledger, "baseline")), key=lambda folder: folder.path.name)
    cut.record.write_text(cut.record.read_text()[:900])
    told: list[LedgerError] = []
    assert [record.id for record in newest(ledger, "tiny", told.append)] == [whole.path.name]
    assert cut.path.name in str(told[0])


def test_a_run_folder_that_is_gone_is_said_to_be(ledger, capsys):
    folder = add(ledger, "baseline")
    shutil.rmtree(folder.path)
    with pytest.raises(LedgerError, match="is gone"):
        folder.read()
    resolved = resolve(Workspace.find(), "baseline")
    with (
        pytest.raises(LedgerError, match=r"is gone.*while it ran.*'running'"),
        ledger.open_run(resolved, {}, {}) as lost,
    ):
        record = lost.read()
        shutil.rmtree(lost.path)
        lost.write(record)


@pytest.mark.slow
def test_a_run_folder_that_goes_while_the_run_does_is_said_to_be_gone(ledger):
    def remove(event):
        if event["event"] == "progress":
            shutil.rmtree(ledger.folders()[0].path, ignore_errors=True)

    with pytest.raises(LedgerError, match=r"is gone.*while it ran"):
        run("reduced_batch", {"max_steps": 3, "num_train_samples": 64}, on_event=remove)


@pytest.mark.slow
def test_a_log_that_is_no_file_any_more_costs_no_record(ledger):
    def replace(event):
        if event["event"] == "progress":
            log = ledger.folders()[0].log
            log.unlink(missing_ok=True)
            if not log.exists():
                os.mkfifo(log)

    record = run("reduced_batch", {"max_steps": 2, "num_train_samples": 64, "lr": 1e6}, on_event=replace)
    assert ledger.find(record.id).read().status == record.status
