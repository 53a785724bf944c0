"""The server: the node once it is booted."""

import contextlib
from typing import Any

from provisioning import claims, keys, leases, slots, times, volumes
from provisioning.booking import LEASE, TAG, Booking
from provisioning.cloud import asking, deleting
from provisioning.errors import (
    FailedError,
    GoneError,
    LeaseOverError,
    NotOursError,
    ServiceError,
    TooSlowError,
    UnknownNameError,
    known,
)
from provisioning.leases import Lease

TASK = "OS-EXT-STS:task_state"
TRIES = 2
DISK_WITH_SERVER = "2.85"
"""The first version of Nova's API that lets one say later that a disk goes with its server."""
STOP_BOUND_S = 600.0
FLAVOR_BOUND_S = 120.0
"""How long after a lease has started its flavor may take to be listed."""


def find_all(booking: Booking) -> list[Any]:
    """All servers that carry the owner's tag, the oldest first; ``NotOursError`` for one that has the name only."""
    with asking("reading the servers"):
        servers = booking.cloud.nova.servers.list()
    for server in servers:
        if server.name == booking.name and server.metadata.get(TAG) != booking.name:
            raise NotOursError(f"server {server.name} ({server.id}) lacks the tag {booking.tag_text}. Rename it.")
    ours = [server for server in servers if server.metadata.get(TAG) == booking.name]
    return sorted(ours, key=lambda server: (server.created, server.id))


def find(booking: Booking) -> Any | None:
    """The server, if there is one."""
    return best(find_all(booking))


def best(there: list[Any]) -> Any | None:
    """Of several servers: one with work on it first, one that is being deleted last."""
    worth = lambda one: (is_leaving(one), one.metadata.get(volumes.WORK) != volumes.YES)  # noqa: E731
    return min(there, key=worth, default=None)


def is_leaving(server: Any) -> bool:
    """Whether the server is being deleted: Nova ends the task before it forgets the server."""
    return getattr(server, TASK) in ("deleting", "soft-deleting") or server.status in ("DELETED", "SOFT_DELETED")


def ensure(booking: Booking) -> Any:
    """The server, made when it is missing or in ERROR, and started when it is shut off."""
    with leases.held(booking) as lease:
        leases.check_active(booking, lease)
        return _ensure(booking, lease)


def _ensure(booking: Booking, lease: Lease) -> Any:
    for _ in range(TRIES):
        server = find(booking) or _create(booking, lease)
        _same_lease(booking, server, lease)
        what, bound_s = f"server {booking.name}", booking.site.boot_timeout_min * 60
        ends = ("ACTIVE", "ERROR", "SHUTOFF", "gone")
        status = booking.wait(what, lambda s=server: _state(booking, s.id), ends, bound_s)
        if status == "SHUTOFF":
            with asking(f"starting {what}"):
                booking.cloud.nova.servers.start(server.id)
            status = booking.wait(what, lambda s=server: _state(booking, s.id), ("ACTIVE", "ERROR"), bound_s)
        if status == "ACTIVE":
            booking.say(f"{what}: ACTIVE")
            return _give_back_others(booking, server)
        server = find(booking)
        reason = getattr(server, "fault", {}).get("message", "no reason given")
        booking.say(f"{what}: {status} ({reason}), replaced")
        if server is not None:
            delete(booking, server)
    raise FailedError(
        f"server {booking.name} went to ERROR {TRIES} times: {reason}. Try another node, or ask the site."
    )


def _give_back_others(booking: Booking, server: Any) -> Any:
    """Delete what else an interrupted run left, unless there may be work on it; the server as it is now."""
    there = find_all(booking)
    for other in there:
        if other.id != server.id and not is_leaving(other) and other.metadata.get(volumes.WORK) != volumes.YES:
            booking.say(f"server {booking.name}: there were two; the one without work is given back")
            delete(booking, other)
    return next((one for one in there if one.id == server.id), None)


def plan(booking: Booking) -> str:
    """What ``ensure`` would do."""
    server = find(booking)
    if server is None:
        how = "from its volume" if booking.site.virtual_machine else f"from {booking.site.image}"
        return f"make: boots {how}, up to {booking.site.boot_timeout_min:g} min"
    return "replace the one in ERROR" if server.status == "ERROR" else f"keep, {server.status}"


