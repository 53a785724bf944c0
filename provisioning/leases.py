"""The lease: the right to a node for some time. It carries its owner's name; Blazar has no other tag."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from provisioning import rules, times
from provisioning.booking import DEFAULT_LENGTH, Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import (
    FailedError,
    LeaseOverError,
    NoSlotError,
    ServiceError,
    UnknownNameError,
    UsageError,
    known,
)
from provisioning.slots import next_slot

CHANGING = ("CREATING", "STARTING", "UPDATING", "TERMINATING", "DELETING")
OVER = "TERMINATED"
SETTLED = ("PENDING", "ACTIVE", "ERROR", OVER)
CHANGE_BOUND_S = 300.0
TRIES = 2
STARTS_SOON = timedelta(minutes=10)
"""A lease that starts within this time is waited for."""


@dataclass(frozen=True)
class Lease:
    """What Blazar says of a lease."""

    id: str
    status: str
    start: datetime
    end: datetime
    reservation_id: str

    @property
    def left(self) -> timedelta:
        """Time until it ends."""
        return self.end - times.now()


def _read(raw: dict[str, Any]) -> Lease:
    wanted = ("physical:host", "flavor:instance")
    ids = [item["id"] for item in raw["reservations"] if item["resource_type"] in wanted]
    dates = times.parse_blazar(raw["start_date"]), times.parse_blazar(raw["end_date"])
    return Lease(raw["id"], raw["status"], *dates, ids[0] if ids else "")


def find_all(booking: Booking) -> list[Lease]:
    """All leases of this booking, those that are over too; the newest first."""
    with asking("reading the leases"):
        found = [_read(raw) for raw in booking.cloud.blazar.lease.list() if raw["name"] == booking.name]
    return sorted(found, key=lambda lease: lease.start, reverse=True)


def find(booking: Booking) -> Lease | None:
    """The lease that counts: one that is active, or else the next one; none that is over."""
    live = [lease for lease in find_all(booking) if lease.status != OVER]
    return next((lease for lease in live if lease.status == "ACTIVE"), live[-1] if live else None)


def active(booking: Booking) -> Lease:
    """The active lease, or ``LeaseOverError``."""
    lease = find(booking)
    if lease is None:
        raise LeaseOverError(f"lease {booking.name} is over or was never made. Make one with ensure_lease.")
    if lease.status != "ACTIVE":
        starts = f"starts at {times.show(lease.start)}" if lease.status == "PENDING" else f"is {lease.status}"
        raise LeaseOverError(f"lease {booking.name} {starts}. Run this again when it is active.")
    return lease


def ensure(booking: Booking, length: timedelta = DEFAULT_LENGTH, start: datetime | None = None) -> Lease:
    """The lease of this booking, made when there is none; from ``start`` or from now, for ``length``."""
    for _ in range(TRIES):
        lease = find(booking)
        if lease is not None and lease.status in CHANGING:
            lease = _settle(booking, lease.id)
        if lease is None or lease.status == OVER:
            lease = _create(booking, length, start)
        if lease.status == "PENDING" and lease.start - times.now() < STARTS_SOON:
            lease = _started(booking, lease)
        if lease.status != "ERROR":
            booking.say(f"lease {booking.name}: {lease.status}, until {times.show(lease.end)}")
            return lease
        # two that ask for the last node in the same moment are both promised it, and one lease does not start
        booking.say(f"lease {booking.name}: in ERROR, replaced")
        delete(booking, lease)
    raise FailedError(f"lease {booking.name} went to ERROR {TRIES} times. Try another node, or ask the site.")


def plan(booking: Booking, length: timedelta = DEFAULT_LENGTH, start: datetime | None = None) -> str:
    """What ``ensure`` would do."""
    lease = find(booking)
    if lease is not None and lease.status != "ERROR":
        return f"keep, {lease.status}, until {times.show(lease.end)}"
    verb = "replace the one in ERROR:" if lease else "make:"
    begins = "now" if start is None else times.show(start)
    return f"{verb} {booking.node.name} at {booking.site.name}, from {begins} for {times.length(length)}"


def extend(booking: Booking, by: timedelta) -> Lease:
    """Let the lease end later."""
    lease = active(booking)
    end = (lease.end + by).strftime(times.BLAZAR)
    doing = f"extending lease {booking.name} to {end} UTC"
    try:
        with asking(doing):
            booking.cloud.blazar.lease.update(lease.id, end_date=end)
    except ServiceError as error:
        raise rules.named(error, doing, by, lease.end, lease.start) from None
    lease = _settle(booking, lease.id)
    booking.say(f"lease {booking.name}: until {times.show(lease.end)}")
    return lease


def delete(booking: Booking, lease: Lease) -> None:
    """End the lease, and wait until it is gone."""

    def state() -> str:
        return next((found.status for found in find_all(booking) if found.id == lease.id), "gone")

    what = f"lease {booking.name}"
    for last in (False, True):
        # Blazar refuses to delete a lease that is about to start
        booking.wait(what, state, (*SETTLED, "DELETING", "gone"), CHANGE_BOUND_S)
        try:
            with deleting(what, state):
                booking.cloud.blazar.lease.delete(lease.id)
            break
        except ServiceError:
            if last or state() not in CHANGING:  # one that began to start just then can be deleted when it has
                raise
    booking.wait(what, state, ("gone",), CHANGE_BOUND_S)


def _create(booking: Booking, length: timedelta, start: datetime | None) -> Lease:
    from chi.lease import Lease as Draft

    end = (start or times.now()) + length
    draft = Draft(booking.name, start_date=start, end_date=end)
    if booking.site.virtual_machine:
        draft.add_flavor_reservation(id=flavor(booking, booking.node.name).id, amount=1)
    else:
        draft.add_node_reservation(amount=1, node_type=booking.node.name)
    reservations = draft.flavor_reservations + draft.node_reservations
    doing = f"making lease {booking.name}"
    try:
        # not python-chi's Lease.submit: it keeps the reason of a refusal to itself
        with asking(doing):
            made = booking.cloud.blazar.lease.create(draft.name, draft.start_date, draft.end_date, reservations, [])
    except ServiceError as error:
        if rules.is_taken(error):  # or an unknown node type, which Blazar does not tell apart
            raise _no_slot(booking, length, start) from None
        raise rules.named(error, doing, length) from None
    return _settle(booking, made["id"])


def _started(booking: Booking, lease: Lease) -> Lease:
    """The lease once it has started."""
    bound_s = (lease.start - times.now()).total_seconds() + CHANGE_BOUND_S
    return _once(booking, lease.id, ("ACTIVE", "ERROR"), bound_s)


def _settle(booking: Booking, lease_id: str) -> Lease:
    """The lease once it has stopped changing."""
    return _once(booking, lease_id, SETTLED, CHANGE_BOUND_S)


def _once(booking: Booking, lease_id: str, ends: tuple[str, ...], bound_s: float) -> Lease:
    """The lease as it was seen in one of these states; asked again it may be in another."""
    lease = _get(booking, lease_id)

    def look() -> str:
        nonlocal lease
        lease = _get(booking, lease_id)
        return lease.status

    booking.wait(f"lease {booking.name}", look, ends, bound_s)
    return lease


def _get(booking: Booking, lease_id: str) -> Lease:
    with asking(f"reading lease {booking.name}"):
        return _read(booking.cloud.blazar.lease.get(lease_id))


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
    return next_slot(ids, allocations, length, times.now())


def starting(booking: Booking, text: str, length: timedelta = DEFAULT_LENGTH) -> datetime | None:
    """The start that ``text`` means: ``now`` (None), ``next`` (the next free slot) or a time to come."""
    if text == "now":
        return None
    if text != "next":
        start = times.parse_start(text)
        if start < times.now():
            raise UsageError(f"start {text} is over. Give a time to come, or now.")
        return start
    free = free_from(booking, length)
    if free is None:
        raise UsageError(f"{booking.site.name} does not tell when a node is free. Give a time, or now.")
    return free if free > times.now() else None


def _no_slot(booking: Booking, length: timedelta, start: datetime | None) -> NoSlotError:
    free = free_from(booking, length)
    when = "now" if start is None else f"at {times.show(start)}"
    step = f"The next is free at {times.show(free)}" if free else "The site does not tell when one will be"
    return NoSlotError(
        f"no {booking.node.name} at {booking.site.name} is free {when} for {times.length(length)}. {step}; "
        "give another start, or 'next' where the site tells."
    )
