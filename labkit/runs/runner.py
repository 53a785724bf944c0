"""Run an experiment in a child process and watch it to its end."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from labkit.config.datasets import find_dataset
from labkit.config.errors import ConfigError
from labkit.config.gpus import unsuitable
from labkit.config.layers import DEFAULT_PROFILE, resolve
from labkit.config.schema import RunConfig, coerce, read_config
from labkit.config.secrets import child_environment, redact_file
from labkit.config.workspace import Workspace
from labkit.help.diagnosis.diagnose import diagnose, with_cause
from labkit.help.diagnosis.log_file import read_log
from labkit.help.diagnosis.log_text import read_tail
from labkit.ledger.errors import LedgerError
from labkit.ledger.events import EventReader
from labkit.ledger.ledger import Ledger
from labkit.ledger.parts import Fallback
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.memory.host import HostMemory
from labkit.runs.fork_server import Process, close_input, environment, libraries, start
from labkit.runs.prediction import WAIT_S, in_background
from labkit.runs.ranks.files import log_of, logs, other_ranks
from labkit.runs.ranks.launched import Launched
from labkit.runs.resume import prepare, unfinished
from labkit.runs.room import refuse_too_many
from labkit.runs.silent_end import silent_end
from labkit.runs.stop_requests import StopRequested

POLL_S = 0.1
GRACE_S = 5.0
"""Time a child gets to end after it was asked to, before it is made to."""

SAVE_GRACE_S = 120.0
"""The same for one that saves its state first, when the step in progress is done."""

KILL_S = 60.0
"""Time the kernel gets to end a process that was killed; one that waits for a dead disk takes longer."""

REQUESTED = "because a stop was requested"
"""Why a run stopped that ``RunFolder.request_stop`` was called for."""

ENDED = ("ok", "oom")
"""How a run can come to its end while it is asked to stop."""

OnEvent = Callable[[dict[str, Any]], None]


def run(
    experiment: str,
    overrides: dict[str, Any] | None = None,
    profile: str = DEFAULT_PROFILE,
    timeout_s: float | None = None,
    on_event: OnEvent | None = None,
    fresh: bool = False,
    fallback: Fallback | None = None,
    oversubscribe: bool = False,
) -> Record:
    """Run ``experiment`` on ``profile``'s machine and return its record, however it ended.

        record = run("reduced_batch", {"batch_size": 8})

    The run is a child process; its out-of-memory, crash or kill becomes the ``status`` of the record. ``on_event`` sees
    each event as it comes, the first of them ``created`` with the run's folder. After ``timeout_s`` seconds the child
    is stopped, and so it is when ``RunFolder.request_stop`` is called for it, as the panel's button does. Ctrl-C stops
    the child, writes the record and is raised again as ``KeyboardInterrupt``; so does ``StopRequested``.

    With ``enable_checkpointing`` a run that stopped is resumed when it is called again, from its last checkpoint: its
    first event is ``resumed``. ``fresh`` starts again. ``fallback`` is kept in the record, and its ``environment`` is
    set for the child (``labkit.runs.auto_fit``). More devices than the cores carry are refused unless ``oversubscribe``
    is set. Raises ``ConfigError`` and ``LedgerError`` before anything has started.
    """
    workspace = Workspace.find()
    resolved = resolve(workspace, experiment, overrides, profile)
    read = {key: coerce(key, value) for key, value in (overrides or {}).items()}
    typed = {key: list(value) if isinstance(value, tuple) else value for key, value in read.items()}
    if resolved.config.on_cuda and (reason := unsuitable(resolved.config, profile)):
        raise ConfigError(reason)
    ledger = Ledger(workspace.runs)
    launched = _launched(resolved.config)
    if launched is None and not oversubscribe:
        refuse_too_many(resolved.config)
    if not resolved.skip_reason:
        find_dataset(resolved.config.dataset, workspace.data)  # which every rank says for itself
    if launched is not None and launched.rank:
        return launched.follow(ledger)
    if launched is not None:
        launched.open(ledger)
    environment = fallback.environment if fallback else {}
    if not fresh and (stopped := unfinished(ledger, resolved, environment)) is not None:
        try:
            return resume(stopped, timeout_s, on_event)
        except LedgerError:
            if not stopped.is_watched:
                raise
            # another has resumed it at the same moment, and this becomes a run of its own
    with ledger.open_run(resolved, typed, {"data_folder": str(workspace.data)}, fallback) as folder:
        record = folder.read()
        if launched is not None and not resolved.skip_reason:
            launched.leave_message(ledger, folder, None)
        begin = {"event": "created", "folder": str(folder.path)}
        _carry_out(folder, record, resolved.config, resolved.skip_reason, None, begin, timeout_s, on_event)
        if launched is not None and resolved.skip_reason:
            launched.tell_of_skipped(ledger, folder)
    return record


def resume(folder: RunFolder, timeout_s: float | None = None, on_event: OnEvent | None = None) -> Record:
    """Resume a run from its last checkpoint, in the same folder; the record of the whole run.

    Raises ``LedgerError`` for a run that is still running, is done or has saved nothing.
    """
    ledger = Ledger(Workspace.find().runs)
    config = read_config(folder.read().config)  # before anything is written
    launched = _launched(config)
    if launched is not None and launched.rank:
        return launched.follow(ledger)
    if launched is not None:
        launched.open(ledger)
    with ledger.reopen(folder) as record:
        saved, record = prepare(folder, record)
        if launched is not None:
            launched.leave_message(ledger, folder, saved)
        begin = {"event": "resumed", "folder": str(folder.path), "step": record.attempts[-1].resumed_at_step}
        _carry_out(folder, record, config, None, saved, begin, timeout_s, on_event)
    return record


def _carry_out(
    folder: RunFolder, record: Record, config: RunConfig, skip_reason: str | None, saved: Path | None,
    begin: dict[str, Any], timeout_s: float | None, on_event: OnEvent | None,
) -> None:  # fmt: skip
    """Let a run come to its end, and write its record, whatever happens."""
    started, host = time.monotonic(), HostMemory.read()
    log_starts = {log: log.stat().st_size for log in logs(folder.path)}  # after what earlier attempts have printed
    before_s = sum(attempt.wall_seconds for attempt in record.attempts)
    record.wall_seconds = 0.0
    try:
        if on_event is not None:
            on_event(begin)
        if skip_reason:
            record.status, record.reason = "skipped", skip_reason
        else:
            with in_background(folder, config) as prediction:
                _watch(folder, record, config, saved, log_starts.get(folder.log, 0), timeout_s, on_event)
                record.wall_seconds = round(time.monotonic() - started, 3)
                # a run that has measured nothing has nothing to compare it with, and need not wait
                record.prediction = prediction.result(WAIT_S if record.memory else 0)
    except BaseException as error:
        if isinstance(error, StopRequested):
            error.record = record
        if record.status == "running":  # a record of a run that is over never says that it is running
            record.status, record.reason = "killed", f"its watcher stopped: {type(error).__name__} {error}".strip()
        raise
    finally:
        record.wall_seconds = round((record.wall_seconds or time.monotonic() - started) + before_s, 3)
        expected = record.expected
        # what was skipped has neither met nor missed what was expected, unless just this was
        if expected and (record.status != "skipped" or expected.status == "skipped"):
            step, phase = (record.died_in.step, record.died_in.phase) if record.died_in else (None, None)
            record.as_expected = expected.matches(record.status, step, phase)
        record.ranks = other_ranks(folder.path)
        log = log_of(folder.path, record.ended_by_rank)
        found = diagnose(record, _log_text(log, log_starts.get(log, 0)), host.kills_until(HostMemory.read()))
        record.diagnosis = found
        if found is not None and record.status == "failed":
            record.reason = with_cause(found, record.reason or "")
        folder.write(record)
        folder.stop.unlink(missing_ok=True)


def _log_text(log: Path, start: int) -> str:
    """What a run printed; nothing where that cannot be read, for its record is to be written all the same."""
    try:
        return read_log(log, start)
    except (OSError, ValueError):
        return ""


def _launched(config: RunConfig) -> Launched | None:
    """The launcher that has started this rank, for a run of several; None where this process starts them all."""
    launched = Launched.find()
    if launched is not None:
        launched.check(config)
    elif config.num_nodes > 1:
        raise ConfigError(
            f"num_nodes={config.num_nodes} needs a launcher that starts the run on every node: torchrun --nnodes "
            f"{config.num_nodes} --nproc-per-node {config.devices} ... workspace/finetune.py EXPERIMENT ..., or "
            "srun, in a script that 'labkit slurm' writes"
        )
    return launched


def _watch(
    folder: RunFolder, record: Record, config: RunConfig, saved: Path | None, log_start: int, timeout_s: float | None,
    on_event: OnEvent | None,
) -> None:  # fmt: skip
    # of an attempt that resumes what is new counts
    reader = EventReader(folder.events, folder.events.stat().st_size if saved is not None else 0)

    def read_events() -> None:
        for event in reader.new():
            record.apply(event)
            if on_event is not None:
                on_event(event)

    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    grace_s = SAVE_GRACE_S if config.enable_checkpointing else GRACE_S
    with _child(folder, record, config, saved) as child:
        try:
            while child.poll() is None:
                read_events()
                late = deadline is not None and time.monotonic() > deadline
                if late or folder.stop_requested:
                    read_events()
                    if record.status == "running":
                        _stop(child, signal.SIGTERM, grace_s)
                        read_events()
                        if record.status not in ENDED:
                            why = f"after the {timeout_s:g} s it was given" if late else REQUESTED
                            record.status = "timeout" if late else "killed"
                            record.reason = f"stopped {why}{_resume_hint(folder)}"
                    return
                time.sleep(POLL_S)
            read_events()
        except KeyboardInterrupt as stop:
            with contextlib.suppress(KeyboardInterrupt):  # a second one does not wait for anything to be saved
                _stop(child, signal.SIGINT, grace_s)
            read_events()
            if record.status not in ENDED:
                record.status, record.reason = _interrupted(stop, folder)
            raise
        finally:
            record.exit_code = child.poll()
    if record.status == "running":
        record.status, record.reason = _silent_end(child.wait(0), folder, log_start)
    elif config.world_size > 1 and record.exit_code:  # a rank that was killed, or did not answer
        record.reason = f"{record.reason}{_resume_hint(folder)}"


@contextlib.contextmanager
def _child(folder: RunFolder, record: Record, config: RunConfig, saved: Path | None) -> Generator[Process]:
    """The training process, in a session of its own; nothing of it is left when the context ends."""
    simulated = config.simulated
    env = environment() if simulated else child_environment() | {"TOKENIZERS_PARALLELISM": "false"}
    env |= record.fallback.environment if record.fallback else {}
    arguments = [str(folder.path), *([str(saved)] if saved else [])]
    module = "labkit.runs.ranks.watch" if config.world_size > 1 else "labkit.train.fit"
    with folder.log.open("ab") as log:
        # it keeps the lock, so that no process resumes the run while it still ends
        child = start(module, arguments, env, log.fileno(), [folder.held_lock], simulated, libraries(config))
    try:
        yield child
    finally:
        _stop(child, signal.SIGTERM, 0)
        for log in logs(folder.path):
            redact_file(log)


def _stop(child: Process, first: signal.Signals, grace_s: float) -> None:
    """Ask the child to end, then make it and all it has started."""
    try:
        if child.poll() is None:
            child.send_signal(first)  # to it alone: loader workers that end first would look like a failure
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # loader workers that are left, and a child that did not listen
        child.wait(KILL_S)
        close_input(child)


def _interrupted(stop: KeyboardInterrupt, folder: RunFolder) -> tuple[str, str]:
    if not isinstance(stop, StopRequested):
        return "killed", f"interrupted by Ctrl-C{_resume_hint(folder)}"
    if stop.time_is_over:
        return "timeout", f"stopped before the job's time was over{_resume_hint(folder)}"
    return "killed", f"interrupted by {stop}{_resume_hint(folder)}"


def _silent_end(returncode: int, folder: RunFolder, log_start: int) -> tuple[str, str]:
    """Status and reason of a child that ended without a result."""
    status, reason = silent_end(returncode, lambda: read_tail(folder.log, log_start))
    return status, f"{reason}{_resume_hint(folder)}" if status == "killed" else f"{reason} (log: {folder.log})"


def _resume_hint(folder: RunFolder) -> str:
    place = folder.newest_checkpoint()
    return f"; {place.parent.name} is saved, and the same command resumes there" if place else ""
