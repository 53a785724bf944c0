"""Who wants which node: the one object that every step gets."""

import json
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from provisioning.cloud import Cloud
from provisioning.errors import TooSlowError, UsageError
from provisioning.sites import Node, Site, find_node

TAG = "labkit_owner"
"""The key of the tag on everything that is made; only what carries it is ever deleted."""
LEASE = "labkit_lease"
"""Metadata of a server and its volume: the lease that they were made under."""
KINDS = ("single", "multi")
"""What a node with one GPU, and one with several, is called in names."""
NETID = r"[a-z0-9][a-z0-9_-]{0,30}"
SAY_EVERY_S = 30.0
DEFAULT_LENGTH = timedelta(hours=2, minutes=50)


@dataclass(eq=False)
class Booking:
    """One student's node. Make it with ``book`` or ``resume``."""

    netid: str
    site: Site
    node: Node
    cloud: Cloud
    folder: Path
    """On this machine: the SSH key, the hosts it knows, logs, and what was collected."""
    say: Callable[[str], None] = print
    poll_s: float = 5.0
    stop: threading.Event = field(default_factory=threading.Event)
    """Set, it ends the next wait, and nothing more is made."""
    lease_id: str = ""
    """The lease that this run began with; once it is gone, nothing more is made."""

    @property
    def name(self) -> str:
        """The name of everything that is made: ``llm_single_abc123``."""
        return name_of(self.netid, self.node)

    def now(self) -> datetime:
        """The site's time: the clock of this machine may be wrong by hours."""
        return self.cloud.transport.now()

    @property
    def tag(self) -> dict[str, str]:
        """The owner's tag, as metadata."""
        return {TAG: self.name}

    @property
    def tag_text(self) -> str:
        """The owner's tag, where a service has no metadata but a description."""
        return f"{TAG}={self.name}"

    def check_not_interrupted(self) -> None:
        """Raise when this was interrupted: nothing more is made then."""
        if self.stop.is_set():
            raise TooSlowError(f"{self.name}: interrupted. Run the same again to continue.")

    def wait(self, what: str, state: Callable[[], str], ends: tuple[str, ...], bound_s: float) -> str:
        """Ask for the ``state`` until it is one of ``ends``; says it when it changes, and now and then."""
        started, said, last = time.monotonic(), float("-inf"), None
        while (current := state()) not in ends:
            took = time.monotonic() - started
            if took > bound_s:
                raise TooSlowError(f"{what} is {current} after {took:.0f} s. Run this step again to keep waiting.")
            if current != last or took - said >= SAY_EVERY_S:
                self.say(f"{what}: {current}, {took:.0f} s of at most {bound_s:.0f} s")
                said, last = took, current
            if self.stop.wait(self.poll_s):
                raise TooSlowError(f"{what}: interrupted while {current}. Run the same again to continue.")
        return current


def name_of(netid: str, node: Node) -> str:
    """What all that is made for ``netid`` on such a node is called."""
    return f"llm_{KINDS[node.count > 1]}_{netid}"


def netid_of(name: str) -> str | None:
    """The netID in such a name, or None for any other."""
    match = re.fullmatch(rf"llm_(?:{'|'.join(KINDS)})_({NETID})", name)
    return match[1] if match else None


def home() -> Path:
    """Where bookings keep their keys and what they brought home: LABKIT_HOME, or ``.labkit`` in the home folder."""
    return Path(os.environ.get("LABKIT_HOME") or Path.home() / ".labkit")


def check_netid(netid: str, where: str = "") -> None:
    """``UsageError``, with ``where`` before it, for a netID that names on a site and of folders cannot hold."""
    if not re.fullmatch(NETID, netid):
        short = netid if len(netid) <= 40 else f"{netid[:40]}..."
        shown = "".join(letter if letter.isprintable() else "?" for letter in short)
        raise UsageError(f"{where}netID '{shown}' cannot be used: small letters, digits, '-' and '_' only, at most 31.")


def book(netid: str, node: str, say: Callable[[str], None] = print) -> Booking:
    """A booking of ``node`` (a name of ``sites.yaml``) for ``netid``. Makes nothing yet on the site.

    Logs in, so credentials that are no good are found here. Raises ``UsageError`` and ``CredentialsError``.
    """
    check_netid(netid)
    site, kind = find_node(node)
    return of(netid, site, kind, Cloud.connect(site, say), say)


def of(netid: str, site: Site, node: Node, cloud: Cloud, say: Callable[[str], None] = print) -> Booking:
    """A booking through a ``cloud`` that is logged in already."""
    folder = home() / name_of(netid, node)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    booking = Booking(netid, site, node, cloud, folder, say)
    poll_s = os.environ.get("PROVISIONING_POLL_S")
    if poll_s:
        booking.poll_s = float(poll_s)
    return booking


def remember(booking: Booking) -> None:
    """Keep the booking as the one that ``resume`` finds."""
    (home() / "current.json").write_text(json.dumps({"netid": booking.netid, "node": booking.node.name}))


def resume(say: Callable[[str], None] = print) -> Booking:
    """The booking that the last ``remember`` kept; this is how one notebook continues where another stopped."""
    path = home() / "current.json"
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except OSError:
        raise UsageError("nothing is booked from this machine. Run 1_reserve.ipynb first.") from None
    return book(kept["netid"], kept["node"], say)
