"""A node's driver, with the scripts run here against the stand-ins of tests/openstack, which run them over real SSH."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from provisioning import access, driver, errors
from provisioning.booking import Booking
from provisioning.ssh import Ssh

pytestmark = pytest.mark.slow

STAND_INS = Path(__file__).parents[1] / "openstack" / "stand_ins"
TOOLS = "bash cat cp cut date env grep head mkdir mv printf rm sed sleep sort sync touch tr uname"
OLD, NEW = "570.86.15", "580.95.05"
NODE = """#!/bin/bash
export HOME={home} STAND_INS={stand_ins} NODE_CALLS={home}/.calls NODE_FAULTS={home}/.faults
export BOOT_ID=$HOME/.boot-id PCI_DEVICES=$HOME/.pci OS_RELEASE=$STAND_INS/os-release
export PATH=$STAND_INS:$HOME/.bin:{tools}
cd "$HOME"
left=$(cat .away-logins 2> /dev/null)
if [ "${{left:-0}}" -gt 0 ]; then echo $((left - 1)) > .away-logins; exit 255; fi
exec bash -c "${{@: -1}}"
"""


@pytest.fixture
def home(tmp_path):
    """The home folder of a node with a driver of CUDA 12."""
    home = tmp_path / "home"
    for folder in (".bin", ".pci/0"):
        (home / folder).mkdir(parents=True)
    for name, text in ((".boot-id", "boot-1"), (".pci/0/vendor", "0x10de"), (".driver-running", OLD),
                       (".driver-on-disk", OLD), (".calls", "")):  # fmt: skip
        (home / name).write_text(f"{text}\n")
    return home


@pytest.fixture
def node(home, tmp_path, monkeypatch):
    """A booking whose way in ends in that home folder."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in TOOLS.split():
        (tools / tool).symlink_to(shutil.which(tool))
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(NODE.format(home=home, stand_ins=STAND_INS, tools=tools))
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:/usr/bin:/bin")
    way = Ssh("203.0.113.7", "cc", 22, tmp_path / "key", tmp_path / "hosts", "server-id")
    monkeypatch.setattr(access, "way_in", lambda *_: way)
    site = SimpleNamespace(virtual_machine=False, boot_timeout_min=1)
    made = Booking("me", site, SimpleNamespace(count=1), None, tmp_path, lambda line: print(line, file=sys.stderr))
    made.poll_s = 0.1
    return made


def calls(home, start):
    return [call for call in (home / ".calls").read_text().splitlines() if call.startswith(start)]


def test_one_that_is_too_old_is_upgraded_with_one_reboot_that_is_waited_for(node, home):
    assert driver.ensure(node).running == NEW
    assert (home / ".boot-id").read_text() != "boot-1\n"
    assert len(calls(home, "systemctl --no-block reboot")) == 1
    before = len(calls(home, ""))
    assert driver.ensure(node).running == NEW
    assert len(calls(home, "")) == before + 2  # it was read, no more


def test_what_is_installed_and_waits_for_a_boot_is_not_installed_again(node, home):
    (home / ".driver-on-disk").write_text(f"{NEW}\n")
    assert driver.ensure(node).running == NEW
    assert calls(home, "apt-get") == []


def test_a_node_that_runs_a_container_is_not_rebooted_unasked(node, home):
    (home / ".bin" / "docker").symlink_to(STAND_INS / "installed" / "docker")
    (home / ".docker-state").mkdir()
    (home / ".docker-state" / "container").write_text("labkit\n")
    with pytest.raises(errors.LabRunsError, match=f"needs a reboot for driver {NEW}, and container labkit runs on it"):
        driver.ensure(node)
    assert calls(home, "systemctl") == []
    assert driver.ensure(node, restart=True).running == NEW
    assert len(calls(home, "docker stop labkit")) == 1


def test_a_reboot_that_did_not_help_is_not_repeated(node, home):
    (home / ".faults").write_text("nvidia-smi: 9 No devices were found\n")
    for _ in range(2):
        with pytest.raises(errors.DriverError, match="No devices were found"):
            driver.ensure(node)
    assert len(calls(home, "systemctl --no-block reboot")) == 1


def test_a_reboot_that_did_not_come_is_not_taken_for_one(node, home):
    (home / ".faults").write_text("systemctl --no-block reboot: 0 it does nothing\n")
    node.site.boot_timeout_min = 0.005
    with pytest.raises(errors.TooSlowError, match="reboot of llm_single_me is still there after"):
        driver.ensure(node)
    (home / ".faults").unlink()
    node.site.boot_timeout_min = 1
    assert driver.ensure(node).running == NEW


def test_a_node_without_a_gpu_and_a_module_that_was_not_built_are_said_before_a_reboot(node, home):
    (home / ".faults").write_text("modinfo: 1 not found\n")
    with pytest.raises(errors.RemoteError, match="made no module for kernel"):
        driver.ensure(node)
    (home / ".pci" / "0" / "vendor").write_text("0x8086\n")
    with pytest.raises(errors.RemoteError, match="no NVIDIA GPU on its PCI bus"):
        driver.ensure(node)
    assert calls(home, "systemctl") == []


@pytest.mark.parametrize(
    ("offers", "package"),
    [
        ("nvidia-driver-570-server nvidia-driver-595-server", "nvidia-driver-595-server"),
        ("nvidia-driver-570-server nvidia-driver-580 nvidia-driver-580-open", "nvidia-driver-580"),
        ("nvidia-driver-580-server cuda-drivers-570 cuda-drivers-580", "cuda-drivers-580"),
        ("nvidia-driver-570-server", "cuda-drivers-580"),
    ],
    ids=["a newer branch", "no server branch", "NVIDIA's repository is there", "NVIDIA's repository is set up"],
)
def test_the_package_is_the_one_that_the_nodes_repositories_have(node, home, offers, package):
    (home / ".apt-offers").write_text(offers + "\n")
    driver.ensure(node)
    (install,) = [call for call in calls(home, "apt-get") if " install " in call]
    assert install.split()[-1] == package
    fetched = calls(home, "curl")
    assert len(fetched) == (1 if offers == "nvidia-driver-570-server" else 0)
    assert all("/repos/ubuntu2404/x86_64/cuda-keyring_1.1-1_all.deb" in call for call in fetched)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("dpkg --configure: 1 broken", "dpkg cannot finish what was begun"),
        ("apt-get -o DPkg::Lock::Timeout=600 update: 100 no route", "Has the node a network"),
        ("apt-get -o DPkg::Lock::Timeout=600 install: 100 E: held", "nvidia-driver-580-server cannot be installed"),
        ("systemctl --no-block reboot: 1 refused", "Reboot it from the site's page"),
    ],
    ids=["dpkg", "update", "install", "reboot"],
)
def test_each_call_that_fails_is_said_with_the_next_step_and_running_again_repairs(node, home, fault, says):
    (home / ".faults").write_text(fault + "\n")
    with pytest.raises(errors.RemoteError, match=says) as raised:
        driver.ensure(node)
    assert "\n" not in str(raised.value)
    assert "Log: " in str(raised.value)
    (home / ".faults").unlink()
    assert driver.ensure(node).running == NEW


def test_a_driver_that_no_repository_has_is_said(node, home):
    (home / ".apt-offers").write_text("nvidia-driver-570-server\n")
    (home / ".faults").write_text("curl: 6 no host\n")
    with pytest.raises(errors.RemoteError, match="apt has no driver 580 or newer, and https://developer.*newer image"):
        driver.ensure(node)
    assert calls(home, "systemctl") == []
