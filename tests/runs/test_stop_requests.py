"""Signals become ``StopRequested`` while somebody listens, and are what they were after it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from labkit.runs.stop_requests import StopRequested, listening


@pytest.mark.parametrize(("number", "time_is_over"), [(signal.SIGTERM, False), (signal.SIGUSR1, True)])
def test_a_signal_is_raised_once_and_everything_is_as_before(number, time_is_over):
    before = signal.getsignal(number), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(StopRequested, match=number.name) as told, listening(is_first=True):
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # as a watcher waits
            time.sleep(0.05)
    assert told.value.time_is_over is time_is_over
    assert isinstance(told.value, KeyboardInterrupt)
    assert (signal.getsignal(number), signal.pthread_sigmask(signal.SIG_BLOCK, [])) == before


DEAF = """
import os, signal, subprocess, sys, time
from labkit.runs.stop_requests import listening
send = "import os, signal; os.kill(os.getpid(), signal.SIGUSR1); print('alive', flush=True)"
with listening(is_first=False):
    os.kill(os.getpid(), signal.SIGUSR1)
    subprocess.run([sys.executable, "-c", send], check=True)
    time.sleep(0.5)
print("so am I")
"""


@pytest.mark.slow
def test_a_rank_after_the_first_and_all_that_is_started_are_deaf_to_slurm():
    # by itself: threads that a process has had before, such as those of xdist, would hear
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\nso am I\n"), done.stderr


def test_another_thread_than_the_main_one_may_run_too():
    found = []

    def work() -> None:
        with listening(is_first=True):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_where_no_one_can_wait_for_a_signal_sigterm_is_heard_all_the_same(monkeypatch):
    monkeypatch.delattr(signal, "sigtimedwait")  # macOS
    with pytest.raises(StopRequested), listening(is_first=True):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
