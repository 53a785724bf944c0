"""Find the training processes of a run."""

from pathlib import Path

from labkit.runs.processes import processes_of
from labkit.runs.ranks.files import events_of

RANKS = 8
"""More than any test has."""


def trainers(folder: Path) -> dict[int, int]:
    """The training process of each rank of a run by rank, without loader workers, which are their children.

    Which rank it is tells the file of events that it writes: the environment in /proc is the one of a process's start,
    and a rank that was forked got its own later.
    """
    found: dict[int, tuple[int, int]] = {}
    for pid in processes_of(folder, "labkit.train.fit"):
        entry = Path("/proc") / str(pid)
        try:
            files = {str(file.readlink()) for file in (entry / "fd").iterdir()}
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        for rank in range(RANKS):
            if str(events_of(folder, rank)) in files:
                found[pid] = parent, rank
    return {rank: pid for pid, (parent, rank) in found.items() if parent not in found}
