"""The processes of one run on several devices of this machine, watched as one.

    python -m labkit.runs.ranks.watch RUN_FOLDER [CHECKPOINT]

Starts ``labkit.train.fit`` once for each device, with the names that ``torchrun`` gives: ``RANK``, ``LOCAL_RANK``,
``WORLD_SIZE``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``. When one of them fails, the others get a short
grace and are killed. The run counts as ended like the first that failed: this process writes it into the run's events
and ends with the same exit code or signal; 124 stands for a time-out in a collective operation.

Where a launcher has started the ranks (see ``launched``), this process starts only its own, and rank 0 knows the others
by what they write.

All ranks are in this process's group and have its standard input, so killing the group, or closing the input, ends all.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.config.parent import end_with_parent
from labkit.help.diagnosis.log_text import clean, read_tail
from labkit.help.diagnosis.sequence import find_end
from labkit.ledger.events import EventReader, values_of
from labkit.runs.ranks.files import events_of, log_of, logs
from labkit.runs.ranks.forked import MODULE, PASSED_ON, ForkedRank, can_fork, fork_rank
from labkit.runs.ranks.launched import Launched
from labkit.runs.silent_end import silent_end

POLL_S = 0.05
GRACE_S = 5.0
"""How long the other ranks may run when one has failed: enough to say what they think it was."""

TIMED_OUT = 124
"""The exit code of the command ``timeout``, and so of a rank that waited in vain for another."""

_BY_ITSELF = (*range(256), -signal.SIGABRT)
"""Codes of a rank that ended itself; NCCL's watchdog aborts one that has waited too long."""

_FOLLOWS = ("distributed_connection", "distributed_timeout", "gloo", "nccl")
"""Kinds of symptoms that a rank has when another has gone."""


Process = subprocess.Popen[bytes] | ForkedRank


@dataclass
class Rank:
    """One rank of the run, and how it ended. ``process`` is None for one that another watcher has started."""

    number: int
    process: Process | None
    folder: Path
    log_start: int = 0
    """Where in its log this attempt begins."""
    ended: float | None = None
    """When it was seen to be over; None while it runs."""

    def __post_init__(self) -> None:
        self._reader = EventReader(events_of(self.folder, self.number))
        self._said: dict[str, Any] = {}

    def look(self) -> None:
        """See whether it is over."""
        over = self.process.poll() is not None if self.process else bool(self.result)
        if self.ended is None and over:
            self.ended = time.monotonic()

    @property
    def code(self) -> int:
        """Its exit code, below zero for a signal; to be asked of a rank that is over."""
        if self.process is None:
            return self.result.get("exit_code", 0)
        code = self.process.returncode
        if code is None:
            raise RuntimeError(f"rank {self.number} was asked how it has ended while it runs")
        return code

    @property
    def result(self) -> dict[str, Any]:
        """What it said at its end; empty when it could not."""
        for event in self._reader.new():
            if event["event"] in ("result", "resumed"):  # how an earlier attempt ended does not count
                self._said = event if event["event"] == "result" else {}
        return self._said

    @property
    def failed(self) -> bool:
        """Whether it is over and has not ended well."""
        return self.ended is not None and (self.code != 0 or self.result.get("status") != "ok")

    @property
    def symptom(self) -> str | None:
        """What its last words are a sign of."""
        text = f"{self.result.get('reason') or ''}\n{self.printed()}"
        end = find_end(clean(text))
        return end.event.symptom.kind if end else None

    def printed(self) -> str:
        """The end of what it has printed."""
        return read_tail(log_of(self.folder, self.number), self.log_start, most_bytes=2**16)

    def say(self, result: dict[str, Any]) -> None:
        """Write how it ended into its events, after what it has said itself."""
        with events_of(self.folder, self.number).open("a", encoding="utf-8") as events:
            events.write(json.dumps({"event": "result", "time": time.time(), **result}) + "\n")


