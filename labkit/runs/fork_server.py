"""Fork server: a process that has imported the libraries once and forks the processes of runs.

Importing torch, Lightning and transformers takes longer than a small run. ``start`` gives a process without this wait,
with the interface of ``subprocess.Popen``. It is forked only where that is safe: on Linux, by a process without threads
of its own that has touched no GPU. docs/fork-server.md says why ``multiprocessing``'s own server is not used.

Each process has a server of its own, unless ``share`` has one ready for all.
"""

import atexit
import contextlib
import gc
import hashlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from labkit.config.schema import RunConfig
from labkit.config.secrets import child_environment

MODULES = ("labkit.train.fit", "labkit.plan.background", "labkit.plan.predict")
"""What the server imports; each has a ``main`` or is used by one."""

IDLE_S = 600.0
"""The server ends after this time without work, and another one is started when there is some."""

SHARED = "LABKIT_FORK_SERVER"
"""The variable that names the socket of a shared server."""

READ_WHEN_CALLED = (
    "LABKIT_", "PYTEST_", "JPY_", "JUPYTER_", "PYDEVD_", "PL_", "COLUMNS", "LINES", "TERM", "PAGER", "GIT_PAGER",
    "CLICOLOR", "FORCE_COLOR", "MPLBACKEND", "SHLVL", "CUDA_DEVICE_ORDER", "TORCHINDUCTOR_CACHE_DIR",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
)  # fmt: skip
"""How variables begin that no library of a run reads when it is imported: they may differ from the server's. Most are
those of a terminal or a notebook; ``PL_`` is Lightning's, and the last two torch sets itself, in a process that
predicts."""


class Forked:
    """A process that the server has forked. Methods are those of ``subprocess.Popen``."""

    def __init__(self, pid: int, connection: socket.socket, stdin: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = os.fdopen(stdin, "wb")
        self._connection = connection
        self._said = b""

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises ``subprocess.TimeoutExpired``."""
        while self.returncode is None:
            waiting = select.poll()  # select takes no descriptor above 1023, and a notebook may have many
            waiting.register(self._connection, select.POLLIN)
            if not waiting.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            part = self._connection.recv(64)
            self._said += part
            if not part:  # the server was killed before it could say; what it has forked ends as it did
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self._said = b"%d\n" % -signal.SIGKILL
            if self._said.endswith(b"\n"):
                self.returncode = int(self._said)
                self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


Process = Forked | subprocess.Popen[bytes]


class _Server:
    """A server for one environment: this process's own, or the shared one."""

    def __init__(self, env: dict[str, str], listener: socket.socket | None = None) -> None:
        self.owner, self.imported, self._source = os.getpid(), _at_import(env), _newest_source()
        self._process: subprocess.Popen[bytes] | None = None
        shared = None if listener else _connect(os.environ.get(SHARED), _fingerprint(env))
        if shared is not None:
            self._control = shared
            return
        self._control, theirs = socket.socketpair()
        passed = [theirs.fileno(), *([listener.fileno()] if listener else [])]
        named = [*map(str, passed), *([_fingerprint(env)] if listener else [])]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "labkit.runs.fork_server", *named],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True, pass_fds=passed, env=env,
            )  # fmt: skip

    def fits(self, env: dict[str, str]) -> bool:
        """Whether it can fork for this environment."""
        alive = self.owner == os.getpid() and (self._process is None or self._process.poll() is None)
        return alive and self.imported == _at_import(env) and self._source == _newest_source()

    def close(self) -> None:
        """Let it go; one's own ends with the last process that it has forked."""
        self._control.close()
        if self._process is not None and self.owner == os.getpid():
            threading.Thread(target=self._process.wait, daemon=True).start()  # no zombie is left

    def kill(self) -> None:
        """End one's own now; what it has forked is over, or ends as soon as no process watches."""
        self._control.close()
        if self._process is not None and self.owner == os.getpid():
            self._process.kill()
            self._process.wait()

    def fork(self, request: dict[str, Any], files: Sequence[int]) -> Forked:
        """Raises ``OSError`` when the server is gone."""
        mine, theirs = socket.socketpair()
        read, write = os.pipe()
        try:
            socket.send_fds(self._control, [b"."], [theirs.fileno(), read, *files])
            theirs.close()
            mine.sendall(json.dumps(request).encode() + b"\n")
            said = mine.makefile("rb", buffering=0).readline()
            if not said:
                raise ConnectionResetError("the fork server has ended")
            return Forked(int(said), mine, write)
        except BaseException:  # Ctrl-C too: no descriptor is left, and the error is raised again
            mine.close()
            os.close(write)
            raise
        finally:
            theirs.close()
            os.close(read)


