"""The lease: the right to a node for some time. It carries its owner's name; Blazar has no other tag."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioning import claims, rules, slots, times
from provisioning.booking import DEFAULT_LENGTH, LEASE, TAG, Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import (
    FailedError,
    GoneError,
    LeaseOverError,
    ProvisioningError,
    ServiceError,
)

CHANGING = ("CREATING", "STARTING", "UPDATING", "TERMINATING", "DELETING")
OVER = "TERMINATED"
LEAVING = (OVER, "TERMINATING", "DELETING")
STABLE = ("PENDING", "ACTIVE", "ERROR", OVER)
"""What Blazar calls stable: nothing is changing it."""
CHANGE_BOUND_S = 300.0
ENDS_SOON = timedelta(seconds=90)
"""Blazar wants an end to come, and takes whole minutes."""
TRIES = 2
NEVER = datetime.max.replace(tzinfo=UTC)
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
    created: datetime
    used: bool = False
    """Whether a server of ours was made under it."""

    def left(self, now: datetime) -> timedelta:
        """Time until it ends; ``now`` is the site's."""
        return self.end - now

    @property
    def rank(self) -> tuple[bool, bool, datetime, datetime, str]:
        """The smallest of several is the one that counts, whichever process asks."""
        return self.status == "ERROR", not self.used, self.start, self.created, self.id


def _read(raw: dict[str, Any], used: bool = False) -> Lease:
    wanted = ("physical:host", "flavor:instance")
    ids = [item["id"] for item in raw["reservations"] if item["resource_type"] in wanted]
    dates = times.parse_blazar(raw["start_date"]), times.parse_blazar(raw["end_date"])
    made = times.parse_blazar(raw["created_at"])
    return Lease(raw["id"], raw["status"], *dates, ids[0] if ids else "", made, used)


def find_all(booking: Booking) -> list[Lease]:
    """All leases of this booking, those that are over too; the one that counts first.

    One that somebody renamed is known by its id, which the server carries.
    """
    with asking("reading the leases"):
        servers = [server.metadata for server in booking.cloud.nova.servers.list()]
        under = {data.get(LEASE) for data in servers if data.get(TAG) == booking.name}
        found = [
            _read(raw, raw["id"] in under) for raw in booking.cloud.blazar.lease.list()
            if raw["name"] == booking.name or raw["id"] in under
        ]  # fmt: skip
    return sorted(found, key=lambda lease: (lease.status in LEAVING, lease.rank))


def find(booking: Booking) -> Lease | None:
    """The lease that counts: not one that is over or on its way out."""
    return next((lease for lease in find_all(booking) if lease.status not in LEAVING), None)


def active(booking: Booking) -> Lease:
    """The active lease, or ``LeaseOverError``."""
    lease = find(booking)
    if lease is None:
        raise LeaseOverError(f"lease {booking.name} is over or was never made. Run 'up' (ensure_lease) for a new one.")
    check_active(booking, lease)
    booking.lease_id = booking.lease_id or lease.id
    return lease


def check_active(booking: Booking, lease: Lease) -> None:
    """``LeaseOverError`` for a lease that has yet to start."""
    if lease.status != "ACTIVE":
        starts = f"starts at {times.show(lease.start)}" if lease.status == "PENDING" else f"is {lease.status}"
        raise LeaseOverError(f"lease {booking.name} {starts}. Run this again when it is active.")


def hold(booking: Booking) -> Lease:
    """The lease that this run began with; ``LeaseOverError`` once it is gone: a laptop may sleep for an hour between
    two calls, and someone may tear down in between."""
    if not booking.lease_id:
        return active(booking)
    try:
        lease = _get(booking, booking.lease_id)
    except GoneError:
        lease = None
    if lease is None or lease.status in LEAVING:
        state = lease.status if lease else "gone"
        raise LeaseOverError(
            f"lease {booking.name}, which this began with, is {state}: it was torn down, or its time is over. "
            "Nothing more is made; run 'up' for a new one."
        )
    return lease


@contextlib.contextmanager
def held(booking: Booking) -> Iterator[Lease]:
    """For a step that needs the lease: an error is reported as ``LeaseOverError`` when the lease is gone by then."""
    lease = hold(booking)
    try:
        yield lease
    except ProvisioningError:
        hold(booking)
        raise


def ensure(booking: Booking, length: timedelta = DEFAULT_LENGTH, start: datetime | None = None) -> Lease:
    """The lease of this booking, made when there is none; from ``start`` or from now, for ``length``."""
    for _ in range(TRIES):
        there = [lease for lease in find_all(booking) if lease.status not in LEAVING]
        lease = there[0] if there else _create(booking, length, start)
        try:
            lease = _ready(booking, lease)
        except LeaseOverError:  # another process may have made it in the same moment, and given it back
            lease = find(booking)
            if lease is None:
                raise
            lease = _ready(booking, lease)
        if lease.status != "ERROR":
            if len(there) > 1:
                _repair(booking, lease)
            booking.say(f"lease {booking.name}: {lease.status}, until {times.show(lease.end)}")
            return lease
        # two that ask for the last node in the same moment are both promised it, and one lease does not start
        booking.say(f"lease {booking.name}: in ERROR, replaced")
        delete(booking, lease)
        booking.lease_id = ""
    raise FailedError(f"lease {booking.name} went to ERROR {TRIES} times. Try another node, or ask the site.")


