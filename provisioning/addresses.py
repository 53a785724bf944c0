"""The public address: a floating IP on the server's port."""

from typing import Any

from provisioning import servers
from provisioning.booking import Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import LeaseOverError, NoAddressError, QuotaError, UnknownNameError, known


def find_all(booking: Booking) -> list[dict[str, Any]]:
    """All floating IPs that carry the owner's tag; never one that merely is unused."""
    with asking("reading the addresses"):
        found = booking.cloud.neutron.list_floatingips()["floatingips"]
    return [address for address in found if address.get("description") == booking.tag_text]


def find(booking: Booking) -> str | None:
    """The public address, if there is one."""
    return next((address["floating_ip_address"] for address in find_all(booking)), None)


def ensure(booking: Booking) -> str:
    """The public address of the server, made and put on its port where that is missing."""
    server = servers.find(booking)
    if server is None:
        raise LeaseOverError(f"server {booking.name} is not there. Make it with ensure_server.")
    port = port_of(booking, server)
    address = next(iter(find_all(booking)), None) or _create(booking)
    if address["port_id"] != port["id"]:
        with asking(f"putting address {address['floating_ip_address']} on server {booking.name}"):
            body = {"floatingip": {"port_id": port["id"]}}
            booking.cloud.neutron.update_floatingip(address["id"], body)
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
    """The server's port on the site's network."""
    with asking(f"reading the ports of server {booking.name}"):
        ports = booking.cloud.neutron.list_ports(device_id=server.id)["ports"]
    if not ports:
        raise LeaseOverError(f"server {booking.name} has no port yet. Run this again when it is ACTIVE.")
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
    try:
        with asking(f"making an address for {booking.name}"):
            return booking.cloud.neutron.create_floatingip({"floatingip": body})["floatingip"]
    except QuotaError as error:
        raise NoAddressError(f"{error} Floating IPs that nobody uses are in the site's list under Network.") from None
