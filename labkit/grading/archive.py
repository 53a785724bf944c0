"""Archive: one submission as a .tar.gz file, written whole, and read as untrusted input.

A .tar.gz is one stream that is read from its start: there is no second list of names that may say something else, as
a .zip has, and it comes through a pipe. Of the tar format only plain files with plain headers are taken, so that no
header asks for memory, and nothing is ever extracted: what is read stays in memory, under limits. Some browsers take
the .gz away as they save a file; such a .tar is read too.
"""

import gzip
import hashlib
import io
import json
import os
import re
import stat
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from labkit.config.errors import ConfigError
from labkit.config.versions import version_of
from labkit.grading.notebook import fault

FORMAT = 1
MANIFEST, ANSWERS = "manifest.json", "answers.jsonl"
SUFFIXES = (".tar.gz", ".tgz", ".tar")

MIB = 2**20
LARGEST_BYTES = 64 * MIB
"""What an archive may have; one of the whole course has about one MiB."""
TOTAL_BYTES = 128 * MIB
"""What all members may have together."""
TEXT_BYTES = 32 * MIB
"""What the members that grading reads may have together; those of the course have 2 MiB."""
RATIO = 200
"""How many times its own size an archive may unpack to, beyond the first MiB; JSON and logs reach 40."""
MEMBERS = 10_000
MEMBER_BYTES = {
    MANIFEST: 4 * MIB, ANSWERS: 4 * MIB, "config.json": MIB, "record.json": 4 * MIB, "events.jsonl": 8 * MIB,
    "log.txt": MIB // 4, ".ipynb": 16 * MIB,
}  # fmt: skip
"""What a member may have, by the end of its name."""
NAME_LENGTH = 60

_PART = r"\w[\w .,=()+@-]{0,99}"
_NAMES = re.compile(
    rf"{MANIFEST}|{ANSWERS}|labs/{_PART}\.ipynb|runs/{_PART}/{_PART}/{_PART}/(config\.json|record\.json|events\.jsonl|log\.txt)"
)
_BLOCK = 512
_NUMBER_TOO_LONG = re.compile(rb"[:\[,]\s*-?\d{24}")
_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))


class ArchiveError(ConfigError):
    """An archive that cannot be written, or that is not read; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What one archive holds. ``texts`` has the members that grading reads; of notebooks only
    whether they can be read.

    ``sha256`` is each member's digest as it was found, ``listed`` as the manifest has it. ``faults`` names files that
    should be notebooks and are not, with the reason.
    """

    name: str
    created: datetime
    labkit: str
    texts: dict[str, bytes]
    sha256: dict[str, str]
    listed: dict[str, str]
    left_out: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def notebooks(self) -> list[str]:
        """Names of the notebooks that can be read."""
        return sorted(name for name in self.sha256 if name.endswith(".ipynb") and name not in self.faults)


def is_member(name: str) -> bool:
    """Whether a submission may have a member of this name."""
    if not _NAMES.fullmatch(name):
        return False
    try:
        tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:  # a header has no room for it
        return False
    return True


def is_text(name: str) -> bool:
    """Whether grading reads this member; notebooks and logs are only counted."""
    return not name.endswith((".ipynb", ".txt"))


def most_bytes(name: str) -> int:
    """What a member of this name may have."""
    return next(size for end, size in MEMBER_BYTES.items() if name.endswith(end))


def read_name(name: str, key: str = "--name") -> str:
    """A student's name as it is kept. ``ArchiveError`` for one that is empty, too long or cannot be printed."""
    found = unicodedata.normalize("NFKC", " ".join(name.split()))
    if not 0 < len(found) <= NAME_LENGTH or not found.isprintable():
        raise ArchiveError(f"{key}={name[:200]!r} is no name: 1 to {NAME_LENGTH} characters that can be printed.")
    return found


