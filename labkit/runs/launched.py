"""Launched: ranks that somebody else has started, ``torchrun`` say, each as a ``labkit run`` of its own.

Rank 0 makes the run's folder, watches its own process and writes the record. It leaves word of the folder in the
ledger, which all ranks must share; each of the others finds it there and watches a process of its own. So whoever
starts the ranks has only to set ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR`` and ``MASTER_PORT``;
Slurm's ``srun`` says the same in its own words.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig
from labkit.config.secrets import child_environment, redact_file
from labkit.runs.rank_files import log_of
from labkit.runs.records import Ledger, LedgerError, Record, RunFolder, write_whole

POLL_S = 0.1
MEETING_S = 120.0
"""How long a rank looks for the folder that rank 0 makes."""

RECORD_S = 120.0
"""How long a rank whose own part is over waits for the record, so that no launcher ends rank 0 before it is written."""


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
    meeting: str
    """A name that the ranks of one launch have in common."""
    by_slurm: bool = False
    """Whether they are tasks of ``srun``."""

    @classmethod
    def find(cls) -> "Launched | None":
        """What a launcher has said in the environment; None where there is none, or it has started one process."""
        for by_slurm, (names, place, meets) in ((False, _TORCH), (True, _SLURM)):
            said = [os.environ.get(name, "") for name in names]
            if all(number.isdecimal() for number in said) and all(name in os.environ for name in place):
                if int(said[1]) < 2:
                    return None
                meeting = "-".join(os.environ.get(name, "") for name in meets)
                clean = "".join(c if c.isalnum() or c in "-." else "_" for c in meeting)
                return cls(rank=int(said[0]), world_size=int(said[1]), meeting=clean, by_slurm=by_slurm)
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

    def leave_word(self, ledger: Ledger, folder: RunFolder) -> None:
        """As rank 0: say where the run is."""
        path = self._word(ledger)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, {"folder": str(folder.path)})

    def follow(self, ledger: Ledger, arguments: list[str]) -> Record:
        """As another rank: carry this rank's part out; the record, when rank 0 has written it.

        Raises ``LedgerError`` when no rank 0 makes a folder in time.
        """
        folder = self._meet(ledger)
        with log_of(folder.path, self.rank).open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "labkit.runs.ranks", str(folder.path), *arguments], stdin=subprocess.PIPE,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=child_environment(),
            )  # fmt: skip
        try:
            while child.poll() is None:
                time.sleep(POLL_S)
                if not folder.is_watched:  # rank 0's watcher is gone, and with it whoever could use this
                    break
            deadline = time.monotonic() + RECORD_S
            while not folder.record.exists() and folder.is_watched and time.monotonic() < deadline:
                time.sleep(POLL_S)
        finally:
            child.stdin.close()  # which ends it and all it has started
            child.wait()
            redact_file(log_of(folder.path, self.rank))
        return folder.read()

    def _meet(self, ledger: Ledger) -> RunFolder:
        deadline = time.monotonic() + MEETING_S
        while time.monotonic() < deadline:
            try:
                folder = RunFolder(Path(json.loads(self._word(ledger).read_text(encoding="utf-8"))["folder"]))
                # one of an earlier launch is not watched any more
                if folder.is_watched and not folder.record.exists() and not log_of(folder.path, self.rank).exists():
                    return folder
            except (OSError, ValueError, KeyError, TypeError):  # not there yet
                pass
            time.sleep(POLL_S)
        raise LedgerError(
            f"rank {self.rank} of {self.world_size} has found no run of rank 0 in {ledger.root} for {MEETING_S:g} s; "
            "all ranks need the same LABKIT_RUNS, on a disk that all of them see."
        )

    def _word(self, ledger: Ledger) -> Path:
        return ledger.root / ".launched" / f"{self.meeting}.json"
