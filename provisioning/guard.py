"""The idle guard: on the node, it stops a Jupyter that is not used. Off unless you ask for it.

It neither ends the lease nor shuts the node down. The first needs the site's credentials, which have no place on a
student's machine; a node that is shut down costs the same until its lease ends, and could not be collected from. What
an idle node costs is given back by ``sweep``, then ``collect`` and ``down``, from where the credentials are.
"""

from datetime import timedelta

from provisioning import access, times
from provisioning.booking import Booking
from provisioning.errors import UsageError
from provisioning.ssh import REMOTE

OFF = "off"
SHORTEST = timedelta(minutes=5)
"""It looks once a minute, and a student reads for a while."""


def parse(text: str) -> str:
    """The minutes that ``30m`` means, or ``off``, as the node's script reads it. Raises ``UsageError``."""
    if text == OFF:
        return OFF
    after = times.parse_length(text, "--idle-guard: ")
    if after < SHORTEST:
        raise UsageError(f"--idle-guard={text} is too short. Give {times.written(SHORTEST)} at least, or off.")
    return str(int(after.total_seconds()) // 60)


def set_guard(booking: Booking, minutes: str) -> None:
    """Have the node stop Jupyter after ``minutes`` without use, or no longer with ``off``."""
    text = (REMOTE / "activity.sh").read_text(encoding="utf-8") if minutes != OFF else ""
    booking.say(access.way_in(booking).run("guard", minutes, text).strip())