class Ranks:
    """The ranks of a run on this machine: ``start`` them, ``wait`` for their end, ask for the ``verdict``."""

    def __init__(self, folder: Path, arguments: list[str], count: int, timeout_s: float) -> None:
        self._folder, self._arguments, self._count, self._timeout_s = folder, arguments, count, timeout_s
        self._log_starts = {log: log.stat().st_size for log in logs(folder)}
        self.ranks: list[Rank] = []
        self.stop_signal: int | None = None
        """The last signal that came for all of them."""

    def join(self, number: int) -> bool:
        """Start one rank as the environment has it. Rank 0 also looks after the others, which are not its own.

        True in a process that was forked and now is that rank.
        """
        for other in range(self._count):
            if other == number:
                if self._begin(number, dict(os.environ)):
                    return True
            elif number == 0:
                self._add(other, None)
        return False

    def start(self) -> bool:
        """Start every rank. The port is one that is free now, unless MASTER_PORT names another.

        True in a process that was forked and now is one of them.
        """
        port = os.environ.get("MASTER_PORT") or str(free_port())
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
        shared = os.environ | {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(self._count), "NODE_RANK": "0",
            "LOCAL_WORLD_SIZE": str(self._count), "GLOO_SOCKET_IFNAME": loopback,
        }  # fmt: skip
        for number in range(self._count):
            if self._begin(number, shared | {"RANK": str(number), "LOCAL_RANK": str(number)}):
                return True
        return False

    def _begin(self, number: int, env: dict[str, str]) -> bool:
        process = self._start(number, env)
        if process is not None:
            self._add(number, process)
        return process is None

    def _add(self, number: int, process: Process | None) -> None:
        log_start = self._log_starts.get(log_of(self._folder, number), 0)
        held = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        missed = self.stop_signal
        self.ranks.append(Rank(number, process, self._folder, log_start))
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        if missed is not None and process is not None:  # it was not there yet when all got the signal
            process.send_signal(missed)

    def _start(self, number: int, env: dict[str, str]) -> Process | None:
        command = [sys.executable, "-m", MODULE, *self._arguments]
        with log_of(self._folder, number).open("ab") as log:
            if can_fork():
                return fork_rank(self._arguments, env, log.fileno())
            # open descriptors are kept, and with them the lock of the run's folder
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, close_fds=False)

    def pass_on(self, number: int) -> None:
        """Send a signal to all of them, also to those that are still to be started."""
        self.stop_signal = number
        for rank in self.ranks:
            if rank.process and rank.process.poll() is None:
                rank.process.send_signal(number)

    def wait(self) -> None:
        """Come back when no rank is left."""
        deadline = None
        while True:
            for rank in self.ranks:
                rank.look()
            if all(rank.ended is not None for rank in self.ranks):
                return
            own_are_over = all(rank.ended is not None for rank in self.ranks if rank.process)
            if deadline is None and (own_are_over or any(rank.failed for rank in self.ranks)):
                deadline = time.monotonic() + GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                for rank in self.ranks:
                    if rank.process and rank.ended is None:
                        rank.process.kill()
                        rank.process.wait()
                return
            time.sleep(POLL_S)

    def verdict(self) -> tuple[int, dict[str, Any] | None]:
        """Exit code, below zero for a signal, and the ``result`` of the whole; None where rank 0's own is that."""
        failed = [rank for rank in self.ranks if rank.failed]
        if not failed:
            return 0, None
        # a rank that lost another is no cause; of the others, or else of these, the first that was over
        first = min(failed, key=lambda rank: (rank.code in _BY_ITSELF and rank.symptom in _FOLLOWS, rank.ended))
        late = [rank.number for rank in self.ranks if rank.ended is None]
        result, code = first.result, first.code
        if late and first.symptom == "distributed_timeout":
            who = f"rank {' and '.join(map(str, late))}"
            reason = f"rank {first.number} waited {self._timeout_s:g} s for {who}, which still ran and did not answer"
            return TIMED_OUT, {"status": "timeout", "reason": reason, "rank": first.number}
        if not result or (code < 0 and result.get("status") == "ok"):
            result = _silent_end(code, first)
        result |= {"rank": first.number}
        if result.get("died_in"):
            result["died_in"]["rank"] = first.number
        if result["status"] == "failed" and first.process:  # another's watcher has said so
            result["reason"] = f"rank {first.number}: {result.get('reason')}"
        return code, values_of(result)


def free_port() -> int:
    """A port of the loopback interface that is not listened on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _silent_end(code: int, rank: Rank) -> dict[str, Any]:
    status, reason = silent_end(code, rank.printed)
    return {"status": status, "reason": f"rank {rank.number} was {reason}" if status == "killed" else reason}


def main() -> None:
    """Run the folder named on the command line on as many devices as its config says."""
    folder = Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    launched = Launched.find()
    count = config["devices"] * config["num_nodes"]
    ranks = Ranks(folder, sys.argv[1:], count, config["collective_timeout_s"])

    for number in PASSED_ON:
        signal.signal(number, lambda number, _: ranks.pass_on(number))
    if ranks.join(launched.rank) if launched else ranks.start():
        importlib.import_module(MODULE).main()
        return
    if os.getpgrp() == os.getpid():  # as the watcher starts it
        end_with_parent()  # a thread, so after the forks
    ranks.wait()
    code, result = ranks.verdict()
    if result is not None and ranks.stop_signal is None:
        first = ranks.ranks[0]  # in a launch each is the first of its own
        first.say(result | ({"exit_code": code} if first.number else {}))
    if code < 0:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the rank itself has left one
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
