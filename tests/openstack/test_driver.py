"""A node's driver over real SSH, against stand-ins; what is decided when is in tests/provisioning/test_driver.py."""

import shutil

import pytest
from conftest import METAL, booted, lent

from provisioning import access, chameleon, driver, errors, servers, steps
from provisioning.ssh import Ssh

OLD, NEW, BOOT = "570.86.15", "580.95.05", ".boot-id"


@pytest.fixture(scope="module")
def metal(plane):
    with lent("driver", METAL, booted) as made:
        yield made


@pytest.fixture
def node(metal):
    """The booking, and what it says."""
    metal.said = []
    metal.say = metal.said.append
    return metal


@pytest.fixture
def home(node, plane):
    """The node as the image leaves it, but with a driver of CUDA 12."""
    folder = plane.nodes.home(servers.find(node).id)
    shutil.rmtree(folder, ignore_errors=True)
    access.way_in(node).run("hello")
    has(folder, OLD, OLD)
    return folder


def has(home, running: str, on_disk: str) -> None:
    (home / ".driver-running").write_text(running)
    (home / ".driver-on-disk").write_text(on_disk)


def calls(plane, node, start: str) -> list[str]:
    return [call for call in plane.nodes.calls(servers.find(node).id) if call.startswith(start)]


def test_a_driver_that_is_too_old_is_upgraded_with_one_reboot_and_once(node, plane, home):
    boot = (home / BOOT).read_text()
    assert driver.plan(node) == f"upgrade: driver {OLD}, 580 is needed; one reboot, about 25 min"
    chameleon.install_runtime(node)
    assert (home / BOOT).read_text() != boot
    assert driver.read(access.way_in(node)).running == NEW
    # the oldest branch that is new enough, for the kernel that runs
    (install,) = [call for call in calls(plane, node, "apt-get") if "nvidia-driver" in call]
    assert install.endswith(" nvidia-driver-580-server")
    assert " install -y linux-headers-" in install
    assert len(calls(plane, node, "systemctl --no-block reboot")) == 1
    said = "\n".join(node.said)
    assert f"driver {OLD}, and CUDA 13 needs 580 or newer: upgraded, then one reboot" in said
    assert "reboot of llm_single_driver: away" in said  # the node was gone, and was waited for
    assert f"driver: {NEW} runs CUDA 13" in said
    # Docker comes after it
    order = plane.nodes.calls(servers.find(node).id)
    assert order.index("systemctl --no-block reboot") < order.index("systemctl enable --now docker")

    assert driver.plan(node) == f"keep {NEW}"
    chameleon.install_runtime(node)
    assert len(calls(plane, node, "systemctl --no-block reboot")) == 1
    assert len([call for call in calls(plane, node, "apt-get") if "nvidia-driver" in call]) == 1


def test_one_that_is_new_enough_is_left_alone(node, plane, home):
    has(home, "590.44.01", "590.44.01")
    boot = (home / BOOT).read_text()
    assert driver.ensure(node).running == "590.44.01"
    assert (home / BOOT).read_text() == boot
    assert calls(plane, node, "apt") + calls(plane, node, "dpkg") == []
    # one that the night's updates put on the disk is no reason for a reboot while what runs is good
    assert not driver.Driver("590.44.01", "595.10.02", "b", (), "").waits_for_boot


@pytest.mark.parametrize("stopped_after", ["upgrade_driver", "reboot"])
def test_stopped_between_upgrade_and_reboot_it_goes_on_with_what_is_left(node, plane, home, monkeypatch, stopped_after):
    real = Ssh.run

    def stopped(self, script, *arguments, **keywords):
        printed = real(self, script, *arguments, **keywords)
        if script == stopped_after:
            raise KeyboardInterrupt
        return printed

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Ssh, "run", stopped)
        driver.ensure(node)
    if stopped_after == "upgrade_driver":
        assert driver.plan(node) == f"one reboot: {NEW} is installed and does not run yet"
    else:
        chameleon.ensure_access(node)  # as 'up' does: the node may not be back yet
    driver.ensure(node)
    assert len([call for call in calls(plane, node, "apt-get") if "nvidia-driver" in call]) == 1
    assert len(calls(plane, node, "systemctl --no-block reboot")) == 1


def test_a_node_that_runs_a_container_is_not_rebooted_unasked(node, plane, home):
    has(home, NEW, NEW)
    chameleon.install_runtime(node)
    chameleon.build_image(node)
    chameleon.start_jupyter(node)
    has(home, OLD, OLD)
    with pytest.raises(
        errors.LabRunsError, match=f"reboot for driver {NEW}, and container labkit runs.*Let the student"
    ):
        driver.ensure(node)
    assert calls(plane, node, "systemctl --no-block reboot") == []
    assert calls(plane, node, "docker stop") == []
    assert driver.ensure(node, restart=True).running == NEW
    order = plane.nodes.calls(servers.find(node).id)
    # one that Docker starts again at boot would have its port open before anything limits it
    assert order.index("docker stop labkit") < order.index("systemctl --no-block reboot")


def test_a_call_that_fails_is_said_with_its_log_and_running_again_repairs(node, home):
    (home / ".faults").write_text("apt-get -o DPkg::Lock::Timeout=600 install: 100 E: held\n")
    with pytest.raises(errors.RemoteError, match="nvidia-driver-580-server cannot be installed.*Log: "):
        driver.ensure(node)
    (home / ".faults").unlink()
    assert driver.ensure(node).running == NEW


def test_a_plan_says_what_the_driver_may_cost_before_there_is_a_node(book):
    made = book("planned")
    rows = dict(steps.plan(made).rows)
    assert rows["driver"] == "the image's may be older than 580: upgraded with one reboot, about 10 min"


def test_a_plan_for_a_node_that_does_not_answer_says_so(node, home):
    (home / ".away-logins").write_text("1000\n")
    assert driver.plan(node).startswith("cannot be asked now; older than 580, it is upgraded with one reboot")
    (home / ".away-logins").unlink()
