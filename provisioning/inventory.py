"""Everything at a site with a tag of ours, for any student and from any machine: read from the services."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from provisioning import times
from provisioning.booking import LEASE, TAG, netid_of
from provisioning.cloud import Cloud, asking
from provisioning.errors import ProvisioningError, ServiceError
from provisioning.keys import ENDING
from provisioning.sites import Site, load_sites


@dataclass(frozen=True)
class Holding:
    """One thing at a site."""

    kind: str
    """lease, server, volume, address, security group or key."""
    owner: str
    """The name of the booking that it belongs to: ``llm_single_abc123``."""
    id: str
    name: str
    """As the site lists it: somebody may have renamed it."""
    state: str
    site: str
    created: datetime | None = None
    end: datetime | None = None
    """Of a lease."""

    @property
    def netid(self) -> str:
        """Whose it is."""
        return netid_of(self.owner) or ""

    def __str__(self) -> str:
        renamed = "" if self.kind not in ("lease", "server", "volume") or self.name == self.owner else " (renamed)"
        state = f" ({self.state})" if self.state else ""
        return f"{self.kind} {self.name}{renamed} at {self.site}{state}"


@dataclass(frozen=True)
class Seen:
    """All that is ours at the sites, for all students."""

    clouds: dict[str, Cloud]
    things: dict[str, list[Holding]]
    """By netID."""
    unseen: tuple[str, ...]
    """Sites that could not be looked at, and why."""


def look(say: Callable[[str], None] = print, known: Mapping[str, Cloud] = MappingProxyType({})) -> Seen:
    """Read what there is at all sites of ``sites.yaml``, logging in where ``known`` has no cloud yet.

    Raises ``ServiceError`` when not one can be looked at, and what a site of ``known`` raises.
    """
    clouds: dict[str, Cloud] = {}
    things: dict[str, dict[str, Holding]] = {}
    unseen = []
    for site in sorted(load_sites(), key=lambda site: site.name not in known):
        try:
            cloud = known.get(site.name) or Cloud.connect(site, say)
            found = everything(cloud, site)
        except ProvisioningError as error:
            if site.name in known:
                raise
            unseen.append(f"{site.name} was not looked at: {error}")
            continue
        clouds[site.name] = cloud
        for one in found:
            things.setdefault(one.netid, {}).setdefault(one.id, one)  # sites may share a service
    if not clouds:
        raise ServiceError(f"no site could be looked at: {' '.join(unseen)}")
    return Seen(clouds, {netid: list(held.values()) for netid, held in sorted(things.items())}, tuple(unseen))


def everything(cloud: Cloud, site: Site) -> list[Holding]:
    """All that is ours at ``site``: by its tag, by its name where the service has no tags, and leases also by the id
    that servers and volumes carry."""
    found, under = [], {}
    with asking(f"reading what is at {site.name}"):
        servers, volumes = cloud.nova.servers.list(), cloud.cinder.volumes.list() if site.virtual_machine else []
        for kind, things in (("server", servers), ("volume", volumes)):
            for thing in things:
                owner = thing.metadata.get(TAG, "")
                if netid_of(owner):
                    made = times.parse_iso(thing.created if kind == "server" else thing.created_at)
                    found.append(Holding(kind, owner, thing.id, thing.name, thing.status, site.name, made))
                    under[thing.metadata.get(LEASE, "")] = owner
        addresses = cloud.neutron.list_floatingips()["floatingips"]
        groups = cloud.neutron.list_security_groups()["security_groups"] if site.virtual_machine else []
        found += [_described("address", one, one["floating_ip_address"], site) for one in addresses if _owner(one)]
        found += [_described("security group", one, one["name"], site) for one in groups if _owner(one)]
        for pair in cloud.nova.keypairs.list():
            owner = ENDING.sub("", pair.name)
            if netid_of(owner):
                found.append(Holding("key", owner, pair.name, pair.name, "", site.name))
        for raw in cloud.blazar.lease.list():
            owner = under.get(raw["id"]) or raw["name"]
            if netid_of(owner):
                begins, ends = times.parse_blazar(raw["start_date"]), times.parse_blazar(raw["end_date"])
                found.append(Holding("lease", owner, raw["id"], raw["name"], raw["status"], site.name, begins, ends))
    return found


def _owner(thing: dict[str, Any]) -> str:
    key, _, owner = (thing.get("description") or "").partition("=")
    return owner if key == TAG and netid_of(owner) else ""


def _described(kind: str, thing: dict[str, Any], name: str, site: Site) -> Holding:
    made = times.parse_iso(thing["created_at"])
    return Holding(kind, _owner(thing), thing["id"], name, "", site.name, made)
