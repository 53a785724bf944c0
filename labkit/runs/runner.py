"""Run an experiment in a child process and watch it to its end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from labkit.config.datasets import find_dataset
from labkit.config.errors import ConfigError
from labkit.config.layers import DEFAULT_PROFILE, Resolved, resolve
from labkit.config.schema import RunConfig, coerce
from labkit.config.secrets import child_environment, redact_file
from labkit.config.workspace import Workspace
from labkit.runs.events import EventReader
from labkit.runs.prediction import WAIT_S, in_background
from labkit.runs.records import Ledger, Record, RunFolder

POLL_S = 0.1
GRACE_S = 5.0
"""Time a child gets to end after it was asked to, before it is made to."""

OnEvent = Callable[[dict[str, Any]], None]


def run(
    experiment: str,
    overrides: dict[str, Any] | None = None,
    profile: str = DEFAULT_PROFILE,
    timeout_s: float | None = None,
    on_event: OnEvent | None = None,
) -> Record:
    """Run ``experiment`` on ``profile``'s machine and return its record, however it ended.

        record = run("reduced_batch", {"batch_size": 8})

    The run is a child process; out-of-memory, a crash or a kill there is a ``status`` here. ``on_event`` sees each
    event as it comes, the first of them ``created`` with the run's folder. After ``timeout_s`` seconds the child is
    stopped. Ctrl-C stops the child, writes the record and goes on as ``KeyboardInterrupt``. Raises ``ConfigError``
    and ``LedgerError`` before anything has started.
    """
    workspace = Workspace.find()
    resolved = resolve(workspace, experiment, overrides, profile)
    _check_devices(resolved.config)
    read = {key: coerce(key, value) for key, value in (overrides or {}).items()}
    typed = {key: list(value) if isinstance(value, tuple) else value for key, value in read.items()}
    if not resolved.skip_reason:
        find_dataset(resolved.config.dataset, workspace.data)
    ledger = Ledger(workspace.runs)
    with ledger.open_run(resolved, typed, {"data_folder": str(workspace.data)}) as folder:
        record = folder.read()
        started = time.monotonic()
        try:
            if on_event is not None:
                on_event({"event": "created", "folder": str(folder.path)})
            if resolved.skip_reason:
                record.status, record.reason = "skipped", resolved.skip_reason
            else:
                with in_background(folder, resolved.config) as prediction:
                    _watch(folder, record, resolved, timeout_s, on_event)
                    record.wall_seconds = round(time.monotonic() - started, 3)
                    # a run that has measured nothing has nothing to stand beside it, and need not wait
                    record.prediction = prediction.result(WAIT_S if record.memory else 0)
        except BaseException as error:
            if record.status == "running":  # a record of a run that is over never says that it goes on
                record.status, record.reason = "killed", f"its watcher stopped: {type(error).__name__} {error}".strip()
            raise
        finally:
            record.wall_seconds = record.wall_seconds or round(time.monotonic() - started, 3)
            # what was skipped has neither met nor missed what was expected, unless just this was
            if resolved.expected and (record.status != "skipped" or resolved.expected.status == "skipped"):
                record.as_expected = resolved.expected.matches(record.status, record.died_in)
            folder.write(record)
    return record


def _check_devices(config: RunConfig) -> None:
    # the place of the next piece of the course: refused by name until it is built, never silently left out
    if config.devices != 1 or config.strategy in ("ddp", "fsdp"):
        key = "devices" if config.devices != 1 else "strategy"
        raise ConfigError(
            f"{key}={getattr(config, key)} is not part of this version yet; runs use one device. "
            "'labkit plan' predicts what a device of several holds."
        )


def _watch(
    folder: RunFolder, record: Record, resolved: Resolved, timeout_s: float | None, on_event: OnEvent | None
) -> None:
    reader = EventReader(folder.events)

    def read_events() -> None:
        for event in reader.new():
            record.apply(event)
            if on_event is not None:
                on_event(event)

    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with _child(folder, resolved) as child:
        try:
            while child.poll() is None:
                read_events()
                if deadline is not None and time.monotonic() > deadline:
                    read_events()
                    if record.status == "running":
                        record.status, record.reason = "timeout", f"stopped after the {timeout_s:g} s it was given"
                    _stop(child, signal.SIGTERM)
                    return
                time.sleep(POLL_S)
            read_events()
        except KeyboardInterrupt:
            record.status, record.reason = "killed", "interrupted by Ctrl-C"
            _stop(child, signal.SIGINT)
            raise
        finally:
            record.exit_code = child.poll()
    if record.status == "running":
        record.status, record.reason = _silent_end(child.returncode, folder)


@contextlib.contextmanager
def _child(folder: RunFolder, resolved: Resolved) -> Any:
    """The training process, in a session of its own; nothing of it is left when the context ends."""
    env = child_environment() | {"TOKENIZERS_PARALLELISM": "false"}
    if resolved.config.device == "virtual":
        # one thread: runs side by side do not slow each other, and sums have one order on every machine
        env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with folder.log.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "labkit.train.fit", str(folder.path)],
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=env,
        )  # fmt: skip
    try:
        yield child
    finally:
        _stop(child, signal.SIGTERM)
        redact_file(folder.log)


def _stop(child: subprocess.Popen, first: signal.Signals) -> None:
    """Ask the child's whole group to end, then make it."""
    with contextlib.suppress(ProcessLookupError):
        if child.poll() is None:
            os.killpg(child.pid, first)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
        os.killpg(child.pid, signal.SIGKILL)  # loader workers that are left, and a child that did not listen
    child.wait()
    child.stdin.close()


def _silent_end(returncode: int, folder: RunFolder) -> tuple[str, str]:
    """Status and reason of a child that ended without a result."""
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = "; the kernel sends it when host memory runs out" if name == "SIGKILL" else ""
        return "killed", f"killed by signal {-returncode} ({name}){hint}"
    lines = folder.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    return "failed", f"ended with exit code {returncode}: {last} (log: {folder.log})"
