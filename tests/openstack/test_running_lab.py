"""A lab that runs is never stopped unasked, and a node's disk does not fill up with images."""

import json
import os
import pty
import shlex
import subprocess
import sys

import pytest
from conftest import METAL, lent
from rig.remains import remains
from test_paths import TOKEN

from provisioning import access, chameleon, errors, project, running, servers

BUSY = {
    "kernels": [{"path": "labs/01.ipynb", "state": "busy", "last_activity": "2026-11-29T09:00:00.000000Z"}],
    "terminals": 1,
}


@pytest.fixture(scope="module")
def lab(plane):
    """A node with a lab that was just started."""
    with lent("running", METAL, chameleon.up) as made:
        yield made


@pytest.fixture
def node(lab, plane):
    """The home of a node on whose lab somebody works; the lab of this project, on the loopback."""
    chameleon.build_image(lab)
    chameleon.start_jupyter(lab, restart=True)
    home = plane.nodes.home(servers.find(lab).id)
    if not (home / ".docker-state/container").read_text().endswith("127.0.0.1 8888\n"):
        (home / ".docker-state/container").unlink()
        chameleon.start_jupyter(lab)
    (home / ".docker-state/kernels").write_text(json.dumps(BUSY))
    (home / ".docker-state/programs").write_text("44 700 python /opt/labkit/venv/bin/labkit run xxl\n")
    (home / ".gpu-mib").write_text("40000\n1000\n")
    (home / ".calls").unlink()
    lab.said.clear()
    yield home
    for name in (".free", ".docker-state/size", ".faults"):
        (home / name).unlink(missing_ok=True)


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """The project of an instructor who has edited it."""
    import shutil
    from pathlib import Path

    shutil.copytree(Path(__file__).parent / "project", tmp_path / "project")
    (tmp_path / "project/workspace/configs/new.yaml").write_text("lr: 1\n")
    monkeypatch.setenv("LABKIT_PROJECT", str(tmp_path / "project"))
    return f"labkit:{project.archive()[1]}"


def image(node):
    return (node / ".docker-state/container").read_text().split()[0]


def calls(node, *starts):
    return [call for call in (node / ".calls").read_text().splitlines() if call.startswith(starts)]


def test_what_runs_is_read_from_the_node(lab, node):
    there = running.ask(access.way_in(lab))
    assert (there.image, there.bind, there.terminals, there.gpu_mib) == (image(node), "127.0.0.1", 1, 41000)
    assert [(kernel.path, kernel.state) for kernel in there.kernels] == [("labs/01.ipynb", "busy")]
    assert [command for _, command in there.processes] == ["python /opt/labkit/venv/bin/labkit run xxl"]
    assert "token" not in repr(there)
    (node / ".docker-state/container").unlink()
    assert running.ask(access.way_in(lab)) is None


def test_up_again_with_the_same_project_stops_nothing(lab, node):
    chameleon.up(lab)
    assert calls(node, "docker rm ", "docker run --detach", "docker build", "systemctl restart") == []


def test_a_changed_project_lets_the_lab_go_on_builds_nothing_and_restart_starts_it(lab, node, changed):
    before = image(node)
    link = chameleon.up(lab)
    assert link.token == "token-of-this-server"
    assert image(node) == before != changed
    assert calls(node, "docker rm ", "docker run --detach", "docker build", "docker rmi") == []
    assert any("keeps running as it is" in line and "labs/01.ipynb busy" in line and "labkit run xxl" in line
               for line in lab.said)  # fmt: skip
    chameleon.up(lab, restart=True)
    assert image(node) == changed
    assert calls(node, "docker rmi") == [f"docker rmi {before}"] or calls(node, "docker rmi") == []
    chameleon.build_image(lab)
    assert f"docker rmi {before}" in calls(node, "docker rmi")


