"""What sites.yaml says, and that labkit knows the profiles it names."""

import re

import pytest

from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from provisioning import driver, sites
from provisioning.errors import UsageError
from provisioning.sites import find_node, load_sites


def test_the_two_sites_have_the_nodes_of_the_course():
    facts = {node.name: (site.name, node.count, node.profile) for site in load_sites() for node in site.nodes}
    assert facts == {
        "g1.h100.pci.1": ("KVM@TACC", 1, "h100-94gb"),
        "g1.h100.pci.4": ("KVM@TACC", 4, "h100-94gb"),
        "compute_gigaio": ("CHI@UC", 1, "a100-80gb"),
        "gpu_a100_pcie": ("CHI@UC", 4, "a100-80gb"),
    }
    vm, _ = find_node("g1.h100.pci.1")
    assert (vm.virtual_machine, vm.boot_volume_gib, vm.image) == (True, 200, "CC-Ubuntu24.04-CUDA")
    metal, _ = find_node("compute_gigaio")
    assert (metal.virtual_machine, metal.boot_volume_gib, metal.boot_timeout_min) == (False, None, 30)
    assert (vm.ssh_user, vm.ssh_port, vm.network) == ("cc", 22, "sharednet1")


def test_each_profile_is_one_of_labkits():
    for site in load_sites():
        for node in site.nodes:
            profile = load_profile(Workspace.find(), node.profile)
            assert node.gpu.split()[0].lower() in profile.name


def test_a_node_that_is_in_no_site_is_said_with_the_nearest():
    with pytest.raises(UsageError, match="node 'g1.h100.pci' is in no site of sites.yaml. Known: g1.h100.pci.[14]"):
        find_node("g1.h100.pci")


@pytest.mark.parametrize("text", ["- a", "KVM: 3", "KVM: {nodes: {}}", "KVM: {nodes: {a: {gpux: 1}}}", "KVM: {", ""])
def test_a_file_that_is_no_list_of_sites_is_said_in_one_line(tmp_path, text):
    path = tmp_path / "sites.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="is not a list of sites") as error:
        load_sites(path)
    assert "\n" not in str(error.value)


def test_the_file_can_be_another(tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text((sites.HERE / "sites.yaml").read_text().replace("g1.h100.pci.1:", "g9:"))
    monkeypatch.setenv("PROVISIONING_SITES", str(path))
    assert find_node("g9")[0].name == "KVM@TACC"
    monkeypatch.setenv("PROVISIONING_SITES", str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match="none.yaml cannot be read: No such file"):
        load_sites()


def test_the_driver_that_is_asked_for_fits_the_torch_that_is_pinned():
    pins = (sites.HERE.parent / "requirements.txt").read_text()
    # PyPI's build of 2.13.0 is made for CUDA 13.0; with another torch, look up its CUDA and change driver.py
    assert re.search(r"^torch==(.+)$", pins, re.MULTILINE)[1] == "2.13.0"
    assert driver.CUDA_MAJOR == 13
    assert driver.OLDEST == 580
