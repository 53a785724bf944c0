"""Who may reach the node: security groups of a virtual machine, the way in by SSH, students' keys."""

import contextlib
from typing import Any

from provisioning import addresses, claims, keys, leases, public_key, servers, times
from provisioning.booking import Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import FailedError, LeaseOverError, ServiceError
from provisioning.ssh import Ssh

JUPYTER_PORT = 8888
ANYBODY = "0.0.0.0/0"
TRIES = 3


def groups(booking: Booking) -> list[dict[str, Any]]:
    """All security groups that carry the owner's tag, the oldest first."""
    with asking("reading the security groups"):
        found = booking.cloud.neutron.list_security_groups()["security_groups"]
    ours = [group for group in found if group["description"] == booking.tag_text]
    return sorted(ours, key=lambda group: (group["created_at"], group["id"]))


def way_in(booking: Booking, server: Any | None = None) -> Ssh:
    """The way into the node, as it is now; ``server`` is one that was just found."""
    server, address = server or servers.find(booking), addresses.find(booking)
    if server is None or address is None:
        missing = "server" if server is None else "address"
        raise LeaseOverError(f"{missing} {booking.name} is not there. Run 'up' (ensure_{missing}) first.")
    site = booking.site
    hosts = booking.folder / "known_hosts"
    return Ssh(address, site.ssh_user, site.ssh_port, keys.private(booking), hosts, server.id)


def ensure(booking: Booking, also: str = "") -> Ssh:
    """Let SSH through, wait until the node lets us in, and let the public key ``also`` in too."""
    also = public_key.read(also, "the public key") if also.strip() else ""
    with leases.held(booking):
        return _ensure(booking, also)


def _ensure(booking: Booking, also: str) -> Ssh:
    if booking.site.virtual_machine:
        group = _ensure_group(booking, "ssh", booking.site.ssh_port, ANYBODY)
        _put_on_port(booking, group)
    way = way_in(booking)
    way.wait(booking.site.ssh_timeout_s, booking.poll_s, booking.say, lambda: leases.hold(booking))
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
    """The id of our group that lets ``source`` reach ``port``, and no one else."""
    name = f"{booking.name}-{purpose}"
    neutron = booking.cloud.neutron

    def make() -> str:
        body = {"name": name, "description": booking.tag_text}
        with asking(f"making security group {name}"):
            return neutron.create_security_group({"security_group": body})["security_group"]["id"]

    def read() -> list[claims.Made]:
        named = [one for one in groups(booking) if one["name"] == name]
        return [claims.Made(times.parse_iso(one["created_at"]), one["id"], one) for one in named]

    what, hold = f"security group {name}", lambda: leases.hold(booking)
    here = read()
    group = here[0].thing if here else None
    if group is None:
        group = claims.claim(booking, what, make, read, lambda one: delete_group(booking, one), hold)
    for other in here[1:]:  # what an interrupted run left; one that a port uses the site keeps
        with contextlib.suppress(ServiceError):
            delete_group(booking, other.thing)
    _let_through(booking, group, port, source)
    return group["id"]


def _let_through(booking: Booking, group: dict[str, Any], port: int, source: str) -> None:
    """Leave one rule in the group: ``source`` may reach ``port``."""
    neutron, name = booking.cloud.neutron, group["name"]

    def read() -> list[dict[str, Any]]:
        with asking(f"reading the rules of security group {name}"):
            return neutron.list_security_group_rules(security_group_id=group["id"], direction="ingress")[
                "security_group_rules"
            ]

    def is_it(rule: dict[str, Any]) -> bool:
        return (rule["remote_ip_prefix"] or ANYBODY, rule["port_range_min"]) == (source, port)

    rules = read()
    for rule in rules:
        if not is_it(rule):  # of an address that we had before
            with deleting(f"rule of security group {name}"):
                neutron.delete_security_group_rule(rule["id"])
    if not any(is_it(rule) for rule in rules):
        rule = {
            "security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
            "port_range_min": port, "port_range_max": port, "remote_ip_prefix": source,
        }  # fmt: skip
        try:
            with asking(f"writing the rule of security group {name}"):
                neutron.create_security_group_rule({"security_group_rule": rule})
        except ServiceError:  # the same rule twice is refused: somebody else just wrote it, or the answer was lost
            if not any(is_it(one) for one in read()):
                raise


def _put_on_port(booking: Booking, group_id: str) -> None:
    server = servers.find(booking)
    if server is None:
        raise LeaseOverError(f"server {booking.name} is not there. Run 'up' (ensure_server) first.")
    for _ in range(TRIES):
        port = addresses.port_of(booking, server)
        if group_id in port["security_groups"]:
            return
        # read, and written as a whole: what somebody else wrote in between may be lost, so it is read again
        with asking(f"putting security groups on server {booking.name}"):
            body = {"port": {"security_groups": [*port["security_groups"], group_id]}}
            booking.cloud.neutron.update_port(port["id"], body)
    if group_id not in addresses.port_of(booking, server)["security_groups"]:
        raise FailedError(f"security group {group_id} does not stay on server {booking.name}. Run this again.")
