"""Unpacked: submissions that are no .tar.gz any more: a folder that a browser has made of one, or a .zip of that.

The names and sizes that an archive may have are those that these may have. What systems leave in folders is passed by.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from labkit.grading.archive import (
    MANIFEST,
    MEMBERS,
    MIB,
    TOTAL_BYTES,
    ArchiveError,
    Submission,
    check_member,
    most_bytes,
    open_plain,
    read_archive,
    read_members,
    size_of,
)
from labkit.grading.archive import SUFFIXES as ARCHIVES

SUFFIXES = (*ARCHIVES, ".zip")

_LEFT_BY_SYSTEMS = ("__MACOSX", "desktop.ini", "Thumbs.db")
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


def read_submission(path: Path) -> Submission:
    """Read a submission in any form. ``ArchiveError`` names what is wrong with it; nothing is written anywhere."""
    if path.is_dir() and not path.is_symlink():
        return read_members(_counted(_of_folder(path)))
    if not path.name.endswith(".zip"):
        return read_archive(path)
    try:
        file = open_plain(path)
    except (OSError, ValueError) as error:
        raise ArchiveError(f"it cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    with file:
        size_of(file)
        return read_members(_counted(_of_zip(file)))


def _counted(members: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    total = 0
    for count, (name, data) in enumerate(members):
        total += len(data)
        if count >= MEMBERS:
            raise ArchiveError(f"it has more than {MEMBERS} members")
        if total > TOTAL_BYTES:
            raise ArchiveError(f"it has more than the {TOTAL_BYTES // MIB} MiB that it may have")
        yield name, data


def _of_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not _is_left(name))
        for name in sorted(name for name in files if not _is_left(name)):
            file = Path(folder) / name
            member = file.relative_to(path).as_posix()
            try:
                opened = open_plain(file)
            except ValueError as error:
                raise ArchiveError(f"{member[:80]!r}: {error}") from None
            with opened:
                check_member(member, os.fstat(opened.fileno()).st_size)
                data = opened.read(most_bytes(member) + 1)
            check_member(member, len(data))  # it may have grown
            yield member, data


def _of_zip(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(file) as packed:
            infos = [one for one in packed.infolist() if not one.is_dir() and not _is_left(*one.filename.split("/"))]
            top = _top([one.filename for one in infos])
            for info in infos:
                if not info.filename.startswith(top):
                    raise ArchiveError(f"{info.filename[:80]!r} does not belong into a submission")
                name = info.filename.removeprefix(top)
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise ArchiveError(f"{name[:80]!r} is a link")
                if info.flag_bits & _ENCRYPTED or info.compress_type not in _PACKINGS:
                    raise ArchiveError(f"{name[:80]!r} is encrypted, or packed in a way that is not read")
                check_member(name, info.file_size)
                with packed.open(info) as member:
                    data = member.read(most_bytes(name) + 1)
                check_member(name, len(data))  # what it announced is only its word
                yield name, data
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError("it is damaged, or no .zip") from None


def _top(names: list[str]) -> str:
    """The folder in a .zip that has the manifest: none, or one that was packed with what is in it."""
    found = [name.removesuffix(MANIFEST) for name in names if name == MANIFEST or name.endswith(f"/{MANIFEST}")]
    if any(name.endswith(ARCHIVES) for name in names) and not found:
        raise ArchiveError("it holds archives; unpack it, and grade the folder")
    tops = [top for top in found if top.count("/") <= 1]
    if len(tops) != 1:
        raise ArchiveError(f"it has no {MANIFEST}, or several; 'labkit submit' writes one")
    return tops[0]


def _is_left(*parts: str) -> bool:
    return any((part.startswith(".") and part != "..") or part in _LEFT_BY_SYSTEMS for part in parts)
