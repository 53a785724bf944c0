"""Find the training processes of a run."""

from pathlib import Path

from labkit.runs.ranks.files import events_of

RANKS = 8
"""More than any test has."""


def trainers(folder: Path) -> dict[int, int]:
    """The training process of each rank of a run by rank, without loader workers, which are their children.

    Which rank it is tells the file of events that it writes: the environment in /proc is the one of a process's start,
    and a rank that was forked got its own later.
    """
    found: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            files = {str(file.readlink()) for file in (entry / "fd").iterdir()}
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if str(folder).encode() in line and b"labkit.train.fit" in line:
            for rank in range(RANKS):
                if str(events_of(folder, rank)) in files:
                    found[int(entry.name)] = parent, rank
    return {rank: pid for pid, (parent, rank) in found.items() if parent not in found}
