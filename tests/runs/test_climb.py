"""A climb: the next rung after each out-of-memory, a record each."""

import json

import pytest

from labkit.cli import main
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.plan.search import samples_per_step
from labkit.runs.climb import climb
from labkit.runs.runner import run

SHORT = {"max_steps": 2, "num_train_samples": 64}


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """``baseline`` dies in its second step, and what came after it."""
    from labkit.ledger.ledger import Ledger

    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("climb")
        patch.setenv("LABKIT_RUNS", str(root))
        records, stopped = climb("baseline", SHORT)
        yield records, stopped, Ledger(root)


def test_the_next_rung_fits_and_trains_the_same(climbed):
    records, stopped, _ = climbed
    first, last = records[0], records[-1]
    assert (first.status, last.status, stopped) == ("oom", "ok", None)
    assert first.rung is None
    assert last.rung["kind"] in ("none", "time")
    assert last.rung["of"] == first.id
    before, after = (resolve(Workspace.find(), "baseline", r.overrides).config for r in (first, last))
    assert samples_per_step(before) == samples_per_step(after)
    assert before.lr == after.lr
    assert after.batch_size < before.batch_size


def test_what_was_planned_is_what_was_measured(climbed):
    last = climbed[0][-1]
    assert last.report.peak_bytes == pytest.approx(last.rung["peak_bytes"], rel=0.01)


def test_every_rung_is_in_the_ledger(climbed):
    records, _, ledger = climbed
    assert ledger.records() == records


def test_a_run_that_fits_is_run_once(ledger):
    records, stopped = climb("reduced_batch", SHORT | {"batch_size": 8})
    assert (len(records), records[0].status, stopped) == (1, "ok", None)


def test_a_rung_that_dies_is_followed_by_the_next(ledger):
    """The planner is right on the virtual GPU, so the machine is made smaller than what was planned for."""
    tried = []

    def smaller(changed, rung):
        capacity = {"capacity_gib": 0.08} if rung and not tried else {}
        if rung:
            tried.append(rung)
        return run("baseline", changed | capacity, rung=rung)

    records, stopped = climb("baseline", SHORT, run_one=smaller)
    assert [record.status for record in records] == ["oom", "oom", "ok"]
    assert stopped is None
    assert tried[0]["overrides"] != tried[1]["overrides"]
    assert len({record.id for record in records}) == 3


def test_something_else_is_not_trained_unless_allowed(ledger):
    """All that keeps what is trained needs more than this; see the ladder's order."""
    values = SHORT | {"capacity_gib": 0.012, "batch_size": 4}
    records, stopped = climb("reduced_batch", values)
    assert [record.status for record in records] == ["oom"]
    assert stopped.startswith("the next rung trains something else")
    records, stopped = climb("reduced_batch", values, allow_quality=True)
    assert records[-1].rung["kind"] == "quality"
    assert (records[-1].status, stopped) == ("ok", None)


def test_the_command_climbs(ledger, capsys):
    values = [f"{key}={value}" for key, value in SHORT.items()]
    assert main(["run", "baseline", *values, "--fit", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [record["status"] for record in found["records"]] == ["oom", "ok"]
    assert found["stopped"] is None


@pytest.mark.parametrize("words", [["--all", "--fit"], ["baseline", "--allow-quality"], ["--resume", "x", "--fit"]])
def test_options_that_do_not_go_together_are_refused(words, ledger, capsys):
    assert main(["run", *words]) == 2
    assert "--" in capsys.readouterr().err
    assert not ledger.root.exists()
