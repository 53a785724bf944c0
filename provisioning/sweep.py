"""A sweep for a class: what at the sites is idle, over, or unlisted, and what it costs."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from provisioning import activity, booking, cost, times
from provisioning.booking import Booking, name_of
from provisioning.errors import ProvisioningError
from provisioning.inventory import Holding, Seen, look
from provisioning.leases import LEAVING
from provisioning.sites import Node, Site, load_sites
from provisioning.tables import as_text

IDLE, OVER, UNLISTED, UNASKED = "idle", "over", "unlisted", "cannot be asked"
YOUNG = timedelta(hours=1)
"""What is unlisted and younger may be another class's that is being made at this moment; it is only shown."""
KEPT = ("lease", "key")
"""What costs nothing once no lease is live; what has been spent is counted from the leases that are over."""


@dataclass(frozen=True)
class Found:
    """What one netID has that an instructor should look at."""

    netid: str
    verdict: str
    why: str
    things: tuple[Holding, ...]
    su_per_hour: float | None
    """Of its active leases together; None where a rate is unknown."""
    spare_su: float | None
    """What ends with a ``down`` now, until its leases would end."""
    deletable: bool = False
    """Whether the sweep may delete it."""


def sweep(seen: Seen, netids: Iterable[str], idle_after: timedelta, at_once: int) -> list[Found]:
    """What an instructor should look at; ``netids`` are those of the class list.

    Nodes are asked whether they are used, ``at_once`` at a time. Nothing is changed.
    """
    now = next(iter(seen.clouds.values())).transport.now()
    known = set(netids)
    found = {netid: judge(netid, things, netid in known, now) for netid, things in seen.things.items()}
    asked = [netid for netid in found if found[netid] is None]
    with ThreadPoolExecutor(at_once) as pool:
        told = pool.map(lambda netid: ask(netid, seen, idle_after, now), asked)
        found |= dict(zip(asked, told, strict=True))
    return [one for one in found.values() if one is not None]


def still_deletable(netid: str, netids: Iterable[str]) -> bool:
    """Whether it may still be deleted: a class takes minutes, and a student may have begun again in between."""
    seen = look(lambda _: None)
    now = next(iter(seen.clouds.values())).transport.now()
    found = judge(netid, seen.things.get(netid, []), netid in set(netids), now)
    return found is not None and found.deletable


def judge(netid: str, things: Sequence[Holding], known: bool, now: datetime) -> Found | None:
    """What the site's lists alone say; None where the node has to be asked, or nothing is wrong."""
    rate, spare = _costs(things, now)
    if not known:
        young = [one for one in things if one.created and now - one.created < YOUNG]
        why = "in no line of the class list" + (", and just made: left alone" if young else "")
        return Found(netid, UNLISTED, why, tuple(things), rate, spare, not young)
    if not _live(things) and (left := [one for one in things if one.kind not in KEPT]):
        ends = [one.end for one in things if one.end]
        since = f" since {times.show(max(ends))}" if ends else ""
        return Found(netid, OVER, f"no lease{since}", tuple(left), rate, spare, True)
    return None


def ask(netid: str, seen: Seen, idle_after: timedelta, now: datetime) -> Found | None:
    """Whether the nodes under active leases of a netID are used; None when they are."""
    things = seen.things[netid]
    rate, spare = _costs(things, now)
    for lease in (one for one in _live(things) if one.state == "ACTIVE"):
        kind = _kind(lease)
        if kind is None or lease.created and now - lease.created < idle_after:
            continue
        made = booking.of(netid, *kind, seen.clouds[lease.site], lambda _: None)
        verdict, why = _used(made, [one for one in things if one.owner == lease.owner], idle_after)
        if verdict:
            return Found(netid, verdict, why, (lease,), rate, spare)
    return None


def report(found: Sequence[Found], unseen: Sequence[str] = ()) -> str:
    """A table, the sum of it an hour, and what to do about it."""
    rows = [(one.verdict, one.netid, f"{one.why}: {', '.join(map(_short, one.things))}", _said(one)) for one in found]
    lines = [as_text(f"{len(found)} to look at", rows)] + [f"  ! {reason}" for reason in unseen]
    rates = [one.su_per_hour for one in found]
    if rates:
        known = [rate for rate in rates if rate is not None]
        more = f", and {len(rates) - len(known)} at an {cost.UNKNOWN}" if len(known) < len(rates) else ""
        lines.append(f"  all of it: {sum(known):g} SU an hour{more}")
    if any(one.verdict in (IDLE, UNASKED) for one in found):
        lines.append("  idle: 'collect', then 'down', ends the lease and gives the rest of it back")
    if any(one.deletable for one in found):
        lines.append("  over and unlisted: --delete removes them, but no work that was not collected")
    return "\n".join(lines)


def _used(made: Booking, things: Sequence[Holding], idle_after: timedelta) -> tuple[str, str]:
    """The verdict on one node, and why; an empty one when it is used."""
    servers = [one for one in things if one.kind == "server"]
    if not servers:
        return IDLE, "no server under its lease"
    if servers[0].state != "ACTIVE":
        return IDLE, f"the server is {servers[0].state}"
    try:
        told = activity.ask(made)
    except ProvisioningError as error:
        return UNASKED, str(error).rstrip(".")
    return (IDLE, str(told)) if not told.running or told.idle >= idle_after else ("", "")


def _live(things: Iterable[Holding]) -> list[Holding]:
    return [one for one in things if one.kind == "lease" and one.state not in (*LEAVING, "ERROR")]


def _kind(holding: Holding) -> tuple[Site, Node] | None:
    """The site, and the kind of node that the owner's name tells: with one GPU, or with several."""
    for site in load_sites():
        for node in site.nodes:
            if site.name == holding.site and name_of(holding.netid, node) == holding.owner:
                return site, node
    return None


def _costs(things: Iterable[Holding], now: datetime) -> tuple[float | None, float | None]:
    """Service units an hour, and until the end, of the active leases; None where a rate is unknown."""
    rate = spare = 0.0
    for lease in _live(things):
        if lease.state != "ACTIVE":
            continue
        kind = _kind(lease)
        if kind is None or kind[1].su_per_hour is None:
            return None, None
        rate += kind[1].su_per_hour
        spare += kind[1].su_per_hour * max(0.0, (lease.end - now).total_seconds() / 3600)
    return rate, spare


def _short(one: Holding) -> str:
    until = f", until {times.show(one.end)}" if one.kind == "lease" and one.end else ""
    return f"{one.kind} at {one.site}" + (f" ({one.state}{until})" if one.state else "")


def _said(one: Found) -> str:
    if one.su_per_hour is None:
        return cost.UNKNOWN
    return f"{one.su_per_hour:g} SU an hour, {one.spare_su:.1f} SU to its end" if one.su_per_hour else "0 SU an hour"
