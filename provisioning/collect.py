"""Bring the student's work home: all files of the workspace that cannot be downloaded or made again, as one archive."""

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioning import access, servers, times, volumes, work
from provisioning.booking import Booking
from provisioning.errors import LeaseOverError, RemoteError, SshError, UncollectedWorkError, UsageError
from provisioning.volumes import COLLECTED, WORK, YES

LARGEST_BYTES = work.MOST_BYTES
REACH = "Bring it home: 'up' where there is no server, then 'collect'"
ROOM_FACTOR = 2.2
"""Of the work's bytes: an archive that cannot be packed any smaller, and what is unpacked from it."""


@dataclass(frozen=True)
class Collected:
    """What was brought home."""

    archive: Path
    folder: Path
    files: int
    listing: work.Listing


def collect(booking: Booking) -> Collected | None:
    """Bring home what there is, compared with the node's list file by file; None when there is no work on the node.

    Says what is left out, with its bytes, and what could not be brought home; the whole list lies next to the archive.
    Raises ``UncollectedWorkError`` for work where nothing can be read, ``UsageError`` when this machine has no room,
    ``RemoteError`` for a damaged archive.
    """
    server = servers.find(booking)
    if server is None:
        if reason := uncollected(booking):
            raise UncollectedWorkError(f"{booking.name}: {reason}. {REACH}.")
        booking.say(f"collect {booking.name}: there is no server, and no work")
        return None
    way = access.way_in(booking, server)
    # before the archive: what is written meanwhile counts as not collected
    listing = work.ask(way)
    if listing.digest == work.NONE:
        booking.say(f"collect {booking.name}: no work on the node")
        _say(booking, listing)
        return None
    folder = booking.folder / "collected" / f"{times.now():%Y-%m-%dT%H-%M-%SZ}-{listing.digest}"
    archive = folder.with_name(f"{folder.name}.tar.gz")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_room(folder.parent, listing.size_bytes)
    partial = archive.with_suffix(".part")
    with partial.open("wb") as file:
        work.fetch(way, file)
    files = unpack(partial, folder)
    changed = work.differing(listing, partial)
    partial.rename(archive)
    folder.with_name(f"{folder.name}.json").write_text(listing.text, encoding="utf-8")
    servers.mark(booking, {WORK: YES, COLLECTED: f"{listing.digest} {times.now():%Y-%m-%d %H:%M} UTC"})
    booking.say(f"collect {booking.name}: {files} files, {work.say_bytes(listing.size_bytes)}, in {archive}")
    _say(booking, listing)
    if changed:
        booking.say(f"! changed while it was brought home: {work.some(changed)}. Collect again.")
    return Collected(archive, folder, files, listing)


def unpack(archive: Path, folder: Path) -> int:
    """Unpack what a node sent, trusting nothing in it; the number of files.

    Names that lead out of ``folder``, links out of it, devices and sizes beyond reason are refused.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = tar.getmembers()
            size = sum(member.size for member in members)
            if size > LARGEST_BYTES:
                raise RemoteError(f"{archive} would unpack to {size / 2**30:.1f} GiB. Look into it before you do.")
            tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise RemoteError(f"{archive} is not safe to unpack: {error}. Nothing more of it was unpacked.") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise RemoteError(f"{archive} is damaged: {error}. Collect again.") from None
    return sum(member.isfile() for member in members)


def uncollected(booking: Booking) -> str | None:
    """Why a teardown would lose work, or None when it would not. Says what it would leave out.

    The services know whether there may be work, and what was collected last, so any machine can ask.
    """
    server = _server(booking)
    volume = volumes.find(booking) if booking.site.virtual_machine else None
    metadata = server.metadata if server is not None else (volume.metadata if volume is not None else {})
    if metadata.get(WORK) != YES:
        return None
    digest, _, when = metadata.get(COLLECTED, "").partition(" ")
    last = f"last collected at {when}" if when else "never collected"
    if server is None:
        return f"its server is gone, and the volume with the work cannot be looked into ({last})"
    if server.status == "ERROR" and volume is None:
        return f"the server is in ERROR, and cannot be asked ({last})"
    try:
        now = work.ask(access.way_in(booking, server))
    except (SshError, RemoteError, LeaseOverError) as error:
        if _server(booking) is None:  # it was on its way out, and what is left is asked
            return uncollected(booking)
        return f"the node cannot be asked ({last}): {str(error).rstrip('.')}"
    _say(booking, now)
    if now.digest not in (digest, work.NONE):
        return f"there is newer work on the node ({last})"
    if now.behind:
        return f"work is on the node that collect cannot bring home: {now.missing}. Copy it yourself"
    return None


def _server(booking: Booking) -> Any | None:
    """The server, unless it is being deleted."""
    server = servers.find(booking)
    return None if server is not None and servers.is_leaving(server) else server


def refuse_to_lose(booking: Booking) -> None:
    """Raise ``UncollectedWorkError`` when a teardown would lose work."""
    reason = uncollected(booking)
    if reason:
        raise UncollectedWorkError(f"{booking.name}: {reason}. {REACH}, or let it go with --discard (discard=True).")


def _check_room(folder: Path, size_bytes: int) -> None:
    need, free = int(size_bytes * ROOM_FACTOR), shutil.disk_usage(folder).free
    if free < need:
        have = f"{work.say_bytes(need)} are needed for the work, and {work.say_bytes(free)} are free"
        raise UsageError(f"{folder} has no room: {have}. Free some, or point LABKIT_HOME at another disk.")


def _say(booking: Booking, listing: work.Listing) -> None:
    for line in listing.lines():
        booking.say(f"work of {booking.name}: {line}")
