"""Who may reach the node: security groups of a virtual machine, the way in by SSH, students' keys."""

from typing import Any

from provisioning import addresses, keys, public_key, servers
from provisioning.booking import Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import LeaseOverError
from provisioning.ssh import Ssh

JUPYTER_PORT = 8888
ANYBODY = "0.0.0.0/0"


def groups(booking: Booking) -> list[dict[str, Any]]:
    """All security groups that carry the owner's tag."""
    with asking("reading the security groups"):
        found = booking.cloud.neutron.list_security_groups()["security_groups"]
    return [group for group in found if group["description"] == booking.tag_text]


def way_in(booking: Booking) -> Ssh:
    """The way into the node, as it is now."""
    server, address = servers.find(booking), addresses.find(booking)
    if server is None or address is None:
        missing = "server" if server is None else "address"
        raise LeaseOverError(f"{missing} {booking.name} is not there. Make it with ensure_{missing}.")
    site = booking.site
    hosts = booking.folder / "known_hosts"
    return Ssh(address, site.ssh_user, site.ssh_port, keys.private(booking), hosts, server.id)


def ensure(booking: Booking, also: str = "") -> Ssh:
    """Let SSH through, wait until the node lets us in, and let the public key ``also`` in too."""
    also = public_key.read(also, "the public key") if also.strip() else ""
    if booking.site.virtual_machine:
        group = _ensure_group(booking, "ssh", booking.site.ssh_port, ANYBODY)
        _put_on_port(booking, group)
    way = way_in(booking)
    way.wait(booking.site.ssh_timeout_s, booking.poll_s, booking.say)
    if also:
        way.run("authorize", also)
    booking.say(f"ssh {way.target}: lets us in")
    return way


def plan(booking: Booking) -> str:
    """What ``ensure`` would do."""
    if not booking.site.virtual_machine:
        return "wait for SSH; bare metal has no security groups"
    have = {group["name"] for group in groups(booking)}
    return "keep" if f"{booking.name}-ssh" in have else f"make: a security group for port {booking.site.ssh_port}"


def open_jupyter(booking: Booking) -> str:
    """Let this machine, and no other, reach Jupyter's port; returns the address that the node sees us by."""
    way = way_in(booking)
    caller = way.run("caller").strip()
    if booking.site.virtual_machine:
        group = _ensure_group(booking, "jupyter", JUPYTER_PORT, f"{caller}/32")
        _put_on_port(booking, group)
    else:
        way.run("limit", str(JUPYTER_PORT), caller)
    booking.say(f"port {JUPYTER_PORT}: open to {caller} only")
    return caller


def delete_group(booking: Booking, group: dict[str, Any]) -> None:
    """Delete one of our groups."""
    with deleting(f"security group {group['name']}"):
        booking.cloud.neutron.delete_security_group(group["id"])


def _ensure_group(booking: Booking, purpose: str, port: int, source: str) -> str:
    """The id of our group that lets ``source`` reach ``port``, and nobody else."""
    name = f"{booking.name}-{purpose}"
    group = next((group for group in groups(booking) if group["name"] == name), None)
    neutron = booking.cloud.neutron
    with asking(f"making security group {name}"):
        if group is None:
            body = {"name": name, "description": booking.tag_text}
            group = neutron.create_security_group({"security_group": body})["security_group"]
        rules = neutron.list_security_group_rules(security_group_id=group["id"], direction="ingress")
        have = False
        for rule in rules["security_group_rules"]:
            if (rule["remote_ip_prefix"] or ANYBODY, rule["port_range_min"]) == (source, port):
                have = True
            else:
                with deleting(f"rule of security group {name}"):  # of an address that we had before
                    neutron.delete_security_group_rule(rule["id"])
        if not have:
            rule = {
                "security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
                "port_range_min": port, "port_range_max": port, "remote_ip_prefix": source,
            }  # fmt: skip
            neutron.create_security_group_rule({"security_group_rule": rule})
    return group["id"]


def _put_on_port(booking: Booking, group_id: str) -> None:
    server = servers.find(booking)
    if server is None:
        raise LeaseOverError(f"server {booking.name} is not there. Make it with ensure_server.")
    port = addresses.port_of(booking, server)
    if group_id not in port["security_groups"]:
        with asking(f"putting security groups on server {booking.name}"):
            body = {"port": {"security_groups": [*port["security_groups"], group_id]}}
            booking.cloud.neutron.update_port(port["id"], body)
