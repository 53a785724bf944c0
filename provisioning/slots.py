"""When a kind of node is free, from what Blazar says is taken; and what sites call it."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from provisioning import times
from provisioning.booking import DEFAULT_LENGTH, Booking
from provisioning.cloud import asking
from provisioning.errors import NoSlotError, UnknownNameError, UsageError, known
from provisioning.times import parse_blazar

MARGIN = timedelta(minutes=10)
"""A site may clean a node between two leases."""


def next_slot(
    hosts: Iterable[str], allocations: list[dict[str, Any]], length: timedelta, earliest: datetime
) -> datetime | None:
    """The first time from ``earliest`` on that one of ``hosts`` is free for ``length``; None without hosts."""
    taken: dict[str, list[tuple[datetime, datetime]]] = {host: [] for host in hosts}
    for allocation in allocations:
        spans = taken.get(str(allocation["resource_id"]))
        if spans is not None:
            spans += [(parse_blazar(r["start_date"]), parse_blazar(r["end_date"])) for r in allocation["reservations"]]
    return min((_first_gap(sorted(spans), length, earliest) for spans in taken.values()), default=None)


def _first_gap(spans: list[tuple[datetime, datetime]], length: timedelta, earliest: datetime) -> datetime:
    free = earliest
    for start, end in spans:
        if end <= free:
            continue
        if free + length + MARGIN <= start:
            break
        free = end + MARGIN
    return free


def flavor(booking: Booking, name: str) -> Any:
    """The flavor called ``name``."""
    with asking("reading the flavors"):
        flavors = booking.cloud.nova.flavors.list()
    found = next((flavor for flavor in flavors if flavor.name == name), None)
    if found is None:
        names = [flavor.name for flavor in flavors if not flavor.name.startswith("reservation:")]
        raise UnknownNameError(f"flavor '{name}' is not at {booking.site.name}. {known(name, names)}")
    return found


def free_from(booking: Booking, length: timedelta = DEFAULT_LENGTH) -> datetime | None:
    """When a node of bare metal is free for ``length``; None where the site does not tell."""
    if booking.site.virtual_machine:
        return None  # Blazar lists hosts, and several virtual machines share one
    with asking("reading when nodes are free"):
        hosts = booking.cloud.blazar.host.list()
        allocations = booking.cloud.blazar.allocation.list("os-hosts")
    kind = booking.node.name
    if kind not in {host.get("node_type") for host in hosts}:
        types = [host["node_type"] for host in hosts if host.get("node_type")]
        raise UnknownNameError(f"node type '{kind}' is not at {booking.site.name}. {known(kind, types)}")
    ids = {str(host["id"]) for host in hosts if host.get("node_type") == kind}
    return next_slot(ids, allocations, length, booking.now())


def starting(booking: Booking, text: str, length: timedelta = DEFAULT_LENGTH) -> datetime | None:
    """The start that ``text`` means: ``now`` (None), ``next`` (the next free slot) or a time to come."""
    if text == "now":
        return None
    if text != "next":
        start = times.parse_start(text)
        if start < booking.now():
            raise UsageError(f"start {text} is over. Give a time to come, or now.")
        return start
    free = free_from(booking, length)
    if free is None:
        raise UsageError(f"{booking.site.name} does not tell when a node is free. Give a time, or now.")
    return free if free > booking.now() else None


def none_free(booking: Booking, length: timedelta, start: datetime | None) -> NoSlotError:
    """The error for a node that somebody else has, with the next free time where the site tells."""
    free = free_from(booking, length)
    when = "now" if start is None else f"at {times.show(start)}"
    step = f"The next is free at {times.show(free)}" if free else "The site does not tell when one will be"
    return NoSlotError(
        f"no {booking.node.name} at {booking.site.name} is free {when} for {times.length(length)}. {step}; "
        "give another start, or 'next' where the site tells."
    )
