"""The project as one archive, for a node to build the image from."""

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKS = ("tests/benchmarks/gpu_check.py", "tests/benchmarks/first_contact.py")
"""The checks that are run on a node to see whether its GPU is as labkit expects."""
PARTS = ("README.md", "LICENSE", "pyproject.toml", "requirements.txt", "labkit", "workspace", "labs", "docker", *CHECKS)
LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", "build"}
STUDENTS = {"workspace/runs", "workspace/data", "workspace/results"}
"""A student's, or large. By their full names: labkit has a room called runs."""
SUBMISSIONS = "workspace/submission-"
"""How the archives begin that ``labkit submit`` writes."""


def archive(root: Path | None = None) -> tuple[bytes, str]:
    """The archive (tar.gz) of ``root``, of LABKIT_PROJECT or of this project, and its digest.

    Same files, same bytes: no times, owners or runs are in it.
    """
    root = root or Path(os.environ.get("LABKIT_PROJECT") or ROOT)
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for part in PARTS:
            if (root / part).exists():
                tar.add(root / part, part, filter=_bare)
    data = stream.getvalue()
    return data, hashlib.sha256(data).hexdigest()[:12]


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = Path(member.name)
    if LEFT_OUT & set(path.parts) or member.name in STUDENTS or path.suffix in {".pyc", ".egg-info"}:
        return None
    if member.name.startswith(SUBMISSIONS):
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
