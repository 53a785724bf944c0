"""Jobs in Slurm's queue: submit one, follow it to its end, find the record of its run."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.run_folder import RunFolder

POLL_S = 2.0
COMMAND_S = 60.0
"""How long a command of Slurm's may take; a busy controller is slow to answer."""

LOST_S = 300.0
"""How long a controller may not answer before waiting for it ends."""

OVER = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
     "TIMEOUT", "GONE"}
)  # fmt: skip
"""States of a job that is over (squeue(1)), and of one that Slurm has forgotten."""


class SlurmError(Exception):
    """Slurm is not there or has refused; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job's state in Slurm's words, why it waits, and where its output is."""

    state: str
    reason: str
    output: Path | None

    @property
    def is_over(self) -> bool:
        """Whether it has left the queue for good."""
        return self.state in OVER


def submit(script: Path) -> str:
    """Give a script to ``sbatch``; the job's id. Raises ``SlurmError`` with what Slurm says against it."""
    return _slurm("sbatch", "--parsable", str(script)).strip().partition(";")[0]


def look(job: str) -> JobState:
    """How a job is now. One that Slurm has forgotten, as it does some minutes after the end, is ``GONE``."""
    try:
        said = _slurm("scontrol", "--oneliner", "show", "job", job)
    except SlurmError as error:
        if "Invalid job id" not in str(error):
            raise
        return JobState(state="GONE", reason="", output=None)
    said = said.strip().splitlines()[0]  # of an array's jobs the first
    facts = {name: value for name, equals, value in (word.partition("=") for word in said.split()) if equals}
    # a path may hold blanks; what follows it differs by version
    output = re.split(r"\s+[A-Z][\w/:]*=", said.partition(" StdOut=")[2])[0].strip()
    output = output.replace("%j", job).replace("%x", facts.get("JobName", "")).replace("%%", "%")
    reason = facts.get("Reason", "None")
    return JobState(
        state=facts.get("JobState", "GONE"), reason="" if reason == "None" else reason,
        output=Path(output) if output else None,
    )  # fmt: skip


def follow(job: str, say: Callable[[str], None]) -> JobState:
    """Wait for a job's end and ``say`` what it prints and how its state changes; the last state.

    Raises ``SlurmError`` for a job that Slurm does not know, when there is no answer at first, and later for five
    minutes.
    """
    last, read, answered = "", 0, time.monotonic()
    while True:
        try:
            now = look(job)
            answered = time.monotonic()
        except SlurmError:
            if not last or time.monotonic() - answered > LOST_S:
                raise
            time.sleep(POLL_S)
            continue
        if now.state == "GONE" and not last:
            raise SlurmError(f"Slurm knows no job {job}; 'squeue --me' lists yours.")
        line = f"job {job}: {now.state.lower()}{f' ({now.reason})' if now.reason else ''}"
        read = _print_new(now.output, read, say)
        if line != last:
            say(line)
            last = line
        if now.is_over:
            return now
        time.sleep(POLL_S)


def run_of(job: str, ledger: Ledger) -> RunFolder:
    """The run that a job has carried out, or the newest of them. Raises ``LedgerError`` when it has made none."""
    for folder in reversed(ledger.folders()):
        try:
            if folder.read().job == job:
                return folder
        except LedgerError:  # another run's damage
            continue
    raise LedgerError(f"{ledger.root} has no run of job {job}; what the job printed says why.")


def _print_new(output: Path | None, read: int, say: Callable[[str], None]) -> int:
    """Say the lines after the first ``read`` bytes of a file; how many bytes that makes."""
    if output is None:
        return read
    try:
        with output.open("rb") as file:
            file.seek(read)
            new = file.read()
    except OSError:  # not there yet
        return read
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        say(f"  {line}")
    return read + len(whole)


def _slurm(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        raise SlurmError(f"there is no {program} here; call this where jobs are submitted, on the login node.")
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, encoding="utf-8", errors="replace", timeout=COMMAND_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SlurmError(
            f"{program} has not answered for {COMMAND_S:g} s; 'scontrol ping' asks the controller."
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise SlurmError(f"{program}: {said[-1].removeprefix(f'{program}: ').removeprefix('error: ')}")
    return done.stdout
