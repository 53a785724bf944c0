"""Back to nothing: all that carries a netID's tag, at all sites, is deleted, and read back to be gone.

Money first: the lease ends even if a server or a volume cannot be deleted.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from provisioning import (
    access,
    addresses,
    collect,
    cost,
    inventory,
    keys,
    leases,
    running,
    servers,
    sites,
    times,
    volumes,
)  # fmt: skip
from provisioning.booking import Booking, name_of, of
from provisioning.cloud import Cloud
from provisioning.errors import FailedError, LeaseOverError, ProvisioningError, RemoteError, SshError
from provisioning.inventory import Holding, Seen
from provisioning.ssh import Ssh

FIRST_S = 120.0
"""How long servers may take to go before the lease is ended over them."""


@dataclass(frozen=True)
class Scan:
    """All that one netID has."""

    holdings: dict[Booking, list[Holding]]
    seen: Seen

    @property
    def names(self) -> list[str]:
        """What there is, for a person."""
        return [str(holding) for held in self.holdings.values() for holding in held]


def scan(netid: str, clouds: Mapping[str, Cloud], say: Callable[[str], None], stop: threading.Event) -> Scan:
    """Read what ``netid`` has at all sites, each booking with the means to delete it."""
    seen = inventory.look(say, clouds)
    found: dict[Booking, list[Holding]] = {}
    for site in sites.load_sites():
        for node in {node.count > 1: node for node in reversed(site.nodes)}.values():
            named = (site.name, name_of(netid, node))
            ours = [one for one in seen.things.get(netid, ()) if (one.site, one.owner) == named]
            if ours:
                made = of(netid, site, node, seen.clouds[site.name], say)
                made.stop = stop
                found[made] = ours
    return Scan(found, seen)


def remains(booking: Booking) -> list[str]:
    """All that exists of this booking's netID at all sites, read from the services."""
    return scan(booking.netid, {booking.site.name: booking.cloud}, booking.say, booking.stop).names


def teardown(booking: Booking, discard: bool = False) -> list[str]:
    """Delete all that exists of this booking's netID, and return it; nothing when there was nothing.

    Raises ``UncollectedWorkError`` before anything is deleted when there is work that was not brought home, unless
    told to ``discard`` it; ``FailedError`` with what stays when the site does not let it go.
    """
    clouds = {booking.site.name: booking.cloud}
    return teardown_of(booking.netid, discard, booking.say, booking.stop, clouds)


def teardown_of(
    netid: str, discard: bool, say: Callable[[str], None], stop: threading.Event,
    clouds: Mapping[str, Cloud] = MappingProxyType({}),
) -> list[str]:  # fmt: skip
    """The same for a netID alone, wherever its nodes are; ``clouds`` are those that are logged in already."""
    found = scan(netid, clouds, say, stop)
    for reason in found.seen.unseen:
        say(f"! {netid}: {reason}")
    before = found.names
    if not before:
        say(f"{netid}: nothing is there")
        return []
    for booking in found.holdings:
        if discard:
            servers.find_all(booking), volumes.find_all(booking)  # raise for things that have our name and not our tag
        else:
            collect.refuse_to_lose(booking)
    if not discard:
        _look_once_more(found.holdings)
    problems = [problem for booking, held in found.holdings.items() for problem in _take_down(booking, held)]
    stays = scan(netid, found.seen.clouds, say, stop).holdings
    left = [_priced(booking, one) for booking, held in stays.items() for one in held]
    if left:
        why = f" {' '.join(problems)}" if problems else ""
        raise FailedError(f"{netid}: still there after the teardown: {', '.join(left)}.{why} Run 'down' again.")
    say(f"{netid}: gone: {', '.join(before)}")
    return before


def _priced(booking: Booking, holding: Holding) -> str:
    """What stays, with what it costs: sites charge for leases, and name no rate for anything else."""
    if holding.kind != "lease" or holding.end is None:
        return str(holding)
    return f"{holding}, {cost.per_hour(booking.node)} until {times.show(holding.end)}"


def _look_once_more(bookings: Iterable[Booking]) -> None:
    """Stop the labs and look again: what was saved after the first look is seen, and nothing is saved any more.

    When one of them is refused, all are started again.
    """
    stopped: list[Ssh] = []
    try:
        for booking in bookings:
            server = servers.find(booking)
            if server is None or servers.is_leaving(server) or server.metadata.get(volumes.WORK) != volumes.YES:
                continue
            try:
                stopped.append(access.way_in(booking, server))
                running.stop(stopped[-1])
            except (SshError, RemoteError, LeaseOverError):
                left = servers.find(booking)
                if left is not None and not servers.is_leaving(left):
                    raise
                # it was on its way out, and what is left is asked
            collect.refuse_to_lose(booking)
    except ProvisioningError:
        for way in stopped:
            with contextlib.suppress(ProvisioningError):  # the student needs the first reason
                running.resume(way)
        raise


def _take_down(booking: Booking, held: list[Holding]) -> list[str]:
    """Delete what one booking has; what could not be, and why."""
    problems: list[str] = []

    def each(act: Callable, things: Callable[[], list] | list) -> None:
        with _noting(problems):
            for thing in things() if callable(things) else things:
                with _noting(problems):
                    act(booking, thing)

    # what follows may be interrupted once the server is gone, and then no one could look into the volume. The server
    # keeps its mark: as long as it lives, it is asked
    with _noting(problems):
        volumes.mark(booking, {volumes.WORK: volumes.NO})
    each(_let_go, lambda: servers.find_all(booking))
    under = [one for one in held if one.kind == "lease"]
    if servers.are_gone(booking, FIRST_S):
        each(leases.delete, under)
    else:
        each(_end, [one for one in under if one.state == "ACTIVE"])
        each(servers.delete, lambda: servers.find_all(booking))
    each(addresses.delete, lambda: addresses.find_all(booking))
    if booking.site.virtual_machine:
        each(volumes.delete, lambda: volumes.find_all(booking))
        each(access.delete_group, lambda: access.groups(booking))
    each(keys.delete, lambda: keys.find_all(booking))
    return problems


def _let_go(booking: Booking, server: Any) -> None:
    servers.take_volume_along(booking, server)
    servers.ask_to_go(booking, server)


def _end(booking: Booking, lease: Holding) -> None:
    """For a lease whose server cannot be deleted; a later run deletes the lease."""
    end = leases.end_soon(booking, lease.id)
    booking.say(f"! lease {booking.name}: its server does not go; the lease ends at {times.show(end)} nevertheless")


@contextlib.contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """A thing that cannot be deleted does not keep the others from being deleted."""
    try:
        yield
    except ProvisioningError as error:
        problems.append(str(error))
