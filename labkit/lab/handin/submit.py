"""Submit: a student's ledger, answers and notebooks as one archive, without secrets, data and weights."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from labkit.config.secrets import redact
from labkit.config.workspace import Workspace
from labkit.lab.handin.archive import (
    ANSWERS,
    MIB,
    SUFFIXES,
    TEXT_BYTES,
    TOTAL_BYTES,
    ArchiveError,
    is_member,
    is_text,
    most_bytes,
    open_plain,
    read_name,
    write_archive,
)
from labkit.runs.records import Ledger

OF_A_RUN = ("config.json", "record.json", "events.jsonl", "log.txt")


def submit(workspace: Workspace, name: str, to: Path | None = None) -> tuple[Path, int, list[str]]:
    """Write the submission of ``name``: its path, how many members it has, and what was left out and why.

    Without ``to`` it lies in the workspace and is called after the student. A file that is there is kept: the time
    becomes part of the new one's name. Raises ``ArchiveError`` where there is nothing to hand in or no room for it.
    """
    name = read_name(name)
    members, left_out = gather(workspace)
    path = free_path(to or workspace.root / file_name(name))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            write_archive(file, name, members, left_out)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be written: {error.strerror}. Choose another place with --output.") from None
    finally:
        with suppress(OSError):
            partial.unlink()
    return path, len(members), left_out


def submit_to(workspace: Workspace, name: str, out: BinaryIO) -> None:
    """Write the submission into an open file or pipe."""
    name = read_name(name)
    write_archive(out, name, *gather(workspace))
    out.flush()


def gather(workspace: Workspace) -> tuple[dict[str, bytes], list[str]]:
    """What is handed in, by the name it gets, and what is left out, each with the reason.

    Of every run the config, events, record and the end of its log; the answers; the notebooks as they are on disk.
    Secrets are taken out. Links are not followed.
    """
    members: dict[str, bytes] = {}
    left_out: list[str] = []
    total = texts = 0
    for member, path in _files(workspace):
        if not is_member(member):
            left_out.append(f"{member!a}: a name that a submission cannot have")
            continue
        try:
            data = _read(path, member)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            left_out.append(f"{member}: {why}")
            continue
        total += len(data)
        texts += len(data) * is_text(member)
        if total > TOTAL_BYTES // 2 or texts > TEXT_BYTES // 2:
            total, texts = total - len(data), texts - len(data) * is_text(member)
            left_out.append(f"{member}: the submission has no room for its {len(data) / MIB:.1f} MiB")
            continue
        members[member] = data
    if not any(member.startswith("runs/") or member == ANSWERS for member in members):
        raise ArchiveError(
            f"there is nothing to hand in: no run and no answer in {workspace.runs}. Do a lab first, or set "
            "LABKIT_RUNS to the ledger."
        )
    return members, left_out


def notebook_folder(workspace: Workspace) -> Path:
    """Where the notebooks lie: in the workspace, as in the container, or beside it, as in the checkout."""
    inside = workspace.root / "labs"
    return inside if inside.is_dir() else workspace.root.parent / "labs"


def _files(workspace: Workspace) -> Iterator[tuple[str, Path]]:
    """Names and places, what matters most first."""
    yield ANSWERS, workspace.runs / ANSWERS
    folders = Ledger(workspace.runs).folders()
    for kind in OF_A_RUN:
        for folder in folders:
            if not folder.path.is_symlink():
                yield f"runs/{'/'.join(folder.path.parts[-3:])}/{kind}", folder.path / kind
        if kind == OF_A_RUN[-2]:  # logs come behind the notebooks
            for path in sorted(notebook_folder(workspace).glob("[!.]*.ipynb")):
                yield f"labs/{path.name}", path


def _read(path: Path, member: str) -> bytes:
    """A file without secrets; ``ValueError`` for a link or one that is too large. Of a log the end."""
    with open_plain(path) as file:
        size, most = os.fstat(file.fileno()).st_size, most_bytes(member)
        if member.endswith(".txt"):
            file.seek(max(0, size - 2 * most))
            return _clean_text(file.read(2 * most))[-most:]
        data = file.read(most + 1)
    if len(data) <= most:
        data = _clean(data, member)
    if len(data) > most:
        raise ValueError(f"it has {size / MIB:.1f} MiB, and {most / MIB:g} are taken")
    return data


def _clean(data: bytes, member: str) -> bytes:
    """The same bytes where there is no secret in them: what a record was made from stays as it was written."""
    if member.endswith(".jsonl"):
        return b"".join(_clean_json(line, None) for line in data.splitlines(keepends=True))
    return _clean_json(data, 1)


def _clean_json(data: bytes, indent: int | None) -> bytes:
    """JSON is read first: a secret may have characters that JSON writes otherwise, and must leave JSON behind."""
    try:
        found = json.loads(data)
        clean = redact(found)
    except (ValueError, RecursionError):
        return _clean_text(data)
    if clean == found:
        return data
    return json.dumps(clean, indent=indent).encode() + (b"\n" if data.endswith(b"\n") else b"")


def _clean_text(data: bytes) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    return redact(text).encode("utf-8", "surrogateescape")


def file_name(name: str) -> str:
    """What the archive of a student is called."""
    return f"submission-{re.sub(r'[^a-zA-Z0-9_.-]+', '-', name).strip('.-') or 'student'}{SUFFIXES[0]}"


def free_path(path: Path) -> Path:
    """The path, or one with the time in its name when there is a file."""
    if not os.path.lexists(path):
        return path
    end = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), path.suffix)
    stem = f"{path.name.removesuffix(end)}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    names = itertools.chain([f"{stem}{end}"], (f"{stem}-{n}{end}" for n in itertools.count(2)))
    return next(found for name in names if not os.path.lexists(found := path.with_name(name)))