def write_archive(out: BinaryIO, name: str, members: Mapping[str, bytes], left_out: list[str]) -> None:
    """Write one submission to an open file or pipe: the manifest first, so that a cut is seen."""
    manifest = {
        "format": FORMAT, "labkit": version_of("labkit"), "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "members": {member: hashlib.sha256(data).hexdigest() for member, data in members.items()},
        "left_out": left_out,
    }  # fmt: skip
    with (
        gzip.GzipFile("", "wb", 6, out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for member, data in {MANIFEST: json.dumps(manifest, indent=1).encode(), **members}.items():
            header = tarfile.TarInfo(member)
            header.size, header.mode = len(data), 0o644
            tar.addfile(header, io.BytesIO(data))


def read_archive(path: Path) -> Submission:
    """Read one submission. ``ArchiveError`` names what is wrong with it; nothing is written anywhere."""
    try:
        file = open_plain(path)
    except (OSError, ValueError) as error:
        raise ArchiveError(f"it cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    with file:
        packed_bytes = size_of(file)
        plain = path.name.endswith(".tar")
        return read_members(_members(_Plain(file) if plain else _Inflated(file, packed_bytes)))


def size_of(file: BinaryIO) -> int:
    """The bytes of an archive; ``ArchiveError`` for more than it may have."""
    packed_bytes = os.fstat(file.fileno()).st_size
    if packed_bytes > LARGEST_BYTES:
        raise ArchiveError(f"it has {packed_bytes / MIB:.0f} MiB, above the {LARGEST_BYTES // MIB} it may have")
    return packed_bytes


def read_members(members: Iterable[tuple[str, bytes]]) -> Submission:
    """A submission from its members, each with a name that ``check_member`` has passed."""
    texts, sha256, faults, text_bytes = {}, {}, {}, 0
    try:
        for name, data in members:
            if name in sha256:
                raise ArchiveError(f"{name} is in it twice")
            sha256[name] = hashlib.sha256(data).hexdigest()
            if name.endswith(".ipynb") and (why := fault(data)):
                faults[name] = why
            if is_text(name):
                texts[name], text_bytes = data, text_bytes + len(data)
                if text_bytes > TEXT_BYTES:
                    raise ArchiveError(f"its runs and answers have more than {TEXT_BYTES // MIB} MiB")
    except _CutError as error:
        raise ArchiveError(f"{error}{_of_how_many(texts, sha256)}") from None
    except OSError as error:
        raise ArchiveError(f"it cannot be read: {error.strerror}") from None
    if MANIFEST not in texts:
        raise ArchiveError(f"it has no {MANIFEST}; 'labkit submit' writes one")
    sha256.pop(MANIFEST)
    return _submission(texts, sha256, faults)


def check_member(name: str, size_bytes: int) -> None:
    """``ArchiveError`` for a member that a submission does not have, or for one that is too large."""
    if not is_member(name):
        raise ArchiveError(f"{name[:80]!r} does not belong into a submission")
    if not 0 <= size_bytes <= most_bytes(name):
        raise ArchiveError(f"{name} has {size_bytes} bytes, above the {most_bytes(name)} it may have")


def open_plain(path: Path) -> BinaryIO:
    """Open a file to read; ``ValueError`` for a link, a pipe or a folder. Raises ``OSError`` where it is not there."""
    if path.is_symlink():
        raise ValueError("it is a link")
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ValueError("it is not a file")
    return os.fdopen(opened, "rb")


def read_json(data: bytes) -> Any:
    """JSON from an untrusted source; ``ValueError`` for what is not JSON, holds a number that cannot be used, or nests
    too deep."""
    check_numbers(data)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def check_numbers(data: bytes) -> None:
    """``ValueError`` for JSON with a number of so many digits that arithmetic with it would fail."""
    # the first look is cheap, and enough for nearly all there is
    if b"0" * 24 in data.translate(_DIGITS) and _NUMBER_TOO_LONG.search(data):
        raise ValueError("it has a number that no run has")


class _CutError(Exception):
    pass


class _Inflated:
    """The bytes of one gzip stream, counted while they come."""

    def __init__(self, file: BinaryIO, packed_bytes: int) -> None:
        self._file, self._zlib = file, zlib.decompressobj(31)
        self._packed, self._ready, self._total = b"", b"", 0
        self._most = min(TOTAL_BYTES, MIB + RATIO * packed_bytes)

    def read(self, count: int) -> bytes:
        """Just so many bytes; fewer only at the end."""
        parts, have = [self._ready], len(self._ready)
        while have < count and not self._zlib.eof:
            part = self._more()
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        self._ready = data[count:]
        return data[:count]

    def _more(self) -> bytes:
        self._packed = self._zlib.unconsumed_tail or self._file.read(2**16)
        if not self._packed:
            raise _CutError("it is cut off")
        try:
            part = self._zlib.decompress(self._packed, 2**20)
        except zlib.error:
            raise ArchiveError("it is damaged, or no .tar.gz") from None
        self._total += len(part)
        if self._total > self._most:
            raise ArchiveError(f"it unpacks to more than {self._most // MIB} MiB, {RATIO} times its size or the limit")
        return part

    def end(self) -> None:
        """Read to the end, which has a checksum; ``ArchiveError`` where something else comes."""
        while rest := self.read(2**16):
            if rest.strip(b"\0"):
                raise ArchiveError("something lies after its end")
        if self._zlib.unused_data or self._file.read(1):
            raise ArchiveError("something lies after its end")


class _Plain:
    """The bytes of a tar that is not packed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        """Just so many bytes; fewer only at the end."""
        return self._file.read(count)

    def end(self) -> None:
        """Read to the end; ``ArchiveError`` where something else than zeros comes."""
        while rest := self.read(2**16):
            if rest.strip(b"\0"):
                raise ArchiveError("something lies after its end")


def _members(stream: "_Inflated | _Plain") -> Iterator[tuple[str, bytes]]:
    for _ in range(MEMBERS + 1):
        header = stream.read(_BLOCK)
        if len(header) < _BLOCK:
            raise _CutError("it is cut off")
        if not header.strip(b"\0"):
            return stream.end()
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError):
            raise ArchiveError("a header in it is damaged, or its name is not UTF-8") from None
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise ArchiveError(f"{member.name[:80]!r} is not a plain file (tar type {member.type!r}); pack it again "
                               "with 'labkit submit'")  # fmt: skip
        check_member(member.name, member.size)
        data = stream.read(-(-member.size // _BLOCK) * _BLOCK)
        if len(data) < member.size:
            raise _CutError(f"it is cut off in {member.name}")
        yield member.name, data[: member.size]
    raise ArchiveError(f"it has more than {MEMBERS} members")


def _submission(texts: dict[str, bytes], sha256: dict[str, str], faults: dict[str, str]) -> Submission:
    try:
        found = read_json(texts.pop(MANIFEST))
        if found["format"] != FORMAT:
            raise ArchiveError(
                f"its format is {str(found['format'])[:20]!r}, and this labkit reads {FORMAT}; update labkit"
            )
        listed, left_out = found["members"], found.get("left_out", [])
        if not all(isinstance(one, str) for one in (*listed, *listed.values(), *left_out)):
            raise ValueError("its lists hold something else than names")
        created = datetime.fromisoformat(found["created"]).astimezone(UTC)
        return Submission(
            name=read_name(found["name"], f"{MANIFEST}: name"),
            created=created,
            labkit=str(found["labkit"])[:NAME_LENGTH],
            texts=texts,
            sha256=sha256,
            listed=dict(listed),
            left_out=left_out[:MEMBERS],
            faults=faults,
        )
    except ArchiveError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ArchiveError(f"its {MANIFEST} does not fit: {type(error).__name__} {error}") from None


def _of_how_many(texts: Mapping[str, bytes], sha256: Mapping[str, str]) -> str:
    try:
        listed = read_json(texts[MANIFEST])["members"]
        return f": {len(sha256) - 1} of {len(listed)} members have come; hand in again"
    except (KeyError, ValueError, TypeError):
        return "; hand in again"


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")