def take_volume_along(booking: Booking, server: Any) -> None:
    """Let Nova delete the boot volume with the server, even if we are cut off in between."""
    from novaclient.client import Client

    if not booking.site.virtual_machine:
        return
    nova = Client(DISK_WITH_SERVER, session=booking.cloud.session)
    for disk in getattr(server, "os-extended-volumes:volumes_attached"):
        # an older Nova, or a site's rule, may refuse: the volume is deleted by us then
        with contextlib.suppress(ServiceError), asking(f"marking the disk of server {booking.name}"):
            nova.volumes.update_server_volume(server.id, disk["id"], disk["id"], delete_on_termination=True)


def ask_to_go(booking: Booking, server: Any) -> None:
    """Let the site begin to delete one of our servers."""
    with deleting(f"server {booking.name}"):
        booking.cloud.nova.servers.delete(server.id)


def are_gone(booking: Booking, bound_s: float) -> bool:
    """Whether all of our servers are gone within this time."""
    try:
        booking.wait(
            f"servers of {booking.name}", lambda: "deleting" if find_all(booking) else "gone", ("gone",), bound_s
        )
    except TooSlowError:
        if booking.stop.is_set():
            raise
        return False
    return True


def delete(booking: Booking, server: Any) -> None:
    """Delete one of our servers, and wait until it is gone."""
    what = f"server {booking.name}"
    ask_to_go(booking, server)
    booking.wait(what, lambda: _state(booking, server.id), ("gone",), STOP_BOUND_S)


def mark(booking: Booking, values: dict[str, str]) -> None:
    """Write metadata on the server and on its volume, where any machine can read it back."""
    server = find(booking)
    if server is not None:
        with asking(f"marking server {booking.name}"):
            booking.cloud.nova.servers.set_meta(server.id, values)
    volumes.mark(booking, values)


def _state(booking: Booking, server_id: str) -> str:
    """Asked again and again while it is waited for: of this server alone, not of all that a class has."""
    try:
        with asking(f"reading server {booking.name}"):
            return booking.cloud.nova.servers.get(server_id).status
    except GoneError:
        return "gone"


def _same_lease(booking: Booking, server: Any, lease: Lease) -> None:
    made_under = server.metadata.get(LEASE)
    if made_under != lease.id and server.status != "ERROR":
        raise LeaseOverError(f"server {booking.name} is of an earlier lease. Collect its work, then tear it down.")


def _network(booking: Booking) -> str:
    name = booking.site.network
    with asking("reading the networks"):
        networks = booking.cloud.neutron.list_networks()["networks"]
    found = next((network["id"] for network in networks if network["name"] == name), None)
    if found is None:
        names = [network["name"] for network in networks]
        raise UnknownNameError(f"network '{name}' is not at {booking.site.name}. {known(name, names)}")
    return found


def _create(booking: Booking, lease: Lease) -> Any:
    options: dict[str, Any] = {}
    if booking.site.virtual_machine:
        volume = volumes.ensure(booking)
        kind, image = _reserved_flavor(booking, lease), None
        # not deleted with the server: one in ERROR is replaced without losing the disk
        disk = {"boot_index": 0, "uuid": volume.id, "source_type": "volume", "destination_type": "volume"}
        options["block_device_mapping_v2"] = [disk | {"delete_on_termination": False}]
    else:
        kind, image = slots.flavor(booking, booking.site.flavor), volumes.image(booking)
        options["scheduler_hints"] = {"reservation": lease.reservation_id}
    what = f"server {booking.name}"
    options |= {"key_name": keys.ensure(booking), "nics": [{"net-id": _network(booking)}]}

    def make() -> str:
        with asking(f"making {what}"):
            data = booking.tag | {LEASE: lease.id}
            return booking.cloud.nova.servers.create(booking.name, image=image, flavor=kind, meta=data, **options).id

    def read() -> list[claims.Made]:
        live = [one for one in find_all(booking) if not is_leaving(one)]
        return [claims.Made(times.parse_iso(one.created), one.id, one) for one in live]

    return claims.claim(booking, what, make, read, lambda one: delete(booking, one), lambda: leases.hold(booking))


def _reserved_flavor(booking: Booking, lease: Lease) -> Any:
    """The flavor that Blazar made for the reservation; no other one may be started under it."""
    key, found = "aggregate_instance_extra_specs:reservation", []

    def look() -> str:
        with asking("reading the flavors"):
            flavors = booking.cloud.nova.flavors.list()
        found[:] = [
            flavor for flavor in flavors
            if flavor.name == f"reservation:{lease.reservation_id}"
            or getattr(flavor, "extra_specs", {}).get(key) == lease.reservation_id
        ]  # fmt: skip
        if not found:
            leases.hold(booking)  # with the lease its flavor goes
        return "there" if found else "not listed yet"

    booking.wait(f"flavor of lease {booking.name}", look, ("there",), FLAVOR_BOUND_S)
    return found[0]
