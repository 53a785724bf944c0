"""Launched: ranks that a launcher such as ``torchrun`` has started, each as a ``labkit run`` of its own.

Rank 0 makes the run's folder, or resumes the run, watches its own process and writes the record. It leaves a message
about it in the ledger, which all ranks must share (see ``rendezvous``); each other rank finds it there and watches a
process of its own. When a stop is requested of one rank, or of all, the run stops. So a launcher has only to set
``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT``; Slurm's ``srun`` says the same in its own
words.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.config.launcher import check_launcher
from labkit.config.schema import RunConfig
from labkit.config.secrets import child_environment, redact_file
from labkit.ledger.errors import LedgerError
from labkit.ledger.ledger import Ledger
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.runs.fork_server import Process, close_input, start
from labkit.runs.ranks.files import log_of
from labkit.runs.ranks.rendezvous import Message, Rendezvous

POLL_S = 0.1
RENDEZVOUS_S = 120.0
"""How long a rank looks for the folder that rank 0 makes."""

RECORD_S = 120.0
"""How long a rank whose own part is over waits for the record, so that no launcher ends rank 0 before it is written."""

LOOK_S = 5.0
"""How long a rank looks for the record when no process watches the run any more."""

_TORCH = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("MASTER_ADDR", "MASTER_PORT"),
    ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "MASTER_ADDR", "MASTER_PORT"),
)  # fmt: skip
_SLURM = (
    # of the step, which the batch script itself is not
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"), ("SLURM_STEP_ID", "SLURM_JOB_ID"),
    ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID"),
)  # fmt: skip
"""Variables of a launcher: rank, number of ranks and rank on the node; others it sets; what names one launch."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Which rank of how many this process is."""

    rank: int
    world_size: int
    rendezvous: str
    """A name that the ranks of one launch have in common."""
    by_slurm: bool = False
    """Whether they are tasks of ``srun``."""

    @property
    def member(self) -> str:
        """Which of how many this is, in Lightning's words."""
        return f"MEMBER: {self.rank + 1}/{self.world_size}"

    @classmethod
    def find(cls) -> "Launched | None":
        """What a launcher has said in the environment; None where there is none, or it has started one process.

        Raises ``ConfigError`` for what no launcher says, and where Slurm has started several that are not one run.
        """
        check_launcher(os.environ)
        for by_slurm, (names, place, meets) in ((False, _TORCH), (True, _SLURM)):
            said = [os.environ.get(name, "") for name in names]
            if all(number.isdecimal() for number in said) and all(name in os.environ for name in place):
                if int(said[1]) < 2:
                    if not by_slurm:
                        _refuse_one_of_many(said[1])
                    return None
                rendezvous = "-".join(os.environ.get(name, "") for name in meets)
                clean = "".join(c if c.isalnum() or c in "-." else "_" for c in rendezvous)
                return cls(rank=int(said[0]), world_size=int(said[1]), rendezvous=clean, by_slurm=by_slurm)
        return None

    def check(self, config: RunConfig) -> None:
        """Raise ``ConfigError`` for a config of another number of ranks."""
        if config.world_size != self.world_size and self.by_slurm:
            raise ConfigError(
                f"devices={config.devices} x num_nodes={config.num_nodes} does not go with the {self.world_size} tasks "
                f"of this Slurm step; ask for #SBATCH --nodes={config.num_nodes} and "
                f"#SBATCH --ntasks-per-node={config.devices}."
            )
        if config.world_size != self.world_size:
            raise ConfigError(
                f"devices={config.devices} x num_nodes={config.num_nodes} does not go with WORLD_SIZE="
                f"{self.world_size} that the launcher has set; start as many processes as there are devices."
            )

    def open(self, ledger: Ledger) -> None:
        """As rank 0, before a run is locked: take back what an earlier launch has said."""
        self._rendezvous(ledger).open()

    def leave_message(self, ledger: Ledger, folder: RunFolder, saved: Path | None) -> None:
        """As rank 0, each time that a run begins or is resumed: say where it is."""
        self._rendezvous(ledger).leave_message(folder, saved)

    def tell_of_skipped(self, ledger: Ledger, folder: RunFolder) -> None:
        """As rank 0 with a run that has its record already: stay until the others have come, who need not wait."""
        self.leave_message(ledger, folder, None)
        deadline = time.monotonic() + RENDEZVOUS_S
        while not self._rendezvous(ledger).have_arrived(self.world_size) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def follow(self, ledger: Ledger) -> Record:
        """As another rank: carry this rank's part out; the record, when rank 0 has written it.

        Raises ``LedgerError`` when no rank 0 makes a folder in time.
        """
        message = self._meet(ledger)
        folder = message.run
        if folder.record.exists():  # it was skipped
            return folder.read()
        arguments = [str(folder.path), *([str(message.saved)] if message.saved else [])]
        with log_of(folder.path, self.rank).open("ab") as log:
            child = start("labkit.runs.ranks.watch", arguments, child_environment(), log.fileno(), forks=False)
        try:
            try:
                _wait(child, folder)
            except KeyboardInterrupt:
                child.send_signal(signal.SIGINT)  # all ranks hear of it, and may save a step first
                _wait(child, folder)
                raise
            deadline = time.monotonic() + RECORD_S
            while not folder.record.exists() and folder.is_watched and time.monotonic() < deadline:
                time.sleep(POLL_S)
        finally:
            close_input(child)
            child.wait()
            redact_file(log_of(folder.path, self.rank))
        self._look_again(folder)
        return folder.read()

    def _look_again(self, folder: RunFolder) -> None:
        """Wait a moment for a record that is there already: a shared disk may tell of locks before it tells of files.

        An NFS client remembers for some seconds that a file is not there, unless it changes the folder itself.
        """
        deadline = time.monotonic() + LOOK_S
        look = folder.path / f".look.rank{self.rank}"
        while not folder.record.exists() and time.monotonic() < deadline:
            look.touch()
            look.unlink(missing_ok=True)
            time.sleep(POLL_S)

    def _meet(self, ledger: Ledger) -> Message:
        deadline = time.monotonic() + RENDEZVOUS_S
        while time.monotonic() < deadline:
            if (message := self._rendezvous(ledger).take_message(self.rank)) is not None:
                return message
            time.sleep(POLL_S)
        if self._rendezvous(ledger).is_open():
            raise LedgerError(
                f"rank {self.rank} of {self.world_size} knows of a run of rank 0 in {ledger.root}, but sees no "
                "process that watches it: rank 0 has ended, or file locks on this disk hold on one node only (NFS "
                "nolock, Lustre localflock, BeeGFS without global locks); then set LABKIT_RUNS to another disk."
            )
        raise LedgerError(
            f"rank {self.rank} of {self.world_size} has found no run of rank 0 in {ledger.root} for "
            f"{RENDEZVOUS_S:g} s; all ranks need the same LABKIT_RUNS, on a disk that all of them see."
        )

    def _rendezvous(self, ledger: Ledger) -> Rendezvous:
        return Rendezvous(ledger.root / ".launched" / self.rendezvous)


def _refuse_one_of_many(world_size: str) -> None:
    """Raise ``ConfigError`` where this is one of a Slurm step's tasks, and other variables say that it is alone.

    They come from the shell that has submitted the job. Each task would train the whole by itself, silently.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if tasks.isdecimal() and int(tasks) > 1 and "SLURM_STEP_ID" in os.environ:
        raise ConfigError(
            f"WORLD_SIZE={world_size} says that this process is alone, and it is one of {tasks} tasks of a Slurm step: "
            f"{tasks} runs of MEMBER 1/1. Call 'unset RANK WORLD_SIZE LOCAL_RANK' before srun."
        )


def _wait(child: Process, folder: RunFolder) -> None:
    """Until the child has ended, or rank 0's watcher is gone, and with it the one that could use this."""
    while child.poll() is None and folder.is_watched:
        time.sleep(POLL_S)
