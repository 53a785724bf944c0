"""Submit: a student's ledger, answers and notebooks as one archive, without secrets, data and weights."""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from labkit.config.workspace import Workspace
from labkit.grading.archive import (
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
from labkit.grading.notebook import fault
from labkit.grading.redaction import Redaction
from labkit.ledger.ledger import Ledger

NOTEBOOK_NAME_BYTES = 90
"""A header of a tar file has room for 100."""
OF_A_RUN = ("config.json", "record.json", "events.jsonl", "log.txt")


@dataclass(kw_only=True)
class Gathered:
    """What is handed in, by the name it gets; and what the student should know of it, a line each."""

    members: dict[str, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """What is not in it, and why."""
    redacted: list[str] = field(default_factory=list)
    """Where a secret was taken out, and of what kind."""
    unread: list[str] = field(default_factory=list)
    """Notebooks that are in it and cannot be read, and why."""

    def lines(self) -> list[str]:
        """All of it for a person."""
        return [
            *(f"left out {line}" for line in self.left_out),
            *(f"not readable, so not counted: {line}; save it and pack again" for line in self.unread),
            *(f"redacted in the archive, your own file is untouched: {line}" for line in self.redacted),
        ]


def submit(workspace: Workspace, name: str, to: Path | None = None) -> tuple[Path, Gathered]:
    """Write the submission of ``name``: its path, and what is in it.

    Without ``to`` it lies in the workspace and is called after the student. A file that is there is kept: the time
    becomes part of the new one's name. Raises ``ArchiveError`` where there is nothing to hand in or no room for it.
    """
    name = read_name(name)
    found = gather(workspace)
    path = free_path(to or workspace.home / file_name(name))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if to is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            write_archive(file, name, found.members, found.left_out)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be written: {error.strerror}. Choose another place with --output.") from None
    finally:
        with suppress(OSError):
            partial.unlink()
    return path, found


def submit_to(workspace: Workspace, name: str, out: BinaryIO) -> Gathered:
    """Write the submission into an open file or pipe."""
    name = read_name(name)
    found = gather(workspace)
    write_archive(out, name, found.members, found.left_out)
    out.flush()
    return found


def gather(workspace: Workspace) -> Gathered:
    """What is handed in.

    Of every run the config, events, record and the end of its log; the answers; the notebooks as they are on disk.
    Secrets are taken out. Links are not followed.
    """
    redaction = Redaction()
    found = Gathered()
    total = texts = 0
    for member, path in _files(workspace, redaction):
        if not is_member(member):
            found.left_out.append(f"{redaction.text(member)!a}: a name that a submission cannot have")
            continue
        try:
            data = _read(path, member, redaction)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            found.left_out.append(f"{member}: {why}")
            continue
        total += len(data)
        texts += len(data) * is_text(member)
        if total > TOTAL_BYTES // 2 or texts > TEXT_BYTES // 2:
            total, texts = total - len(data), texts - len(data) * is_text(member)
            found.left_out.append(f"{member}: the submission has no room for its {len(data) / MIB:.1f} MiB")
            continue
        found.members[member] = data
        if member.endswith(".ipynb") and (why := fault(data)):
            found.unread.append(f"{member}: {why}")
    if not any(member.startswith("runs/") or member == ANSWERS for member in found.members):
        raise ArchiveError(
            f"there is nothing to hand in: no run and no answer in {workspace.runs}. Do a lab first, or set "
            "LABKIT_RUNS to the ledger."
        )
    redaction.again(found.members)
    found.redacted = redaction.said()
    return found


def notebook_folder(workspace: Workspace) -> Path:
    """Where the notebooks lie: in the workspace, as in the container, or beside it, as in the checkout."""
    inside = workspace.root / "labs"
    return inside if inside.is_dir() else workspace.root.parent / "labs"


def _files(workspace: Workspace, redaction: Redaction) -> Iterator[tuple[str, Path]]:
    """Names and places, what matters most first."""
    yield ANSWERS, workspace.runs / ANSWERS
    folders = Ledger(workspace.runs).folders()
    for kind in OF_A_RUN:
        for folder in folders:
            if not folder.path.is_symlink():
                yield f"runs/{'/'.join(folder.path.parts[-3:])}/{kind}", folder.path / kind
        if kind == OF_A_RUN[-2]:  # logs come after the notebooks
            taken: set[str] = set()
            for path in sorted(notebook_folder(workspace).glob("[!.]*.ipynb")):
                yield f"labs/{_notebook_name(redaction.text(path.stem), taken)}", path


def _notebook_name(stem: str, taken: set[str]) -> str:
    """What a notebook is called in the archive: as in the student's folder, except for characters that no archive
    should have."""
    plain = re.sub(r"[^\w .,=()+@-]|^\W", "_", unicodedata.normalize("NFC", stem)) or "_"

    def ending(end: str) -> str:
        return plain.encode("utf-8", "replace")[: NOTEBOOK_NAME_BYTES - len(end)].decode("utf-8", "ignore") + end

    ends = itertools.chain([".ipynb"], (f" {number}.ipynb" for number in itertools.count(2)))
    name = next(name for name in map(ending, ends) if name.casefold() not in taken)
    taken.add(name.casefold())
    return name


def _read(path: Path, member: str, redaction: Redaction) -> bytes:
    """A file without secrets; ``ValueError`` for a link or one that is too large. Of a log the end."""
    with open_plain(path) as file:
        size, most = os.fstat(file.fileno()).st_size, most_bytes(member)
        if member.endswith(".txt"):
            file.seek(max(0, size - 2 * most))
            data = file.read(2 * most)
            if size > 2 * most:  # half a line may be half a secret
                data = data[data.find(b"\n") + 1 :]
            return redaction.clean(data, member)[-most:]
        # a file of the size that it says it has need not be read to know it is too large
        data = file.read(most + 1) if size <= most else b""
    if size <= most >= len(data):
        data = redaction.clean(data, member)
    if max(size, len(data)) > most:
        hint = "; clear the outputs of its largest cells" if member.endswith(".ipynb") else ""
        raise ValueError(f"it has {max(size, len(data)) / MIB:.1f} MiB, and {most / MIB:g} are taken{hint}")
    return data


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
