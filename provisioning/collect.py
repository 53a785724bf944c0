"""Bring the student's work home: the ledger without weights and data, and the notebooks, as one archive."""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioning import access, servers, times, volumes
from provisioning.booking import Booking
from provisioning.errors import LeaseOverError, RemoteError, SshError, UncollectedWorkError
from provisioning.runtime import WORKSPACE
from provisioning.volumes import COLLECTED, WORK, YES

BOUND_S = 1800.0
NONE = "none"
"""What the node says when there is no work on it."""
LARGEST_BYTES = 2 * 2**30
"""What an archive may unpack to; the ledger of a whole course is a few MB."""


@dataclass(frozen=True)
class Collected:
    """What was brought home."""

    archive: Path
    folder: Path
    files: int


def collect(booking: Booking) -> Collected | None:
    """Bring home what there is, checked by unpacking it; None when there is no work on the node."""
    if servers.find(booking) is None:
        booking.say(f"collect {booking.name}: there is no server")
        return None
    way = access.way_in(booking)
    # before the archive: what is written meanwhile counts as not collected
    digest = way.run("work", "digest", WORKSPACE).strip()
    if digest == NONE:
        booking.say(f"collect {booking.name}: no work on the node")
        return None
    folder = booking.folder / "collected" / f"{times.now():%Y-%m-%dT%H-%M-%SZ}-{digest}"
    archive = folder.with_name(f"{folder.name}.tar.gz")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".part")
    with partial.open("wb") as file:
        way.run("work", "archive", WORKSPACE, to=file, bound_s=BOUND_S)
    files = unpack(partial, folder)
    partial.rename(archive)
    servers.mark(booking, {WORK: YES, COLLECTED: f"{digest} {times.now():%Y-%m-%d %H:%M} UTC"})
    booking.say(f"collect {booking.name}: {files} files in {archive}")
    return Collected(archive, folder, files)


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
    """Why a teardown would lose work, or None when it would not.

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
        now = access.way_in(booking).run("work", "digest", WORKSPACE).strip()
    except (SshError, RemoteError, LeaseOverError) as error:
        if _server(booking) is None:  # it was on its way out, and what is left is asked
            return uncollected(booking)
        return f"the node cannot be asked ({last}): {str(error).rstrip('.')}"
    if now in (digest, NONE):
        return None
    return f"there is newer work on the node ({last})"


def _server(booking: Booking) -> Any | None:
    """The server, unless it is being deleted."""
    server = servers.find(booking)
    return None if server is not None and servers.is_leaving(server) else server


def refuse_to_lose(booking: Booking) -> None:
    """Raise ``UncollectedWorkError`` when a teardown would lose work."""
    reason = uncollected(booking)
    if reason:
        raise UncollectedWorkError(f"{booking.name}: {reason}. Collect it first, or tear down with discard.")
