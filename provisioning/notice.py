"""The notice inside JupyterLab: when the lease ends. ``labkit.lab.lease`` shows what is written here."""

import json
from datetime import timedelta

from provisioning import access, leases
from provisioning.booking import Booking
from provisioning.errors import ProvisioningError
from provisioning.leases import Lease


def tell(booking: Booking, lease: Lease) -> bool:
    """Let Jupyter on the node know when ``lease`` ends; whether it does.

    A notice that cannot be written is reported and stops nothing: the lab works without it.
    """
    try:
        access.way_in(booking).run("notice", json.dumps({"end": lease.end.isoformat()}))
    except ProvisioningError as error:
        booking.say(f"notice: JupyterLab will not warn before the lease ends ({error})")
        return False
    booking.say("notice: JupyterLab says when the lease ends, and warns 30 and 10 minutes before")
    return True


def extend(booking: Booking, by: timedelta) -> Lease:
    """Let the lease end later, and let the student know inside JupyterLab."""
    lease = leases.extend(booking, by)
    tell(booking, lease)
    return lease
