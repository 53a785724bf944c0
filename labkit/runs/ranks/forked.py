"""A rank that its watcher forks: where the watcher was forked itself, the libraries are imported already."""

import os
import signal
import sys

from labkit.runs.serving import become

MODULE = "labkit.train.fit"
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
"""What a watcher sends to its ranks; the new process must not do so before it is one of them."""


class ForkedRank:
    """A process that this one has forked. Methods are those of ``subprocess.Popen``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.wait(os.WNOHANG)

    def wait(self, options: int = 0) -> int | None:
        """Wait for the exit code."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, options)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)  # until it is waited for no other process has its number

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def can_fork() -> bool:
    """Whether this process has what a rank imports, and may be forked: one that has touched a GPU may not."""
    return MODULE in sys.modules


def fork_rank(arguments: list[str], env: dict[str, str], output: int) -> ForkedRank | None:
    """Fork a rank, which prints to the descriptor ``output``; None in the new process, which then is that rank.

    It keeps this process's group, standard input and open files.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        pid = os.fork()
        if pid:
            return ForkedRank(pid)
        os.dup2(output, 1)
        os.dup2(output, 2)
        become(MODULE, arguments, env)
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
