"""Stops requested of ``labkit run``: SIGTERM as ``scancel`` sends it, SIGUSR1 as Slurm does before the time is over."""

import signal
import subprocess
import sys
import time

import pytest
from support.wait import wait_for

from labkit.cluster.script import EXIT_AGAIN

pytestmark = pytest.mark.slow

WAIT_S = 180.0
LONG = ["reduced_batch", "batch_size=4", "max_epochs=10000"]
SAVES = ["enable_checkpointing=true", "save_every=100000"]  # saved is only what it is told to


def told(ledger, values, *numbers) -> tuple[int, str]:
    """Start a run, send the signals when it has made a step; exit code and what it said."""
    child = subprocess.Popen([sys.executable, "-m", "labkit.cli", "run", *LONG, *values], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        wait_for(lambda: child.poll() is not None or (ledger.records() and ledger.records()[-1].losses), WAIT_S)
        assert child.poll() is None, child.communicate()
        for number in numbers:
            child.send_signal(number)
            time.sleep(0.05)
        _, said = child.communicate(timeout=WAIT_S)
    finally:
        child.kill()
        child.wait()
    return child.returncode, said


def test_before_the_jobs_time_is_over_the_step_is_saved_and_there_is_more_to_do(ledger):
    # Slurm tells a task, and then each of its processes
    code, said = told(ledger, SAVES, signal.SIGUSR1, signal.SIGUSR1)
    (record,) = ledger.records()
    saved = ledger.find(record.id).newest_checkpoint().parent.name
    assert code == EXIT_AGAIN
    assert (record.status, record.exit_code) == ("timeout", 0)
    assert (
        record.reason == f"stopped before the job's time was over; {saved} is saved, and the same command resumes there"
    )
    assert said.strip().endswith(f"reduced_batch: {record.reason}")
    assert saved == f"step-{len(record.losses):06}"


def test_a_run_that_saves_nothing_has_no_reason_to_queue_again(ledger):
    code, said = told(ledger, [], signal.SIGUSR1)
    (record,) = ledger.records()
    assert (code, record.status) == (1, "timeout")
    assert record.reason == "stopped before the job's time was over"
    assert "Traceback" not in said


@pytest.mark.parametrize("values", [SAVES, []])
def test_sigterm_stops_a_run_as_ctrl_c_does(ledger, values):
    code, said = told(ledger, values, signal.SIGTERM)
    (record,) = ledger.records()
    assert (code, record.status) == (130, "killed")
    assert record.reason.partition(";")[0] == "interrupted by SIGTERM"
    assert ("is saved" in record.reason) == bool(values)
    assert said.strip().endswith("interrupted; the run is recorded as killed")
