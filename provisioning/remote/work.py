"""The student's work on a node, with nothing but Ubuntu's python3: the list of it, or the files themselves.

    python3 - list|archive WORKSPACE SHIPPED MOST_BYTES

``list`` prints JSON, ``archive`` writes a tar.gz to standard output. SHIPPED has a line ``SHA256  NAME`` for each file
that an upload ever brought. Work is every file except unchanged shipped files, caches, weights and data sets.
"""

import hashlib
import json
import os
import re
import stat
import sys
import tarfile
from pathlib import Path
from typing import BinaryIO

LARGEST = 5
"""Names that the list gives of each group that is left out."""
NONE = "none"
MIB = 2**20
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".distcp")
WEIGHTS_BYTES = 16 * MIB
"""A smaller one may be the result of training: an adapter, a tiny model."""
DATA = (".arrow", ".parquet", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tar", ".tgz", ".gz", ".bz2", ".xz",
        ".zst", ".zip", ".npy", ".npz", ".h5", ".hdf5", ".tfrecord")  # fmt: skip
DATA_BYTES = 64 * MIB
"""In ``data/``: a file of more, or all files of these kinds in a folder of it when they have more, is a data set."""
GROUPS = (
    ("caches", re.compile(
        r"^cache/(huggingface|torch|torch_extensions|triton|deepspeed|numba|nvidia|pip|uv|conda|matplotlib|fontconfig"
        r"|jedi|parso|black|ruff|wandb|labkit)/|^cache/fetch\.log$"
        r"|(^|/)(\.cache|\.nv|\.triton|\.npm|\.pytest_cache|\.ruff_cache|\.mypy_cache)/"
        r"|(^|/)__pycache__/[^/]*\.(pyc|nbc|nbi)[^/]*$|(^|/)\.ipynb_checkpoints/[^/]*-checkpoint[^/]*$", re.DOTALL)),
    ("installed packages", re.compile(r"(^|/)lib(64)?/python[0-9.]+/site-packages/|(^|/)node_modules/")),
    ("Jupyter's own state", re.compile(
        r"^\.home/\.local/share/jupyter/(runtime/|nbsignatures\.db|notebook_secret|file_id_manager\.db)"
        r"|^\.home/\.jupyter/lab/workspaces/|^\.home/\.ipython/profile_\w+/(db|log|pid|security|startup/README$)")),
    ("trash", re.compile(r"^\.Trash-\d+/|^\.home/\.local/share/Trash/")),
)  # fmt: skip
"""What programs make again, by its name. What a student puts next to it is work."""

Named = list[str | int]
"""A name, its bytes, and what else is known of it."""


