"""Find the training processes of a run."""

from pathlib import Path


def trainers(folder: Path) -> dict[int, int]:
    """The training process of each rank of a run, without its loader workers, which are younger."""
    found: dict[int, int] = {}
    for entry in sorted((e for e in Path("/proc").iterdir() if e.name.isdigit()), key=lambda e: -int(e.name)):
        try:
            line, names = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in line and b"labkit.train.fit" in line:
            found |= {int(name.removeprefix(b"RANK=")): int(entry.name) for name in names if name.startswith(b"RANK=")}
    return found