def test_an_open_port_is_refused_before_anything_is_opened_and_restart_opens_it(lab, node):
    with pytest.raises(errors.LabRunsError, match="would stop labkit:.*1 kernels .labs/01.ipynb busy.*41000 MiB"):
        chameleon.start_jupyter(lab, open_port=True)
    assert calls(node, "docker rm ", "iptables") == []
    assert chameleon.start_jupyter(lab, open_port=True, restart=True).is_open
    assert (node / ".docker-state/container").read_text().endswith("0.0.0.0 8888\n")
    # without --open it keeps running: the tunnel leads there, too
    assert not chameleon.start_jupyter(lab).is_open
    assert len(calls(node, "docker rm ")) == 1


@pytest.mark.parametrize(("answer", "stopped"), [("y", True), ("n", False), ("", False)])
def test_at_a_terminal_the_command_asks_with_what_would_be_stopped(lab, node, changed, answer, stopped):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "provisioning", "up", "running", "--node", METAL]
    child = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.write(ours, f"{answer}\n".encode())
    said, _ = child.communicate(timeout=300)
    os.close(ours)
    os.close(theirs)
    assert child.returncode == 0, said
    assert "This would stop labkit:" in said
    assert "labs/01.ipynb busy" in said
    assert (image(node) == changed) is stopped
    if answer != "y":
        return
    # what it prints is all that a person needs to get in, and no question comes: the host's key is known
    (login,) = (line.partition("Log in:  ")[2] for line in said.splitlines() if "Log in:" in line)
    program, *rest = shlex.split(login)
    asked = [program, "-F", "none", "-o", "BatchMode=yes", *rest, "echo in"]
    assert subprocess.run(asked, capture_output=True, text=True).stdout == "in\n"
    (tunnel,) = (line.partition("Tunnel:  ")[2] for line in said.splitlines() if "Tunnel:" in line)
    assert tunnel == login.replace("ssh ", "ssh -N -L 8889:127.0.0.1:8888 ")
    linked = subprocess.run([*command[:3], "link", *command[4:]], capture_output=True, text=True)
    assert f"lab?token={TOKEN}  {tunnel}" in linked.stdout


def test_docker_is_not_restarted_under_a_lab(lab, node):
    (node / "daemon.json").write_text("{}")
    with pytest.raises(errors.RemoteError, match="Docker must be restarted.*a lab runs in it.*--restart"):
        chameleon.install_runtime(lab)
    assert calls(node, "systemctl restart", "nvidia-ctk") == []
    assert (node / "daemon.json").read_text() == "{}"
    chameleon.install_runtime(lab, restart=True)
    assert len(calls(node, "systemctl restart")) == 1


def test_a_build_without_room_is_refused_with_the_bytes_that_are_missing(lab, node, changed):
    (node / ".free").write_text("4000000000\n")
    with pytest.raises(errors.DiskFullError, match="needs 25000000000 bytes in .*and 21000000000 of them are missing"):
        chameleon.build_image(lab)
    assert calls(node, "docker build --tag", "docker pull") == []
    assert calls(node, "docker image prune --force", "docker builder prune --force")
    assert calls(node, "docker rmi") == []  # the lab's image
    (node / ".free").write_text("6000000000\n")  # enough for the last layers
    assert chameleon.build_image(lab) == changed


def test_images_of_earlier_projects_go_and_the_labs_stays(lab, node, changed):
    (node / ".docker-state/image-labkit:earlier").touch()
    (node / ".docker-state/image-other:theirs").touch()
    running_image = image(node)
    chameleon.build_image(lab)
    assert calls(node, "docker rmi") == ["docker rmi labkit:earlier"]
    assert calls(node, "docker image prune") == ["docker image prune --force"]
    assert (node / f".docker-state/image-{running_image}").exists()
    assert (node / ".docker-state/image-other:theirs").exists()
    assert any(line.startswith(f"build: {changed}, 13.2 GB") for line in lab.said)


def test_an_image_that_is_too_large_is_said(lab, node):
    (node / ".docker-state/size").write_text("31500000000\n")
    chameleon.build_image(lab)
    assert any("31.5 GB, which is more than 30 GB: look with" in line for line in lab.said)


def test_nothing_of_it_stays(lab, plane):
    chameleon.teardown(lab, discard=True)
    assert remains(plane) == {}
