"""Serving: what the fork server does. It imports the libraries once, and forks what is asked for.

    python -m labkit.runs.serving DESCRIPTOR [DESCRIPTOR FINGERPRINT]

The first descriptor is the socket of its owner, with which it ends. A shared server has a second one, at which others
connect; they are told the fingerprint of what it has imported.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODULES = ("labkit.train.fit", "labkit.plan.background", "labkit.plan.predict")
"""What the server imports; each has a ``main`` or is used by one."""

IDLE_S = 600.0
"""The server ends after this time without work, and another one is started when there is some."""


def _serve(owner: socket.socket, listener: socket.socket | None = None, fingerprint: str = "") -> dict[str, Any]:
    """Fork what is asked for. Returns in a forked process, with its request; the server itself never returns.

    It ends when its owner does. Others come by the ``listener`` and are told what the server has imported.
    """
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    running: dict[int, socket.socket] = {}
    asking = [owner]
    while running or asking:
        ready = select.select([woken, *asking, *([listener] if listener and asking else [])], [], [], IDLE_S)[0]
        if not ready and not running and listener is None:
            break
        if woken in ready:
            os.read(woken, 1024)
            for pid in list(running):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with running.pop(pid) as connection, contextlib.suppress(BrokenPipeError):
                        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        if listener is not None and listener in ready:
            asking.append(listener.accept()[0])
            with contextlib.suppress(BrokenPipeError):
                asking[-1].sendall(f"{fingerprint}\n".encode())
        for control in [one for one in asking if one in ready]:
            message, files, *_ = _received(control)
            if not message or not files:  # no more is wanted; who watched what still runs is told how it ends
                if control is owner:
                    asking.clear()
                    break
                asking.remove(control)
                control.close()
                continue
            connection = socket.socket(fileno=files[0])
            line = connection.makefile("rb").readline()
            if not line.endswith(b"\n"):  # the process that asked was interrupted
                connection.close()
                for descriptor in files[1:]:
                    os.close(descriptor)
                continue
            request = json.loads(line)
            _import(request["imports"])
            begun, begins = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.setsid()
                os.close(begins)  # from now on a signal to the process group finds it
                signal.set_wakeup_fd(-1)
                for end in (connection, *asking, *running.values(), *([listener] if listener else [])):
                    end.close()
                for descriptor in (woken, wakes, begun):
                    os.close(descriptor)
                _take_place(request, *files[1:])
                return request
            os.close(begins)
            os.read(begun, 1)
            os.close(begun)
            for descriptor in files[1:]:
                os.close(descriptor)
            running[pid] = connection
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(b"%d\n" % pid)
    os._exit(0)


def _received(control: socket.socket) -> tuple[bytes, list[int], int, Any]:
    """A message with its files; nothing of a process that was killed."""
    try:
        return socket.recv_fds(control, 1, 16)
    except ConnectionResetError:
        return b"", [], 0, None


def _import(modules: Sequence[str]) -> None:
    """Import what is not here yet, without the collector, which finds nothing and takes a fifth of the time."""
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # what is there now is never collected: pages stay shared
    gc.enable()


def _take_place(request: dict[str, Any], stdin: int, stdout: int, *kept: int) -> None:
    """Be the process that was asked for, with its streams and folder."""
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.dup2(stdout, 2)
    os.close(stdin)
    os.close(stdout)
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    os.chdir(request["cwd"])
    become(request["module"], request["arguments"], request["env"])


def shown_name(module: str) -> str:
    """The name that ``top`` and ``ps -o comm`` show of a process that was forked to be this module.

    Its command line stays the server's. Linux keeps 15 characters of a name.
    """
    return module.removeprefix("labkit.")[:15]


def become(module: str, arguments: Sequence[str], env: dict[str, str]) -> None:
    """Let a process that was just forked be ``python -m module arguments``, whose ``main()`` comes next."""
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *arguments]
    with contextlib.suppress(OSError):  # it is only shown
        Path("/proc/self/comm").write_text(shown_name(module), encoding="utf-8")
    gc.collect()  # its counters begin again, so that what is collected when is the same in every run


def main() -> None:
    """Import the libraries, serve, and in a forked process be what was asked for."""
    numbers, fingerprint = sys.argv[1:3], "".join(sys.argv[3:])
    sockets = [socket.socket(fileno=int(number)) for number in numbers]
    for one in sockets:
        os.set_inheritable(one.fileno(), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the watcher
    _import(MODULES)
    request = _serve(sockets[0], sockets[1] if fingerprint else None, fingerprint)
    importlib.import_module(request["module"]).main()


if __name__ == "__main__":
    main()