def environment() -> dict[str, str]:
    """The environment of a process that needs no GPU: no secrets, no GPU, and one thread.

    With one thread, runs side by side do not slow each other, and sums have the same order on every machine.
    """
    return child_environment() | {
        "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip


def libraries(config: RunConfig) -> tuple[str, ...]:
    """What a run imports that not all do, and that takes seconds."""
    scheduled = config.lr_schedule != "constant" or config.warmup_steps
    return ("peft",) if config.use_lora or config.use_qlora or scheduled else ()


_lock = threading.Lock()
_server: _Server | None = None


def start(
    module: str, arguments: Sequence[str], env: dict[str, str], stdout: int, pass_fds: Sequence[int] = (),
    forks: bool = True, imports: Sequence[str] = (),
) -> Process:  # fmt: skip
    """Start ``python -m module arguments`` in a session of its own; ``module`` has a ``main()``.

    ``stdout`` is a file descriptor and takes what goes to standard error too; standard input is a pipe. Where
    ``forks`` is false, as for what uses a GPU, and on other systems than Linux it is a new Python. ``imports`` are
    libraries that not all need and that it will import: the server does so before, for the next one too.
    """
    if forks and sys.platform == "linux":
        request = {
            "module": module, "arguments": list(arguments), "env": env, "cwd": str(Path.cwd()),
            "imports": list(imports),
        }  # fmt: skip
        with _lock:
            for _ in range(2):  # one that was idle may end just now
                try:
                    return _server_for(env).fork(request, [stdout, *pass_fds])
                except (BrokenPipeError, ConnectionResetError):
                    _leave_server()
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.STDOUT,
        start_new_session=True, env=env, pass_fds=pass_fds,
    )  # fmt: skip


def close_input(process: Process) -> None:
    """Close the standard input of what ``start`` has given: the process then ends, and all it has started."""
    if process.stdin is not None:
        process.stdin.close()


def warm_up(env: dict[str, str]) -> None:
    """Have the libraries imported for this environment by the time that ``start`` is called."""
    if sys.platform == "linux":
        with _lock:
            _server_for(env)


@contextlib.contextmanager
def share(folder: Path) -> Generator[None]:
    """One server for this process and all that it starts, with a socket in ``folder``, which must be private.

        with share(folder):
            subprocess.run(["labkit", "run", "reduced_batch"])  # imports no library

    A process with another environment than this one's, or after an edit of labkit, starts a server of its own all the
    same. Forks are made one after the other: while a process is stopped in the middle of asking for one, others wait.
    """
    path = folder / "fork-server"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = _Server(environment(), listener)
    before = os.environ.get(SHARED)
    os.environ[SHARED] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[SHARED]
        else:
            os.environ[SHARED] = before
        server.kill()
        path.unlink()


def has_shared(env: dict[str, str]) -> bool:
    """Whether a process with this environment has a shared server to use."""
    found = _connect(os.environ.get(SHARED), _fingerprint(env))
    if found is not None:
        found.close()
    return found is not None


def _connect(path: str | None, fingerprint: str) -> socket.socket | None:
    """To the shared server, where there is one for this environment."""
    if not path:
        return None
    control = socket.socket(socket.AF_UNIX)
    try:
        control.connect(path)
        with control.makefile("rb", buffering=0) as answer:
            if answer.readline().decode() == f"{fingerprint}\n":
                return control
    except OSError:
        pass  # it has ended
    control.close()
    return None


def _server_for(env: dict[str, str]) -> _Server:
    global _server
    if _server is None or not _server.fits(env):
        _leave_server()
        _server = _Server(env)
    return _server


def _leave_server() -> None:
    global _server
    left, _server = _server, None
    if left is not None:
        left.close()


@atexit.register
def _end() -> None:
    if _server is not None:
        _server.kill()


def _newest_source() -> float:
    """When labkit was last edited: a server that imported it before has old code."""
    return max(path.stat().st_mtime for path in Path(__file__).parents[1].rglob("*.py"))


def _at_import(env: dict[str, str]) -> dict[str, str]:
    # a shell sets _ to the command that it starts
    return {name: value for name, value in env.items() if not name.startswith(READ_WHEN_CALLED) and name != "_"}


def _fingerprint(env: dict[str, str]) -> str:
    """Of what a server has read when it imported the libraries."""
    read = [sys.executable, sorted(_at_import(env).items()), str(Path(__file__).parents[1]), _newest_source()]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


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
