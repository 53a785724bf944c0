"""One of each, whoever else is at it: make, look again, and give the younger one back.

The services have no lock that two machines could share. What they have is the time at which each thing was made. So who
makes one reads again after it, and gives it back where another is as old or older.
"""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from provisioning.booking import Booking
from provisioning.errors import FailedError, ProvisioningError, ServiceError, UnansweredError

TRIES = 4
LOOKS = 3
"""After an answer that was lost: a service may still be at it."""


class Made(NamedTuple):
    """A thing at a service; the smallest is the one that counts."""

    created: datetime
    id: str
    thing: Any


def claim(
    booking: Booking, what: str, make: Callable[[], str], read: Callable[[], list[Made]],
    give_back: Callable[[Any], None], check: Callable[[], None] = lambda: None,
) -> Any:  # fmt: skip
    """The one thing that counts, made by ``make`` (which returns its id) or by somebody else in the same moment.

    ``check`` raises when it must not be made any more; what was made meanwhile is given back then.
    """
    for _ in range(TRIES):
        check()
        mine = _make(booking, what, make, read)
        found = sorted(read(), key=lambda one: one[:2])
        ours = next((one for one in found if one.id == mine), None)
        try:
            check()
        except ProvisioningError:
            if ours is not None:
                give_back(ours.thing)
            raise
        if ours is None:
            if found:
                return found[0].thing
        # the services write whole seconds: who cannot tell which is older does not know either whether it was seen
        elif any(_second(one) <= _second(ours) for one in found if one is not ours):
            booking.say(f"{what}: another was made in the same moment, so this one is given back")
            give_back(ours.thing)
            if _second(found[0]) < _second(ours):
                return found[0].thing
        else:
            return ours.thing
        booking.stop.wait(random.uniform(0, 2 * booking.poll_s))
        found = sorted(read(), key=lambda one: one[:2])
        if found:
            return found[0].thing
    raise FailedError(f"{what} was made and given back {TRIES} times: others make it too. Run this again in a minute.")


def _second(one: Made) -> datetime:
    return one.created.replace(microsecond=0)


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
