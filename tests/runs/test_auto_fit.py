"""Auto-fit: the next fallback after each out-of-memory, a record each."""

import json

import pytest

from labkit.cli import main
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.plan.search import samples_per_step
from labkit.runs.auto_fit import auto_fit
from labkit.runs.runner import run

SHORT = {"max_steps": 2, "num_train_samples": 64}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """``baseline`` dies in its second step, and what came after it."""
    from labkit.ledger.ledger import Ledger

    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("auto_fit")
        patch.setenv("LABKIT_RUNS", str(root))
        records, stopped = auto_fit("baseline", SHORT)
        yield records, stopped, Ledger(root)


@pytest.mark.slow
def test_the_next_fallback_fits_and_trains_the_same(fitted):
    records, stopped, _ = fitted
    first, last = records[0], records[-1]
    assert (first.status, last.status, stopped) == ("oom", "ok", None)
    assert first.fallback is None
    assert last.fallback.kind in ("none", "time")
    assert last.fallback.of == first.id
    before, after = (resolve(Workspace.find(), "baseline", r.overrides).config for r in (first, last))
    assert samples_per_step(before) == samples_per_step(after)
    assert before.lr == after.lr
    assert after.batch_size < before.batch_size


@pytest.mark.slow
def test_what_was_planned_is_what_was_measured(fitted):
    last = fitted[0][-1]
    assert last.memory.peak_bytes == pytest.approx(last.fallback.peak_bytes, rel=0.01)


@pytest.mark.slow
def test_every_fallback_is_in_the_ledger(fitted):
    records, _, ledger = fitted
    assert ledger.records() == records


@pytest.mark.slow
def test_a_run_that_fits_is_run_once(ledger):
    records, stopped = auto_fit("reduced_batch", SHORT | {"batch_size": 8})
    assert (len(records), records[0].status, stopped) == (1, "ok", None)


@pytest.mark.slow
def test_a_rung_that_dies_is_followed_by_the_next(ledger):
    """The planner is right on the simulated GPU, so the machine is made smaller than what was planned for."""
    tried = []

    def smaller(changed, fallback):
        capacity = {"capacity_gib": 0.08} if fallback and not tried else {}
        if fallback:
            tried.append(fallback)
        return run("baseline", changed | capacity, fallback=fallback)

    records, stopped = auto_fit("baseline", SHORT, run_one=smaller)
    assert [record.status for record in records] == ["oom", "oom", "ok"]
    assert stopped is None
    assert tried[0].overrides != tried[1].overrides
    assert len({record.id for record in records}) == 3


@pytest.mark.slow
def test_something_else_is_not_trained_unless_allowed(ledger):
    """All that keeps what is trained needs more than this; see the order of the fallbacks."""
    values = SHORT | {"capacity_gib": 0.012, "batch_size": 4}
    records, stopped = auto_fit("reduced_batch", values)
    assert [record.status for record in records] == ["oom"]
    assert stopped.startswith("the next fallback trains something else")
    records, stopped = auto_fit("reduced_batch", values, allow_quality=True)
    assert records[-1].fallback.kind == "quality"
    assert (records[-1].status, stopped) == ("ok", None)


@pytest.mark.slow
def test_the_command_fits_a_run(ledger, capsys):
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
