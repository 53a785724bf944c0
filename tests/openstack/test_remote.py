"""The steps on the node over real SSH: what they call, and what they say when a call fails."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import METAL, booted, lent
from rig.nodes import STAND_INS

from provisioning import access, chameleon, errors, servers
from provisioning.ssh import REMOTE


@pytest.fixture(scope="module")
def node(plane):
    with lent("remote", METAL, booted) as made:
        yield made


@pytest.fixture(scope="module")
def stages(node, plane, tmp_path_factory):
    """Each step with the node as it was before it; what many tests need and would make again."""
    folder = plane.nodes.home(servers.find(node).id)
    shutil.rmtree(folder, ignore_errors=True)
    kept = tmp_path_factory.mktemp("stages")
    (kept / "empty").mkdir()
    chameleon.install_runtime(node)
    shutil.copytree(folder, kept / "installed", symlinks=True)
    chameleon.build_image(node)
    shutil.copytree(folder, kept / "built", symlinks=True)
    return {
        "install": (kept / "empty", chameleon.install_runtime),
        "build": (kept / "installed", chameleon.build_image),
        "start": (kept / "built", chameleon.start_jupyter),
    }


@pytest.fixture
def home(node, plane):
    """The node as it was before anything was installed."""
    folder = plane.nodes.home(servers.find(node).id)
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def install_all(node):
    chameleon.install_runtime(node)
    chameleon.build_image(node)
    return chameleon.start_jupyter(node)


def test_each_script_is_clean_for_shellcheck(plane):
    scripts = [str(path) for path in sorted(REMOTE.glob("*.sh"))]
    assert len(scripts) >= 10
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_runtime_is_installed_as_nvidia_says_and_once(node, plane, home):
    install_all(node)
    calls = plane.nodes.calls(servers.find(node).id)
    order = [
        "nvidia-smi --query-gpu=driver_version", "apt-get -o DPkg::Lock::Timeout=300 install -y docker.io",
        "systemctl enable --now docker", "usermod -aG docker", "curl -fsSL https://nvidia.github.io/",
        "apt-get -o DPkg::Lock::Timeout=300 install -y nvidia-container-toolkit",
        "nvidia-ctk runtime configure --runtime=docker", "systemctl restart docker",
        "docker run --rm --gpus all ubuntu:24.04 nvidia-smi", "df --output=avail",
        "docker pull ubuntu:24.04@sha256:0000",
        "docker build --tag labkit:", "docker image inspect --format {{.Size}} labkit:",
        "docker run --detach --gpus all --name labkit", "docker exec labkit jupyter server list --json",
    ]  # fmt: skip
    places = [next(i for i, call in enumerate(calls) if call.startswith(start)) for start in order]
    assert places == sorted(places)
    settings = json.loads((home / "daemon.json").read_text())
    assert settings["exec-opts"] == ["native.cgroupdriver=cgroupfs"]
    assert "nvidia" in settings["runtimes"]
    assert "signed-by" in (home / "nvidia-container-toolkit.list").read_text()
    assert (home / "workspace" / "configs" / "example.yaml").exists()

    (home / "workspace" / "configs" / "example.yaml").write_text("mine")
    install_all(node)
    new = plane.nodes.calls(servers.find(node).id)[len(calls) :]
    assert not [call for call in new if call.startswith(("apt-get", "curl", "docker build", "systemctl restart"))]
    assert not [call for call in new if call.startswith("docker run --detach")]
    assert (home / "workspace" / "configs" / "example.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("apt-get -o DPkg::Lock::Timeout=300 update: 100 no route", errors.RemoteError, "Has the node a network"),
        ("apt-get -o DPkg::Lock::Timeout=300 install -y docker: 100 E: held", errors.RemoteError, "Docker cannot be"),
        ("systemctl enable: 1 failed", errors.RemoteError, "Docker does not start. Look at 'journalctl"),
        ("usermod: 1 no group", errors.RemoteError, "docker on .* failed: no group"),
        ("docker version: 1 no daemon", errors.RemoteError, "Docker does not answer"),
        (
            "curl -fsSL https://nvidia.github.io/libnvidia-container/gpgkey: 6 no host",
            errors.RemoteError,
            "NVIDIA's key",
        ),
        ("gpg: 2 bad key", errors.RemoteError, "NVIDIA's key"),
        (
            "curl -fsSL https://nvidia.github.io/libnvidia-container/stable: 6 no host",
            errors.RemoteError,
            "list of pack",
        ),
        ("apt-get -o DPkg::Lock::Timeout=300 install -y nvidia: 100 E:", errors.RemoteError, "toolkit cannot be"),
        ("nvidia-ctk: 1 broken", errors.RemoteError, "nvidia-ctk cannot set up Docker"),
        ("systemctl restart: 1 failed", errors.RemoteError, "Docker does not start again"),
        ("docker run --rm: 125 no runtime", errors.RemoteError, "does not see the GPU"),
        ("docker info: 1 no daemon", errors.RemoteError, "Docker does not answer. Run install_runtime again"),
        ("docker pull: 1 no such base", errors.RemoteError, "the base ubuntu:24.04@sha256:0+ cannot be pulled.*renew"),
        ("docker build: 1 exit code 100", errors.RemoteError, "docker build failed"),
        ("docker build: 1 write /x: no space left on device", errors.DiskFullError, "disk is full.*prune"),
        ("docker run --detach: 125 port is taken", errors.RemoteError, "docker/start failed"),
    ],
    ids=lambda value: value.split(":")[0][-40:] if isinstance(value, str) else "",
)
def test_each_call_that_fails_is_said_with_the_next_step_and_repaired_by_running_again(
    node, home, stages, fault, error, says
):
    # the step that calls it: all before it is there, and all after it needs no more than that it ends
    steps = dict.fromkeys(("docker info", "docker pull", "docker build"), "build") | {"docker run --detach": "start"}
    before, step = stages[steps.get(fault.split(":")[0], "install")]
    shutil.copytree(before, home, symlinks=True)
    (home / ".faults").write_text(fault + "\n")
    with pytest.raises(error, match=says) as raised:
        step(node)
    assert "\n" not in str(raised.value)
    assert "Log: " in str(raised.value)
    (home / ".faults").unlink()
    step(node)


def test_an_upload_that_breaks_off_leaves_what_was_there(node, home):
    chameleon.install_runtime(node)
    chameleon.build_image(node)
    way = access.way_in(node)
    with Path(os.devnull).open("rb") as nothing, pytest.raises(errors.RemoteError):
        way.run("upload", "labkit-source", "another", "labkit-shipped", data=nothing)
    assert (home / "labkit-source" / "docker" / "start").exists()


def test_a_step_that_takes_too_long_is_stopped(node, home, tmp_path, monkeypatch):
    (tmp_path / "slow.sh").write_text("echo begun >&2; sleep 60\n")
    monkeypatch.setattr("provisioning.ssh.REMOTE", tmp_path)
    with pytest.raises(errors.RemoteError, match="slow on .* was stopped after 2 s"):
        access.way_in(node).run("slow", bound_s=2)


def test_on_bare_metal_the_open_port_is_limited_by_the_nodes_own_rules(node, plane, home):
    chameleon.install_runtime(node)
    chameleon.build_image(node)
    chameleon.start_jupyter(node, open_port=True)
    calls = [call for call in plane.nodes.calls(servers.find(node).id) if call.startswith("iptables")]
    caller = access.way_in(node).run("caller").strip()
    assert f"iptables -A LABKIT-JUPYTER -s {caller} -j RETURN" in calls
    assert calls.index("iptables -A LABKIT-JUPYTER -j DROP") > calls.index(
        f"iptables -A LABKIT-JUPYTER -s {caller} -j RETURN"
    )
    match = "-p tcp -m conntrack --ctdir ORIGINAL --ctorigdstport 8888 -j LABKIT-JUPYTER"
    assert f"iptables -I DOCKER-USER {match}" in calls


def test_where_firewalld_runs_the_open_port_is_limited_by_it_now_and_after_its_reload(node, plane, home):
    way = access.way_in(node)
    caller = way.run("caller").strip()
    (home / ".bin" / "firewall-cmd").symlink_to(STAND_INS / "installed" / "firewall-cmd")
    way.run("limit", "8888", "198.51.100.7")
    access.open_jupyter(node)  # from another address than the last time
    running, lasting = ((home / f".firewalld-{which}").read_text() for which in ("running", "lasting"))
    for kept in (running, lasting):  # what they are, rule by rule, is in tests/provisioning/test_limit.py
        assert f"-s {caller} -j RETURN" in kept
        assert f'source address="{caller}" port port="8888"' in kept
        assert "198.51.100.7" not in kept
    assert not [call for call in plane.nodes.calls(servers.find(node).id) if call.startswith("iptables")]


def test_a_students_own_key_is_let_in_once(node, plane, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "own")], check=True)
    key = (tmp_path / "own.pub").read_text().strip()
    way = access.ensure(node, also=key)
    access.ensure(node, also=key)
    kept = (plane.nodes.folder / "also_allowed" / way.address).read_text()
    assert kept.count(key) == 1
    own = subprocess.run(
        ["ssh", *way.options, "-i", str(tmp_path / "own"), "-o", "IdentityAgent=none", way.target, "echo in"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert own.stdout == "in\n"
