"""Servers of the control plane: started, waited for, and stopped by the process that was started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

POLL_S = 0.1
STOP_S = 20.0


class RigError(RuntimeError):
    """The control plane does not come up; the message ends with what its log says."""


class Processes:
    """Servers by name. Each is the head of a process group, which ends with it."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: dict[str, subprocess.Popen] = {}
        self._started: dict[str, tuple] = {}

    def start(self, name: str, argv: list[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        """Start a server; its output goes to a log of its name."""
        self._started[name] = (argv, env, cwd)
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                argv, env=os.environ | dict(env or {}), cwd=cwd, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def start_again(self, name: str) -> None:
        """Start a server that was stopped as it was started, unless it runs."""
        if name not in self._running:
            self.start(name, *self._started[name])

    def log(self, name: str) -> Path:
        """The log of a server."""
        return self.logs / f"{name}.log"

    def wait(self, name: str, ready: Callable[[], bool], bound_s: float = 120.0) -> None:
        """Wait until ``ready``, or say why the server is not."""
        deadline = time.monotonic() + bound_s
        while not ready():
            code = self._running[name].poll()
            if code is not None or time.monotonic() > deadline:
                tail = self.log(name).read_text(errors="replace").splitlines()[-15:]
                ended = f"ended with {code}" if code is not None else f"does not answer after {bound_s:g} s"
                raise RigError(f"{name} {ended}:\n" + "\n".join(tail))
            time.sleep(POLL_S)

    def wait_for_port(self, name: str, host: str, port: int, bound_s: float = 120.0) -> None:
        """Wait until the server accepts a connection."""
        self.wait(name, lambda: _accepts(host, port), bound_s)

    def stop(self, name: str) -> None:
        """Ask the server's group to end, then make it."""
        child = self._running.pop(name)
        for asked in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, asked)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOP_S)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the server's group."""
        os.killpg(self._running[name].pid, number)

    def stop_all(self) -> None:
        """End all servers at once: what they hold is thrown away, and nothing is to be saved."""
        for child in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        while self._running:
            self._running.popitem()[1].wait()

    @staticmethod
    def that_name(folder: Path) -> list[str]:
        """Command lines of processes, of anybody, that name a file below ``folder``."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has just ended
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if str(folder) in words:
                    found.append(words)
        return found


def _accepts(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False
