"""A student's time by the class list: when it begins, what is left of it, which students did not come."""

from datetime import datetime, timedelta

from provisioning import leases, servers, times, volumes
from provisioning.booking import Booking
from provisioning.errors import NoSlotError
from provisioning.leases import Lease
from provisioning.roster import Student

SHORTEST = timedelta(minutes=1)
"""Blazar keeps whole minutes."""


def end(student: Student, length: timedelta) -> datetime | None:
    """When the student's time ends; ``length`` where the list names none. None without a start."""
    return student.start + (student.length or length) if student.start else None


def still(
    student: Student, start: datetime | None, length: timedelta, now: datetime
) -> tuple[datetime | None, timedelta] | None:
    """Start and length of a lease that keeps to the class list, or None when the student's time is over.

    A start of None is now. A late student gets what is left, since another has the node afterwards. ``start`` and
    ``length`` count where the list names none.
    """
    until = end(student, length)
    if until is None:
        return start, student.length or length
    if until - now < SHORTEST:
        return None
    return (None, until - now) if student.start <= now else (student.start, student.length or length)


def reserve(booking: Booking, start: datetime, length: timedelta) -> Lease:
    """The lease for this time, made ahead of it. Raises ``NoSlotError`` when the booking has one for another time."""
    lease = leases.ensure(booking, length, start)
    if abs(lease.start - start) >= SHORTEST or abs(lease.end - start - length) >= SHORTEST:
        raise NoSlotError(
            f"lease {booking.name} is there already, from {times.show(lease.start)} until {times.show(lease.end)}. "
            "Keep it and write its time into the class list, or end it with 'down' and book again."
        )
    return lease


def absent(booking: Booking, student: Student) -> str | None:
    """Why the node is not used although the student's time has begun; None when it is used, or the time has not begun.

    A student's time begins with the class list's start, or else with the lease.
    """
    lease = leases.find(booking)
    begins = student.start or (lease.start if lease else None)
    if begins is None or begins > booking.now():
        return None
    since = f"time began at {times.show(begins)}"
    server = servers.find(booking)
    if server is None:
        return f"{since}: no server" if lease else f"{since}: no lease"
    if server.status != "ACTIVE":
        return f"{since}: the server is {server.status}"
    # the mark is set when Jupyter is started
    return None if server.metadata.get(volumes.WORK) == volumes.YES else f"{since}: Jupyter was never started"
