"""Which processes a run has, found from outside."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from support.wait import wait_for

from labkit.runs.processes import processes_of
from labkit.runs.runner import run

WAIT_S = 60.0
HOLDS = "file = open(input())\nprint('open', flush=True)\ninput()"


@pytest.fixture
def begin():
    """Start a Python that keeps one file open until it is killed; ``arguments`` stand in its command line."""
    begun = []

    def begin_one(path, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        begun.append(process)
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "open\n"
        return process.pid

    yield begin_one
    for process in begun:
        process.kill()
        process.communicate(timeout=WAIT_S)


@pytest.mark.slow
def test_a_process_is_of_a_run_by_what_it_has_open_or_by_its_command_line(begin, tmp_path):
    for name in ("run", "run2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.txt").touch()
    folder, beside = tmp_path / "run", tmp_path / "run2" / "log.txt"
    opens, other = begin(folder / "log.txt"), begin(beside)
    says = begin(beside, "-m", "labkit.train.fit", str(folder / "saved"))
    assert processes_of(folder) == [opens, says]
    assert processes_of(folder, "labkit.train.fit") == [says]
    assert processes_of(folder, "labkit.train") == []
    assert processes_of(beside.parent) == [other, says]
    (tmp_path / "link").symlink_to(folder)
    assert processes_of(tmp_path / "link") == [opens]
    with (folder / "log.txt").open():
        assert os.getpid() not in processes_of(folder)  # the one that asks


@pytest.mark.slow
def test_what_has_ended_is_not_found(begin, tmp_path):
    pid = begin(os.devnull, str(tmp_path))
    assert processes_of(tmp_path) == [pid]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not processes_of(tmp_path))
    assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # it has not been waited for yet


@pytest.mark.slow
def test_training_and_prediction_of_a_run_are_found_while_it_runs(ledger):
    found = {"labkit.train.fit": set(), "labkit.plan.background": set(), "": set()}

    def look(event):
        for folder in ledger.folders():
            for module in ("", *found):  # all of them first too: one may end while the others are looked for
                found[module] |= set(processes_of(folder.path, module))

    values = {"max_steps": 60, "max_epochs": 2, "batch_size": 3, "num_train_samples": 96}  # a busy watcher looks late
    values["num_workers"] = 0  # until it has its own name, a loader worker has that of the process it was forked from
    record = run("reduced_batch", values, on_event=look)
    assert record.status == "ok"
    (trains,), (predicts,) = found["labkit.train.fit"], found["labkit.plan.background"]
    assert trains != predicts
    assert found[""] >= {trains, predicts}
    assert processes_of(ledger.folders()[0].path) == []
