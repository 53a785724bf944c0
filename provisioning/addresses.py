"""The public address: a floating IP on the server's port."""

from typing import Any

from provisioning import claims, leases, servers, times
from provisioning.booking import Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import LeaseOverError, NoAddressError, QuotaError, ServiceError, UnknownNameError, known

PORT_BOUND_S = 120.0
TRIES = 3


def find_all(booking: Booking) -> list[dict[str, Any]]:
    """All floating IPs that carry the owner's tag, those on a port first, then the oldest; never one that merely is
    unused."""
    with asking("reading the addresses"):
        found = booking.cloud.neutron.list_floatingips()["floatingips"]
    ours = [address for address in found if address.get("description") == booking.tag_text]
    return sorted(ours, key=lambda address: (address["port_id"] is None, address["created_at"], address["id"]))


def find(booking: Booking) -> str | None:
    """The public address, if there is one."""
    return next((address["floating_ip_address"] for address in find_all(booking)), None)


def ensure(booking: Booking) -> str:
    """The public address of the server, made and put on its port where that is missing."""
    server = servers.find(booking)
    if server is None:
        raise LeaseOverError(f"server {booking.name} is not there. Run 'up' (ensure_server) first.")
    with leases.held(booking):
        return _ensure(booking, server)


def _ensure(booking: Booking, server: Any) -> str:
    port = port_of(booking, server)
    for last in (*[False] * (TRIES - 1), True):
        # a port takes one address: the run that attaches the first one decides for all
        address = min(find_all(booking) or [_create(booking)], key=lambda one: one["port_id"] != port["id"])
        try:
            if address["port_id"] != port["id"]:
                with asking(f"putting address {address['floating_ip_address']} on server {booking.name}"):
                    body = {"floatingip": {"port_id": port["id"]}}
                    booking.cloud.neutron.update_floatingip(address["id"], body)
            break
        except ServiceError:  # the port has another run's address, or that run gave this one back
            if last:
                raise
    for other in find_all(booking):
        if other["port_id"] is None:  # of a run that was interrupted, or in the same moment
            booking.say(f"address {other['floating_ip_address']}: one too many, given back")
            delete(booking, other)
    booking.say(f"address {booking.name}: {address['floating_ip_address']}")
    return address["floating_ip_address"]


def plan(booking: Booking) -> str:
    """What ``ensure`` would do."""
    address = find(booking)
    return f"keep {address}" if address else "make: one of the site's public addresses"


def delete(booking: Booking, address: dict[str, Any]) -> None:
    """Give one of our addresses back."""
    with deleting(f"address {address['floating_ip_address']}"):
        booking.cloud.neutron.delete_floatingip(address["id"])


def port_of(booking: Booking, server: Any) -> dict[str, Any]:
    """The server's port on the site's network; waited for, since a server is listed before its port is."""
    ports: list[dict[str, Any]] = []

    def look() -> str:
        with asking(f"reading the ports of server {booking.name}"):
            ports[:] = booking.cloud.neutron.list_ports(device_id=server.id)["ports"]
        if not ports:
            leases.hold(booking)  # with the lease the server goes, and with it its port
        return "there" if ports else "not there yet"

    booking.wait(f"port of server {booking.name}", look, ("there",), PORT_BOUND_S)
    return ports[0]


def _create(booking: Booking) -> dict[str, Any]:
    name = booking.site.public_network
    with asking("reading the networks"):
        networks = booking.cloud.neutron.list_networks(**{"router:external": True})["networks"]
    network = next((network["id"] for network in networks if network["name"] == name), None)
    if network is None:
        names = [network["name"] for network in networks]
        raise UnknownNameError(f"public network '{name}' is not at {booking.site.name}. {known(name, names)}")
    body = {"floating_network_id": network, "description": booking.tag_text}  # the tag is there from the first moment

    def make() -> str:
        with asking(f"making an address for {booking.name}"):
            return booking.cloud.neutron.create_floatingip({"floatingip": body})["floatingip"]["id"]

    def read() -> list[claims.Made]:
        return [claims.Made(times.parse_iso(one["created_at"]), one["id"], one) for one in find_all(booking)]

    what = f"address of {booking.name}"
    try:
        return claims.claim(booking, what, make, read, lambda one: delete(booking, one), lambda: leases.hold(booking))
    except QuotaError as error:
        raise NoAddressError(f"{error} Unused floating IPs are in the site's list under Network.") from None
