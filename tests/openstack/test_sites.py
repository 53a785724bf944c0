"""The rig's two sites are apart where Chameleon's are: each has a Blazar of its own. Flavors are as documented."""

from datetime import timedelta

import pytest
from blazarclient.exception import BlazarClientException
from conftest import METAL, VM
from rig.configs import REGIONS
from rig.remains import remains
from rig.site import blazar_of

from provisioning import chameleon, leases, slots, times

KVM, UC = REGIONS


def test_each_sites_blazar_knows_its_own_nodes_and_leases_only(plane, book):
    kinds = {region: {host["node_type"] for host in blazar_of(plane.admin, region).host.list()} for region in REGIONS}
    assert kinds == {KVM: {"gpu_h100_kvm"}, UC: {"compute_gigaio", "gpu_a100_pcie"}}
    urls = {plane.admin.session.get_endpoint(service_type="reservation", region_name=region) for region in REGIONS}
    assert len(urls) == 2

    # the same name at both sites, as a student has who takes a virtual machine and a node of metal
    machine, metal = book("twosites", VM), book("twosites", METAL)
    chameleon.ensure_lease(machine)
    assert leases.find(metal) is None
    chameleon.ensure_lease(metal)
    assert remains(plane) == {"leases": [machine.name, metal.name]}
    assert len(chameleon.teardown(machine)) == 2  # a netID's all, wherever it is
    assert remains(plane) == {}


def test_a_virtual_machine_is_as_large_as_documented_and_a_class_of_thirty_fits(plane, book):
    made = book("thirty")
    flavor = slots.flavor(made, VM)
    assert (flavor.vcpus, flavor.ram, flavor.disk) == (48, 250000, 40)
    start = times.now() + timedelta(hours=1)
    dates = [moment.strftime(times.BLAZAR) for moment in (start, start + timedelta(hours=1))]

    def lease(amount):
        machines = {"resource_type": "flavor:instance", "flavor_id": flavor.id, "amount": amount, "affinity": None}
        return made.cloud.blazar.lease.create(made.name, *dates, [machines], [])

    with pytest.raises(BlazarClientException, match="[Nn]ot enough"):
        lease(35)  # thirty, and four on the node that has four GPUs
    assert lease(30)["status"] in ("CREATING", "PENDING")
