"""Back to nothing: what carries the owner's tag is deleted, and read back to be gone."""

import contextlib

from provisioning import access, addresses, collect, keys, leases, servers, volumes
from provisioning.booking import Booking
from provisioning.errors import FailedError, GoneError


def remains(booking: Booking) -> list[str]:
    """All that exists of this booking, read from the services."""
    found = [f"server {server.name} ({server.status})" for server in servers.find_all(booking)]
    found += [f"address {address['floating_ip_address']}" for address in addresses.find_all(booking)]
    found += [f"volume {volume.name} ({volume.status})" for volume in _volumes(booking)]
    found += [f"security group {group['name']}" for group in _groups(booking)]
    found += [f"key {booking.name}"] if keys.find(booking) else []
    found += [f"lease {booking.name} ({lease.status})" for lease in leases.find_all(booking)]
    return found


def teardown(booking: Booking, discard: bool = False) -> list[str]:
    """Delete all that exists of this booking, and return it; nothing when there was nothing.

    Raises ``UncollectedWorkError`` before anything is deleted when there is work that was not brought home, unless
    told to ``discard`` it.
    """
    before = remains(booking)
    if not before:
        booking.say(f"{booking.name}: nothing is there")
        return []
    if not discard:
        collect.refuse_to_lose(booking)
    # what follows may be interrupted once the server is gone, and nobody could look into the volume then. The server
    # keeps its mark: as long as it lives, it is asked
    with contextlib.suppress(GoneError):
        volumes.mark(booking, {volumes.WORK: volumes.NO})
    for server in servers.find_all(booking):
        servers.delete(booking, server)
    for address in addresses.find_all(booking):
        addresses.delete(booking, address)
    for volume in _volumes(booking):
        volumes.delete(booking, volume)
    for group in _groups(booking):
        access.delete_group(booking, group)
    if keys.find(booking):
        keys.delete(booking)
    for lease in leases.find_all(booking):
        leases.delete(booking, lease)
    left = remains(booking)
    if left:
        raise FailedError(f"{booking.name}: still there after the teardown: {', '.join(left)}. Run it again.")
    booking.say(f"{booking.name}: gone: {', '.join(before)}")
    return before


def _volumes(booking: Booking) -> list:
    return volumes.find_all(booking) if booking.site.virtual_machine else []


def _groups(booking: Booking) -> list:
    return access.groups(booking) if booking.site.virtual_machine else []