class Work:
    """What lies below ``workspace``, sorted into what is work and what is not."""

    def __init__(self, workspace: Path, shipped: set[tuple[str, ...]], most_bytes: int) -> None:
        self.workspace, self.shipped, self.room_bytes = workspace, shipped, most_bytes
        self.files: list[Named] = []
        """Work, with its hash."""
        self.behind: list[Named] = []
        """Work that cannot be brought home: why, and when it was changed."""
        self.links: list[Named] = []
        self.others: list[str] = []
        """Sockets, pipes and devices: they hold nothing."""
        self.left_out: dict[str, list[Named]] = {}
        found = sorted(self._walk())
        self.sets: dict[str, int] = {}
        """Bytes of the kinds of DATA by folder of ``data/``."""
        for size, name, _ in found:
            if name.startswith("data/") and name.lower().endswith(DATA):
                self.sets[set_of(name)] = self.sets.get(set_of(name), 0) + size
        for size, name, changed_ns in found:  # the smallest first: a large one takes no room from others
            self._sort(name, size, changed_ns)

    def _walk(self) -> list[tuple[int, str, int]]:
        """Bytes, name and time of change of each file. Links are not followed."""
        files, waiting = [], [""]
        while waiting:
            folder = waiting.pop()
            try:
                entries = list(os.scandir(self.workspace / folder))
            except FileNotFoundError:
                continue  # deleted just now, or never made
            except OSError:
                self.behind.append([f"{folder}/", 0, "cannot be read", 0])
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        waiting.append(name)
                    elif stat.S_ISREG(info.st_mode):
                        files.append((info.st_size, name, info.st_mtime_ns))
                    elif stat.S_ISLNK(info.st_mode):
                        self.links.append([name, str(Path(entry.path).readlink())])
                    else:
                        self.others.append(name)
                except FileNotFoundError:
                    continue
                except OSError:
                    self.behind.append([name, 0, "cannot be read", 0])
        return files

    def _sort(self, name: str, size: int, changed_ns: int) -> None:
        group = self._group(name, size)
        if group:
            self.left_out.setdefault(group, []).append([name, size])
        elif size > self.room_bytes:
            self.behind.append([name, size, "too large", changed_ns])
        else:
            try:
                with opened(self.workspace / name) as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                return
            except OSError:
                self.behind.append([name, size, "cannot be read", changed_ns])
                return
            if (sha256, name) in self.shipped:
                self.left_out.setdefault("as shipped", []).append([name, size])
            else:
                self.files.append([name, size, sha256])
                self.room_bytes -= size

    def _group(self, name: str, size: int) -> str | None:
        """Why a file is left out, or None for work."""
        for group, pattern in GROUPS:
            if pattern.search(name):
                return group
        low = name.lower()
        if low.endswith(WEIGHTS) and size > WEIGHTS_BYTES:
            return "weights"
        of_a_set = low.endswith(DATA) and self.sets.get(set_of(name), 0) > DATA_BYTES
        return "data sets" if name.startswith("data/") and (size > DATA_BYTES or of_a_set) else None

    def listed(self) -> dict[str, object]:
        """All of it for JSON; the digest is of names, contents and links of the work."""
        links = sorted(link for link in self.links if self._group(str(link[0]), 0) is None)
        facts = [sorted(self.files), sorted(self.behind), links]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16] if any(facts) else NONE
        return {
            "digest": digest, "files": facts[0], "behind": [entry[:3] for entry in facts[1]], "links": links,
            "others": sorted(self.others),
            "left_out": {
                group: {
                    "files": len(entries), "bytes": sum(int(size) for _, size in entries),
                    "largest": sorted(entries, key=lambda entry: (-int(entry[1]), entry[0]))[:LARGEST],
                }
                for group, entries in sorted(self.left_out.items())
            },
        }  # fmt: skip

    def archive(self, to: BinaryIO) -> None:
        """Write the work as a tar.gz; a file that is gone meanwhile is not in it."""
        with tarfile.open(fileobj=to, mode="w|gz", format=tarfile.PAX_FORMAT) as tar:
            for name, *_ in sorted(self.files):
                try:
                    file = opened(self.workspace / str(name))
                except OSError:
                    continue
                with file:
                    info = os.fstat(file.fileno())
                    member = tarfile.TarInfo(str(name))
                    member.size, member.mtime = info.st_size, int(info.st_mtime)
                    member.mode = 0o755 if info.st_mode & stat.S_IXUSR else 0o644
                    tar.addfile(member, Filled(file))  # type: ignore[arg-type]


class Filled:
    """A file that has as many bytes as its header in the archive promises, even if it shrinks meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        """As many bytes as were asked for."""
        return self.file.read(size).ljust(size, b"\0")


def set_of(name: str) -> str:
    """The data set that a file of ``data/`` would be of: a folder in it, or ``data`` itself."""
    return "/".join(name.split("/")[:2]) if name.count("/") > 1 else "data"


def opened(path: Path) -> BinaryIO:
    """The file itself; a link or a pipe that has just taken its place is neither followed nor waited for."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def main(what: str, workspace: str, record: str, most_bytes: str) -> None:
    """Print the list, or write the archive."""
    lines = Path(record).read_text("utf-8", "surrogateescape").split("\n") if Path(record).exists() else []
    work = Work(Path(workspace), {tuple(line.split("  ", 1)) for line in lines}, int(most_bytes))
    if what == "list":
        print(json.dumps(work.listed()))
    else:
        work.archive(sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
