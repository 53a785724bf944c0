"""Every record has its prediction; errors are signed; nothing is left running."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
from msgspec.structs import replace

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger.compare import compare
from labkit.ledger.ledger import Ledger
from labkit.ledger.parts import Predicted, Unpredicted
from labkit.ledger.predicted import prediction_of, prediction_rows
from labkit.ledger.shape import plain
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict
from labkit.runs.prediction import Background
from labkit.runs.runner import run

pytestmark = pytest.mark.slow

WORKSPACE = Workspace.find()
RESOLVED = resolve(WORKSPACE, "reduced_batch")


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    return Ledger(WORKSPACE.runs)


@pytest.fixture
def folder(ledger):
    with ledger.open_run(RESOLVED, {}, {}) as found:
        yield found


def changed(record, **values):
    return replace(record, **values)


def test_all_records_of_the_course_have_a_prediction_that_came_true(course_records):
    for name, record in course_records.items():
        assert isinstance(record.prediction, Predicted), name
        short = prediction_of(record)
        assert short["verdict"] == ("fits" if record.status == "ok" else "out of memory"), name
        assert abs(short["error"]) < 0.01, name
        assert set(short["by_phase"]) == set(record.memory.by_phase), name
        assert len(prediction_rows(record)) >= 3 * 5, name
        assert max(abs(row["error"]) for row in prediction_rows(record) if row["what"] == "peak") < 0.02, name


def test_the_table_of_runs_has_it_too(course_ledger):
    for row in compare(WORKSPACE, course_ledger, "tiny"):
        assert row["predicted"]["peak_bytes"] > 0
        assert abs(row["predicted"]["error"]) < 0.01
        if row["status"] == "oom":
            assert row["predicted"]["died_in"]["phase"] == row["died_in"]["phase"]
            assert row["predicted"]["peak_bytes"] > row["capacity_bytes"]


def test_too_much_is_above_zero_and_too_little_below(course_records):
    record = course_records["reduced_batch"]
    phases = [
        replace(phase, end={c: n * 2 for c, n in phase.end.items()}, peak={c: n // 2 for c, n in phase.peak.items()})
        for phase in record.prediction.phases
    ]
    rows = prediction_rows(changed(record, prediction=dataclasses.replace(record.prediction, phases=phases)))
    errors = {(row["step"], row["phase"], row["what"]): row["error"] for row in rows}
    assert errors[1, "after_forward", "activations"] == pytest.approx(1, abs=0.01)
    assert errors[1, "after_forward", "peak"] == pytest.approx(-0.5, abs=0.01)
    assert errors[0, "before_forward", "gradients"] is None  # nothing was measured


def test_the_second_micro_step_stands_for_the_last(course_records):
    record = course_records["grad_accumulation"]
    assert {row["micro_step"] for row in prediction_rows(record)} == {0, record.config["accumulate_grad_batches"] - 1}


def test_a_record_without_a_prediction_has_nothing_compared(course_records):
    record = course_records["reduced_batch"]
    for none in (None, Unpredicted("why")):
        assert prediction_rows(changed(record, prediction=none)) == []
        assert prediction_of(changed(record, prediction=none)) is None
    assert prediction_rows(changed(record, memory=None)) == []
    assert prediction_of(changed(record, memory=None))["error"] is None


def test_a_process_makes_it_and_the_next_run_needs_none(folder):
    first = Background(folder, RESOLVED.config)
    assert first.process is not None
    found = first.result()
    assert found.verdict == "fits"
    assert plain(found) == predict(RESOLVED.config, cache=TraceCache(None)).to_dict()
    again = Background(folder, RESOLVED.config)
    assert again.process is None
    assert again.result() == found


def test_a_process_that_is_too_slow_or_dies_is_told_and_gone(folder):
    slow = Background(folder, RESOLVED.config)
    pid = slow.process.pid
    assert "not ready" in slow.result(wait_s=0.01).error
    slow.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    dead = Background(folder, RESOLVED.config)
    os.kill(dead.process.pid, signal.SIGKILL)
    assert "without one" in dead.result().error


def test_what_cannot_be_predicted_says_why_in_the_record(ledger):
    typed = {"strategy": "deepspeed_stage_2_offload", "precision": "bf16-mixed", "max_steps": "1", "num_workers": "0"}
    with ledger.open_run(resolve(WORKSPACE, "xxl_cpu_offload", typed), typed, {}) as folder:
        found = Background(folder, resolve(WORKSPACE, "xxl_cpu_offload", typed).config).result()
    assert found.error.startswith("precision=bf16-mixed")


def test_a_run_that_is_interrupted_leaves_no_process(ledger, monkeypatch):
    started = []
    real = Background.__init__

    def remember(self, *args):
        real(self, *args)
        started.append(self.process)

    monkeypatch.setattr(Background, "__init__", remember)

    def interrupt(event):
        if event["event"] == "created":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("reduced_batch", on_event=interrupt)
    assert started == []  # it ended before anything was started

    def interrupt_later(event):
        if event["event"] == "start":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("reduced_batch", on_event=interrupt_later)
    assert started[0].poll() is not None
    assert [record.prediction for record in ledger.records("tiny")] == [None, None]


def test_the_watcher_itself_does_not_import_torch(ledger):
    code = """
import sys
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.runs.prediction import Background
from labkit.ledger.ledger import Ledger
workspace = Workspace.find()
resolved = resolve(workspace, "reduced_batch")
with Ledger(workspace.runs).open_run(resolved, {}, {}) as folder:
    print(Background(folder, resolved.config).result().verdict, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fits False\n"


def test_the_process_gives_way_to_the_run(folder):
    background = Background(folder, RESOLVED.config)
    nice = 0
    deadline = time.monotonic() + 30
    while not nice and background.process.poll() is None and time.monotonic() < deadline:
        nice = os.getpriority(os.PRIO_PROCESS, background.process.pid)
        time.sleep(0.02)
    background.stop()
    assert nice == 10
