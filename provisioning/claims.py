"""One of each, though several processes make it: make, read again, and give the younger one back.

The services have no lock that two machines could share, but they order what was made, by time and id. So a process
that has made a thing reads again when no older one can be made any more, and gives its own back unless it is the first.
The first is never given back, and all processes continue with it.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from provisioning.booking import Booking
from provisioning.errors import ProvisioningError, ServiceError, TooSlowError, UnansweredError

TRIES = 3
LOOKS = 3
"""After an answer that was lost: the service may still be working on it."""
SECOND = timedelta(seconds=1)
"""Services write in whole seconds when a thing was made."""
ORDERED_WITHIN_S = 60.0


class Made(NamedTuple):
    """A thing at a service; the smallest is the one that counts."""

    created: datetime
    id: str
    thing: Any


def claim(
    booking: Booking, what: str, make: Callable[[], str], read: Callable[[], list[Made]],
    give_back: Callable[[Any], None], check: Callable[[], None] = lambda: None,
) -> Any:  # fmt: skip
    """The one thing that counts, made by ``make`` (which returns its id) or by another process in the same moment.

    ``check`` raises when it must not be made any more; what was made in between is then given back.
    """
    booking.check_not_interrupted()
    check()
    mine = _make(booking, what, make, read)
    found = _in_order(booking, read)
    ours = next((one for one in found if one.id == mine), None)
    try:
        check()
    except ProvisioningError:
        if ours is not None:
            give_back(ours.thing)
        raise
    if not found:
        raise ServiceError(f"{what} was made and is gone again: somebody deleted it. Run this again.")
    if ours is not None and ours is not found[0]:
        booking.say(f"{what}: another was made in the same moment; this one, the younger, is given back")
        give_back(ours.thing)
    return found[0].thing


def _in_order(booking: Booking, read: Callable[[], list[Made]]) -> list[Made]:
    """What there is, the first one first, read when none of the same second can be made any more."""
    started = time.monotonic()
    while True:
        found = sorted(read(), key=lambda one: one[:2])
        # the site's own time at that reading, not what this machine makes of it
        if not found or booking.cloud.transport.stamp >= found[0].created + SECOND:
            return found
        if time.monotonic() - started > ORDERED_WITHIN_S:
            raise TooSlowError(
                f"the clocks of {booking.site.name} differ by more than {ORDERED_WITHIN_S:.0f} s. Ask the site."
            )
        booking.stop.wait(1.02 - booking.now().microsecond / 1e6)


def _make(booking: Booking, what: str, make: Callable[[], str], read: Callable[[], list[Made]]) -> str:
    """The id of what was made, or of what is there although the answer was lost; empty where there may be one only
    and somebody was quicker."""
    for last in (*[False] * (TRIES - 1), True):
        try:
            return make()
        except UnansweredError:
            found = _look(booking, read)
            if found:
                booking.say(f"{what}: the answer was lost, but it is there")
                return found[0].id
            if last:
                raise
            booking.say(f"{what}: no answer, and it is not there; made again")
        except ServiceError:
            if not read():
                raise
            return ""
    raise AssertionError("the last try returns or raises")


def _look(booking: Booking, read: Callable[[], list[Made]]) -> list[Made]:
    for _ in range(LOOKS):
        found = sorted(read(), key=lambda one: one[:2])
        if found:
            return found
        booking.stop.wait(booking.poll_s)
    return []
