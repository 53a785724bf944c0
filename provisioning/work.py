"""The student's work as the node lists it: what would be brought home, what cannot be, and what is left out."""

import contextlib
import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from provisioning.errors import RemoteError
from provisioning.runtime import SHIPPED, WORKSPACE
from provisioning.ssh import Ssh

NONE = "none"
"""The digest when there is no work."""
MOST_BYTES = 2 * 2**30
"""What an archive may unpack to. Work that does not fit is named, and a teardown refuses to lose it."""
LIST_S, ARCHIVE_S = 600.0, 1800.0
NAMED = 5
"""Names that a message gives at most."""


@dataclass(frozen=True)
class Group:
    """Files that are left out for one reason; ``largest``: some names with their bytes."""

    name: str
    files: int
    size_bytes: int
    largest: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        most = f", the largest {_named(*self.largest[0])}" if self.largest and self.largest[0][1] else ""
        return f"{self.name}: {self.files} files, {say_bytes(self.size_bytes)}{most}"


@dataclass(frozen=True)
class Listing:
    """What is on a node. Names are as the node has them: ``printable`` shows them."""

    digest: str
    files: dict[str, tuple[int, str]]
    """Work by name: bytes and SHA-256."""
    behind: tuple[tuple[str, int, str], ...]
    """Work that cannot be brought home: name, bytes, why."""
    links: tuple[tuple[str, str], ...]
    """Symbolic links with their targets. They are written down, and not followed."""
    others: tuple[str, ...]
    """Sockets, pipes and devices."""
    left_out: tuple[Group, ...]
    text: str
    """The list as the node sent it."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the work that can be brought home."""
        return sum(size for size, _ in self.files.values())

    @property
    def missing(self) -> str:
        """What cannot be brought home, in words; empty where all can be."""
        return _some([f"{_named(name, size)} ({why})" for name, size, why in self.behind])

    def lines(self) -> list[str]:
        """What is left out, and what is not plain files, for a person."""
        found = [f"left out, {group}" for group in self.left_out if group.name != "as shipped"]
        if self.links:
            shown = [f"{printable(name)} -> {printable(target)}" for name, target in self.links]
            found.append(f"links, of which the names are kept: {_some(shown)}")
        if self.others:
            found.append(f"left out, no files: {_some([printable(name) for name in self.others])}")
        if self.behind:
            found.append(f"! not brought home: {self.missing}")
        return found


def ask(way: Ssh) -> Listing:
    """The list of a node. ``RemoteError`` when it cannot be made or read."""
    return read(way.run("work", "list", WORKSPACE, SHIPPED, str(MOST_BYTES), bound_s=LIST_S))


def fetch(way: Ssh, to: BinaryIO) -> None:
    """Write the archive (tar.gz) of the work to ``to``."""
    way.run("work", "archive", WORKSPACE, SHIPPED, str(MOST_BYTES), to=to, bound_s=ARCHIVE_S)


def read(text: str) -> Listing:
    """The list that a node printed; nothing in it is trusted to be of the right kind."""
    try:
        raw: dict[str, Any] = json.loads(text)
        groups = raw["left_out"].items()
        return Listing(
            digest=_word(raw["digest"]),
            files={str(name): (int(size), str(sha)) for name, size, sha in raw["files"]},
            behind=tuple((str(name), int(size), printable(str(why))) for name, size, why in raw["behind"]),
            links=tuple((str(name), str(target)) for name, target in raw["links"]),
            others=tuple(str(name) for name in raw["others"]),
            left_out=tuple(
                Group(
                    printable(group), int(found["files"]), int(found["bytes"]),
                    tuple((str(name), int(size)) for name, size in found["largest"]),
                )
                for group, found in groups
            ),
            text=text,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RemoteError(
            f"the node's list of work cannot be read ({' '.join(str(error).split())}). Run this again."
        ) from None


def differing(listing: Listing, archive: Path) -> list[str]:
    """Names of the list that the archive lacks or has with other bytes: they changed while it was made."""
    hashes: dict[str, str] = {}
    with contextlib.suppress(EOFError), tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if (file := tar.extractfile(member)) is not None:
                hashes[member.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return [name for name, (_, sha) in listing.files.items() if hashes.get(name) != sha]


def printable(name: str) -> str:
    """A name in one line that a terminal can show, whatever bytes it has."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def say_bytes(count: int) -> str:
    """``34.1 GiB``."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return _some([printable(name) for name in names])


def _named(name: str, size: int) -> str:
    return f"{printable(name)} {say_bytes(size)}"


def _some(items: list[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def _word(digest: str) -> str:
    """A digest: it becomes part of a folder's name here."""
    if not isinstance(digest, str) or not digest.isascii() or not digest.isalnum() or len(digest) > 64:
        raise ValueError(f"digest {digest!r:.40}")
    return digest
