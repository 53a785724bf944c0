"""What DeepSpeed compiles: one process at a time, and no later run waits for one that was killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from labkit.train.extensions import alone

HOLDER = """
import sys, time
from labkit.train.extensions import alone
with alone():
    open(sys.argv[1], "w").close()
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    return tmp_path / "extensions"


def holder(mark, seconds):
    """A process that compiles, and says by a file that it does."""
    child = subprocess.Popen([sys.executable, "-c", HOLDER, mark, str(seconds)], env=dict(os.environ))
    while not mark.exists():
        assert child.poll() is None
        time.sleep(0.02)
    return child


@pytest.mark.slow
def test_the_mark_of_a_build_that_was_killed_is_taken_away(folder):
    """torch would wait for it without end."""
    (folder / "cpu_adam").mkdir(parents=True)
    mark = folder / "cpu_adam" / "lock"
    child = holder(mark, 60)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert mark.exists()
    with alone():
        assert not mark.exists()


@pytest.mark.slow
def test_a_build_that_runs_is_waited_for_and_keeps_its_mark(folder):
    (folder / "cpu_adam").mkdir(parents=True)
    mark = folder / "cpu_adam" / "lock"
    child = holder(mark, 1)
    with alone():
        assert child.poll() is not None or child.wait(1) == 0  # its context has ended before this one began


@pytest.mark.parametrize("broken", [False, True])
def test_the_next_one_may_go_on_also_after_an_error(folder, broken):
    if broken:
        with pytest.raises(RuntimeError, match="no compiler"), alone():
            raise RuntimeError("no compiler")
    for _ in range(2):
        with alone():
            assert (folder / "labkit.lock").exists()
