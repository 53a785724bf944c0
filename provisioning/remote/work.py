"""The student's work on a node, with nothing but Ubuntu's python3: what there is, or the files themselves.

    python3 - list|archive WORKSPACE SHIPPED MOST_BYTES

``list`` prints JSON, ``archive`` writes a tar.gz to standard output. SHIPPED has a line ``SHA256  NAME`` for each file
that an upload ever brought. Work is every file but those as they were shipped, caches, weights and data sets.
"""

import hashlib
import json
import os
import re
import stat
import sys
import tarfile

LARGEST = 5
"""Names that the list gives of each group that is left out."""
NONE = "none"
MIB = 2**20
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".distcp")
WEIGHTS_BYTES = 16 * MIB
"""A smaller one may be all that was trained: an adapter, a tiny model."""
DATA = (".arrow", ".parquet", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tar", ".tgz", ".gz", ".bz2", ".xz",
        ".zst", ".zip", ".npy", ".npz", ".h5", ".hdf5", ".tfrecord")  # fmt: skip
DATA_BYTES = 64 * MIB
"""In ``data/``: what a file, or the files of these kinds in one folder of it, have more than, is a data set."""
GROUPS = (
    ("caches", re.compile(
        r"^cache/(huggingface|torch|torch_extensions|triton|pip|uv|matplotlib|fontconfig|labkit)/|^cache/fetch\.log$"
        r"|(^|/)(\.cache|\.nv|\.triton|\.npm|\.pytest_cache|\.ruff_cache|\.mypy_cache)/"
        r"|(^|/)__pycache__/[^/]*\.(pyc|nbc|nbi)[^/]*$|(^|/)\.ipynb_checkpoints/[^/]*-checkpoint[^/]*$", re.DOTALL)),
    ("installed packages", re.compile(r"(^|/)lib(64)?/python[0-9.]+/site-packages/|(^|/)node_modules/")),
    ("Jupyter's own state", re.compile(
        r"^\.home/\.local/share/jupyter/(runtime/|nbsignatures\.db|notebook_secret|file_id_manager\.db)"
        r"|^\.home/\.jupyter/lab/workspaces/|^\.home/\.ipython/profile_\w+/(db|log|pid|security|startup/README$)")),
    ("trash", re.compile(r"^\.Trash-\d+/|^\.home/\.local/share/Trash/")),
)  # fmt: skip
"""What programs make again, by its name. What a student puts beside it is work."""


def look(workspace):
    """All there is below ``workspace``: files (name, bytes, mtime in ns), links (name, target), names of what can be
    neither kept nor lost (sockets, pipes, devices), and names that cannot be read."""
    files, links, others, unread = [], [], [], []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(os.path.join(workspace, folder)))
        except FileNotFoundError:
            continue  # deleted just now
        except OSError:
            unread.append(folder + "/")
            continue
        for entry in entries:
            name = os.path.join(folder, entry.name)
            try:
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    waiting.append(name)
                elif stat.S_ISLNK(info.st_mode):
                    links.append((name, os.readlink(entry.path)))
                elif stat.S_ISREG(info.st_mode):
                    files.append((name, info.st_size, info.st_mtime_ns))
                else:
                    others.append(name)
            except FileNotFoundError:
                pass
            except OSError:
                unread.append(name)
    return sorted(files), sorted(links), sorted(others), sorted(unread)


def set_of(name):
    """The data set that a file of ``data/`` would be of: the folder in it."""
    return "/".join(name.split("/")[:2]) if name.count("/") > 1 else "data"


def group_of(name, size, sets=None):
    """Why a file is left out, or None. ``sets``: bytes of the kinds of DATA by folder of ``data/``."""
    for group, pattern in GROUPS:
        if pattern.search(name):
            return group
    low = name.lower()
    if low.endswith(WEIGHTS) and size > WEIGHTS_BYTES:
        return "weights"
    if name.startswith("data/") and (size > DATA_BYTES or low.endswith(DATA) and (sets or {})[set_of(name)] > DATA_BYTES):
        return "data sets"
    return None


def opened(workspace, name):
    """The file, not followed where a link took its place just now, and no wait for a pipe's other end."""
    return open(os.open(os.path.join(workspace, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def sha256(workspace, name):
    """The hash of a file."""
    found = hashlib.sha256()
    with opened(workspace, name) as file:
        for block in iter(lambda: file.read(MIB), b""):
            found.update(block)
    return found.hexdigest()


def shipped(record):
    """What uploads brought: pairs of hash and name."""
    try:
        with open(record, encoding="utf-8", errors="surrogateescape") as lines:
            return {tuple(line.rstrip("\n").split("  ", 1)) for line in lines}
    except FileNotFoundError:
        return set()


def listed(workspace, record, most_bytes):
    """What is work, what of it cannot be brought home and why, and what is left out."""
    files, links, others, unread = look(workspace) if os.path.isdir(workspace) else ([], [], [], [])
    sets, left_out, work = {}, {}, []
    for name, size, _ in files:
        if name.startswith("data/") and name.lower().endswith(DATA):
            sets[set_of(name)] = sets.get(set_of(name), 0) + size

    def leave(group, name, size):
        left_out.setdefault(group, []).append([name, size])

    behind = [[name, 0, "cannot be read", ""] for name in unread]
    as_shipped, total = shipped(record), 0
    for size, name, mtime in sorted((size, name, mtime) for name, size, mtime in files):
        group = group_of(name, size, sets)
        if group:
            leave(group, name, size)
        elif total + size > most_bytes:
            behind.append([name, size, "too large", str(mtime)])
        else:
            try:
                found = sha256(workspace, name)
            except FileNotFoundError:
                continue
            except OSError:
                behind.append([name, size, "cannot be read", str(mtime)])
                continue
            if (found, name) in as_shipped:
                leave("as shipped", name, size)
            else:
                work.append([name, size, found])
                total += size
    kept_links = []
    for name, target in links:
        group = group_of(name, 0, sets)
        leave(group, name, 0) if group else kept_links.append([name, target])
    facts = [sorted(work), sorted(behind), kept_links]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16] if any(facts) else NONE
    return {
        "digest": digest, "files": sorted(work), "links": kept_links, "others": others,
        "behind": [entry[:3] for entry in sorted(behind)],
        "left_out": {group: summed(entries) for group, entries in sorted(left_out.items())},
    }  # fmt: skip


def summed(entries):
    """Number, bytes and the largest of a group."""
    largest = sorted(entries, key=lambda entry: (-entry[1], entry[0]))[:LARGEST]
    return {"files": len(entries), "bytes": sum(size for _, size in entries), "largest": largest}


def archive(workspace, names, to):
    """Write these files as a tar.gz. One that shrinks meanwhile is filled up, one that is gone is not in it."""
    with tarfile.open(fileobj=to, mode="w|gz", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            try:
                file = opened(workspace, name)
            except OSError:
                continue
            with file:
                info = os.fstat(file.fileno())
                member = tarfile.TarInfo(name)
                member.size, member.mtime = info.st_size, int(info.st_mtime)
                member.mode = 0o755 if info.st_mode & 0o100 else 0o644
                tar.addfile(member, Filled(file))


class Filled:
    """A file that always has as many bytes as were asked for, as its header in the archive promises."""

    def __init__(self, file):
        self.file = file

    def read(self, size):
        return self.file.read(size).ljust(size, b"\0")


def main(what, workspace, record, most_bytes):
    """Print the list, or write the archive."""
    found = listed(workspace, record, int(most_bytes))
    if what == "list":
        print(json.dumps(found))
    else:
        archive(workspace, [name for name, *_ in found["files"]], sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