def _ready(booking: Booking, lease: Lease) -> Lease:
    """The lease once it is stable, and has started if that is soon; what is made from now on belongs to it."""
    booking.lease_id = lease.id
    with held(booking):
        if lease.status in CHANGING:
            lease = _stable(booking, lease.id)
        if lease.status == "PENDING" and lease.start - booking.now() < STARTS_SOON:
            lease = _started(booking, lease)
    return lease


def _repair(booking: Booking, lease: Lease) -> None:
    """Give back what an interrupted run left in addition to the lease that counts."""
    for other in find_all(booking):
        if other.id == lease.id or other.status in LEAVING or other.start >= lease.end or lease.start >= other.end:
            continue  # a lease of another day may stay
        if other.used:
            booking.say(f"! lease {booking.name}: two, and each has a server. Collect, then tear down.")
            continue
        booking.say(f"lease {booking.name}: there were two; the one that nothing runs under is given back")
        delete(booking, other)


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
        with held(booking), asking(doing):
            booking.cloud.blazar.lease.update(lease.id, end_date=end)
    except ServiceError as error:
        raise rules.named(error, doing, by, lease.end, lease.start, booking.now()) from None
    lease = _stable(booking, lease.id)
    booking.say(f"lease {booking.name}: until {times.show(lease.end)}")
    return lease


def end_soon(booking: Booking, lease_id: str) -> datetime:
    """Have the site itself end the lease in a minute or so; returns when."""
    end = booking.now() + ENDS_SOON
    with asking(f"ending lease {booking.name}"):
        booking.cloud.blazar.lease.update(lease_id, end_date=end.strftime(times.BLAZAR))
    return end


def delete(booking: Booking, lease: Lease) -> None:
    """End the lease, and wait until it is gone.

    Not while a server under it cannot be deleted: Blazar then gives up after ten minutes, and from then on refuses to
    delete such a lease.
    """

    def state() -> str:
        try:
            return _get(booking, lease.id).status
        except GoneError:
            return "gone"

    what = f"lease {booking.name}"
    for last in (False, True):
        # Blazar refuses to delete a lease that is about to start
        booking.wait(what, state, (*STABLE, "DELETING", "gone"), CHANGE_BOUND_S)
        try:
            with deleting(what, state):
                booking.cloud.blazar.lease.delete(lease.id)
            break
        except ServiceError:
            if last or state() not in CHANGING:  # one that began to start just then can be deleted once it has started
                raise
    # a lease in ERROR again could not be ended: the attempt is over, and waiting does not help
    if booking.wait(what, state, ("gone", "ERROR"), CHANGE_BOUND_S) == "ERROR":
        raise FailedError(f"{what} ({lease.id}) went to ERROR while it was ending. Run this again, or ask the site.")


def _create(booking: Booking, length: timedelta, start: datetime | None) -> Lease:
    from chi.lease import Lease as Draft

    doing = f"making lease {booking.name}"

    def make() -> str:
        draft = Draft(booking.name, start_date=start, end_date=(start or booking.now()) + length)
        if booking.site.virtual_machine:
            draft.add_flavor_reservation(id=slots.flavor(booking, booking.node.name).id, amount=1)
        else:
            draft.add_node_reservation(amount=1, node_type=booking.node.name)
        reservations = draft.flavor_reservations + draft.node_reservations
        # not python-chi's Lease.submit: it keeps the reason of a refusal to itself
        with asking(doing):
            made = booking.cloud.blazar.lease.create(draft.name, draft.start_date, draft.end_date, reservations, [])
        return made["id"]

    def read() -> list[claims.Made]:
        with asking("reading the leases"):
            named = [_read(raw) for raw in booking.cloud.blazar.lease.list() if raw["name"] == booking.name]
        live = [lease for lease in named if lease.status not in LEAVING]
        # one that failed counts last
        return [claims.Made(NEVER if one.status == "ERROR" else one.created, one.id, one) for one in live]

    try:
        return claims.claim(booking, f"lease {booking.name}", make, read, lambda lease: delete(booking, lease))
    except ServiceError as error:
        if rules.is_taken(error):  # or an unknown node type, which Blazar does not tell apart
            raise slots.none_free(booking, length, start) from None
        raise rules.named(error, doing, length, now=booking.now()) from None


def _started(booking: Booking, lease: Lease) -> Lease:
    """The lease once it has started."""
    bound_s = (lease.start - booking.now()).total_seconds() + CHANGE_BOUND_S
    return _once(booking, lease.id, ("ACTIVE", "ERROR"), bound_s)


def _stable(booking: Booking, lease_id: str) -> Lease:
    """The lease once it has stopped changing."""
    return _once(booking, lease_id, STABLE, CHANGE_BOUND_S)


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
        raw = booking.cloud.blazar.lease.get(lease_id)
    if raw is None:  # Blazar's answer about a lease that goes while it reads
        raise GoneError(f"lease {booking.name} is gone. Run this again.")
    return _read(raw)
