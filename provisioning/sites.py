"""Sites and their GPU nodes, read from ``sites.yaml``."""

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml

from provisioning.errors import UsageError, known

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Node:
    """A kind of node that can be reserved: a flavor of virtual machines, or a node type of bare metal."""

    name: str
    gpu: str
    count: int
    profile: str
    """labkit's profile for it."""
    su_per_hour: float | None = None
    """What the site charges for it, in service units; None where that is not documented."""


@dataclass(frozen=True)
class Rates:
    """Where the rates of a site's nodes were read, and when."""

    source: str
    date: date

    def __str__(self) -> str:
        return f"{self.source} ({self.date})"


@dataclass(frozen=True)
class Site:
    """One Chameleon site."""

    name: str
    virtual_machine: bool
    image: str
    network: str
    public_network: str
    ssh_user: str
    boot_timeout_min: float
    nodes: tuple[Node, ...]
    rates: Rates | None = None
    boot_volume_gib: int | None = None
    flavor: str | None = None
    """Bare metal: the flavor that every server has."""
    ssh_port: int = 22
    ssh_timeout_s: float = 300.0
    """How long sshd may take to answer after the server is active."""


def load_sites(path: Path | None = None) -> list[Site]:
    """All sites of ``path``, of the file that PROVISIONING_SITES names, or of ``sites.yaml``."""
    path = path or Path(os.environ.get("PROVISIONING_SITES") or HERE / "sites.yaml")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [_site(name, dict(values)) for name, values in data.items()]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, AttributeError, TypeError, KeyError, ValueError) as error:
        raise UsageError(f"{path} is not a list of sites: {' '.join(str(error).split())}.") from None


def _site(name: str, values: dict) -> Site:
    nodes = tuple(Node(name=node, **facts) for node, facts in values.pop("nodes").items())
    rates = values.pop("rates", None)
    charged = [node.name for node in nodes if node.su_per_hour is not None]
    if charged and not rates:  # a figure that cannot be looked up again
        raise ValueError(f"{charged[0]} has su_per_hour, and {name} has no rates with source and date")
    return Site(name=name, nodes=nodes, rates=Rates(**rates) if rates else None, **values)


def find_node(name: str, path: Path | None = None) -> tuple[Site, Node]:
    """The node kind called ``name``, with its site."""
    sites = load_sites(path)
    for site in sites:
        for node in site.nodes:
            if node.name == name:
                return site, node
    names = [node.name for site in sites for node in site.nodes]
    raise UsageError(f"node '{name}' is in no site of sites.yaml. {known(name, names)}")
