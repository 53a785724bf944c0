"""Find the training processes of a run."""

from pathlib import Path


def trainers(folder: Path) -> dict[int, int]:
    """The training process of each rank of a run by rank, without loader workers, which are their children."""
    found: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line, names = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if str(folder).encode() in line and b"labkit.train.fit" in line:
            rank = next(int(name.removeprefix(b"RANK=")) for name in names if name.startswith(b"RANK="))
            found[int(entry.name)] = parent, rank
    return {rank: pid for pid, (parent, rank) in found.items() if parent not in found}
