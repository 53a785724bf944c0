"""Fork server: a process that has imported the libraries once and forks the processes of runs (``serving``).

Importing torch, Lightning and transformers takes longer than a small run. ``start`` gives a process without this wait,
with the interface of ``subprocess.Popen``. It is forked only where that is safe: on Linux, by a process without threads
of its own that has touched no GPU. docs/fork-server.md says why ``multiprocessing``'s own server is not used.

Each process has a server of its own, unless ``share`` has one ready for all.
"""

import atexit
import contextlib
import hashlib
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
    """A server for one environment: the ``process`` that this one has started, or the shared one."""

    def __init__(self, env: dict[str, str], control: socket.socket, process: subprocess.Popen[bytes] | None) -> None:
        self.owner, self.imported, self._source = os.getpid(), _at_import(env), _newest_source()
        self._control, self._process = control, process

    @classmethod
    def find(cls, env: dict[str, str]) -> "_Server":
        """The shared one, where there is one for this environment, else one of this process's own."""
        shared = _connect(env)
        return cls(env, shared, None) if shared is not None else cls.begin(env)

    @classmethod
    def begin(cls, env: dict[str, str], listener: socket.socket | None = None) -> "_Server":
        """Start one; with a ``listener`` for others too."""
        control, theirs = socket.socketpair()
        passed = [theirs.fileno(), *([listener.fileno()] if listener else [])]
        words = [*map(str, passed), *([_fingerprint(env)] if listener else [])]
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "labkit.runs.serving", *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True, pass_fds=passed, env=env,
            )  # fmt: skip
        return cls(env, control, process)

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

    With one thread, runs side by side do not slow each other, and sums have the same order on every machine. MKL, which
    multiplies matrices on a CPU, takes another order where a matrix begins elsewhere in memory, unless ``MKL_CBWR`` is
    strict ("Conditional Numerical Reproducibility" in Intel's guide to it). oneDNN, which does so in 16 bits, packs
    what it multiplies for AMX, in scratch memory that neither other CPUs nor GPUs need; its limit is one instruction
    set below.
    """
    return child_environment() | {
        "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        "MKL_CBWR": "AVX2,STRICT", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
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
        server = _Server.begin(environment(), listener)
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
    found = _connect(env)
    if found is not None:
        found.close()
    return found is not None


def _connect(env: dict[str, str]) -> socket.socket | None:
    """To the shared server, where there is one that has imported the libraries in this environment."""
    path = os.environ.get(SHARED)
    if not path:
        return None
    control = socket.socket(socket.AF_UNIX)
    try:
        control.connect(path)
        with control.makefile("rb", buffering=0) as answer:
            if answer.readline().decode() == f"{_fingerprint(env)}\n":
                return control
    except OSError:
        pass  # it has ended
    control.close()
    return None


def _server_for(env: dict[str, str]) -> _Server:
    global _server
    if _server is None or not _server.fits(env):
        _leave_server()
        _server = _Server.find(env)
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
