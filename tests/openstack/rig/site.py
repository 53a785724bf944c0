"""What the sites offer: image, networks, flavors, nodes to reserve; named as on Chameleon."""

import json
import time
from pathlib import Path

from blazarclient.client import Client
from openstack.connection import Connection

from .block import Block
from .configs import REGIONS
from .identity import admin
from .processes import RigError

VOLUMES_S = 120.0
IMAGE = "CC-Ubuntu24.04-CUDA"
FLAVORS = {  # name: vcpus, MB, GB; that of one GPU as Chameleon documents it, that of four as four of them
    "g1.h100.pci.1": (48, 250000, 40),
    "g1.h100.pci.4": (192, 1000000, 40),
    "baremetal": (1, 1024, 10),
}
NODES = dict(
    zip(
        REGIONS,
        (
            {"kvm-h100-one": "gpu_h100_kvm", "kvm-h100-four": "gpu_h100_kvm"},
            {"gigaio-1": "compute_gigaio", "a100-pcie-1": "gpu_a100_pcie"},
        ),
        strict=True,
    )
)
"""What each site's Blazar may lend."""


def seed(block: Block) -> None:
    """Make what users find on a site."""
    with admin(block) as connection:
        connection.image.create_image(
            name=IMAGE, disk_format="raw", container_format="bare", visibility="public", data=b"\0" * 4096,
            validate_checksum=False, wait=True, timeout=60,
        )  # fmt: skip
        _seed_networks(connection, block)
        for name, (vcpus, ram, disk) in FLAVORS.items():
            connection.compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk, is_public=True)
        connection.block_storage.create_type(name="ceph-ssd")
        _wait_for_volumes(connection)
        connection.compute.create_aggregate(name="freepool")


def seed_nodes(block: Block) -> None:
    """Make the hypervisors nodes that can be reserved, each at its site."""
    with admin(block) as connection:
        for region, nodes in NODES.items():
            blazar = blazar_of(connection, region)
            for host, kind in nodes.items():
                blazar.host.create(name=host, node_type=kind)


def blazar_of(connection: Connection, region: str) -> Client:
    """The client of one site's Blazar."""
    return Client("1", service_type="reservation", session=connection.session, region_name=region)


def _wait_for_volumes(connection: Connection) -> None:
    """Until Cinder's scheduler has heard of the volume service: before, each volume goes to error."""
    deadline = time.monotonic() + VOLUMES_S
    while not list(connection.block_storage.backend_pools()):
        if time.monotonic() > deadline:
            raise RigError(f"cinder-volume has not reported to its scheduler in {VOLUMES_S:g} s")
        time.sleep(1)


def _seed_networks(connection: Connection, block: Block) -> None:
    """A floating IP is an address of the loopback block, so that it can really be reached."""
    network = connection.network
    flat = {"provider_network_type": "flat", "provider_physical_network": "public"}
    public = network.create_network(name="public", is_router_external=True, **flat)
    pool = [{"start": block.nodes[0], "end": block.nodes[-1]}]
    network.create_subnet(
        network_id=public.id, name="public", ip_version=4, cidr=f"{block.prefix}.0/24",
        gateway_ip=f"{block.prefix}.2", is_dhcp_enabled=False, allocation_pools=pool,
    )  # fmt: skip
    vlan = {"provider_network_type": "vlan", "provider_physical_network": "physnet1", "provider_segmentation_id": 101}
    shared = network.create_network(name="sharednet1", is_shared=True, **vlan)
    subnet = network.create_subnet(network_id=shared.id, name="sharednet1", ip_version=4, cidr="10.52.0.0/22")
    # the router takes one address of the public network: the last one, which no test needs
    gateway = {"network_id": public.id, "external_fixed_ips": [{"ip_address": block.nodes[-1]}]}
    router = network.create_router(name="shared", external_gateway_info=gateway)
    network.add_interface_to_router(router, subnet_id=subnet.id)


def write_list(folder: Path, block: Block) -> None:
    """Chameleon's list of sites, which python-chi's ``use_site`` reads."""
    folder.mkdir()
    web = block.url("keystone").rpartition(":")[0]
    item = {"name": REGIONS[1], "site_class": "baremetal", "web": web, "location": "here", "user_support_contact": "-"}
    (folder / "sites.json").write_text(json.dumps({"items": [item]}))
