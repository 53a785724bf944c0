"""All that the notebooks call, under one name.

    from provisioning import chameleon
    booking = chameleon.book("abc123", "g1.h100.pci.1")
    chameleon.ensure_lease(booking)

Each step reads first, does only what is missing, replaces what is in ERROR and waits with a bound. It may be run again
at any moment. What goes wrong is a ``ProvisioningError`` whose one line says what to do.
"""

from provisioning.access import ensure as ensure_access
from provisioning.addresses import ensure as ensure_address
from provisioning.booking import Booking, book, remember, resume
from provisioning.collect import collect
from provisioning.errors import ProvisioningError
from provisioning.leases import ensure as ensure_lease
from provisioning.notice import extend
from provisioning.runtime import build_image, install_runtime, start_jupyter
from provisioning.servers import ensure as ensure_server
from provisioning.slots import free_from, starting
from provisioning.status import status, warn_before_end
from provisioning.steps import plan, up
from provisioning.teardown import remains, teardown
from provisioning.times import parse_length
from provisioning.volumes import ensure as ensure_volume

__all__ = [
    "Booking", "ProvisioningError", "book", "build_image", "collect", "ensure_access", "ensure_address",
    "ensure_lease", "ensure_server", "ensure_volume", "extend", "free_from", "install_runtime", "parse_length",
    "plan", "remains", "remember", "resume", "start_jupyter", "starting", "status", "teardown", "up",
    "warn_before_end",
]  # fmt: skip
