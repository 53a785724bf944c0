"""``build.sh`` and ``jupyter.sh`` against the stand-ins that the rig's nodes have, without a control plane."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from provisioning.ssh import REMOTE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STAND_INS = ROOT / "tests" / "openstack" / "stand_ins"
IMAGE = "labkit:new"


@pytest.fixture
def node(tmp_path):
    """A node's home, with the project that was uploaded."""
    (tmp_path / ".bin").mkdir()
    (tmp_path / ".bin" / "docker").symlink_to(STAND_INS / "installed" / "docker")
    (tmp_path / ".docker-state").mkdir()
    shutil.copytree(ROOT / "tests" / "openstack" / "project", tmp_path / "source")
    return tmp_path


def run(node, script, *arguments):
    env = {
        "HOME": str(node), "STAND_INS": str(STAND_INS), "NODE_CALLS": str(node / "calls"),
        "NODE_FAULTS": str(node / "faults"), "PATH": f"{STAND_INS}:{node / '.bin'}:/usr/bin:/bin", "JUPYTER_TRIES": "1",
    }  # fmt: skip
    command = ["bash", "-c", (REMOTE / f"{script}.sh").read_text(), script, *arguments]
    return subprocess.run(command, env=os.environ | env, cwd=node, capture_output=True, text=True)


def build(node):
    return run(node, "build", "source", IMAGE)


def calls(node, *starts):
    return [call for call in (node / "calls").read_text().splitlines() if call.startswith(starts)]


def has(node, image):
    return (node / ".docker-state" / f"image-{image}").exists()


def lab_of(node, image, bind="127.0.0.1"):
    (node / ".docker-state" / f"image-{image}").touch()
    (node / ".docker-state" / "container").write_text(f"{image} {bind} 8888\n")


def test_an_image_is_built_once_on_its_pinned_base_and_its_size_is_said(node):
    done = build(node)
    assert done.stdout == f"{IMAGE}, 13.2 GB\n", done.stderr
    (pull,) = calls(node, "docker pull")
    assert pull.startswith("docker pull ubuntu:24.04@sha256:")
    assert build(node).stdout == done.stdout
    assert len(calls(node, "docker build --tag", "docker pull")) == 2


@pytest.mark.parametrize(
    ("free_bytes", "earlier", "missing"),
    [
        (24_999_999_999, False, 1), (25_000_000_000, False, 0),
        (4_000_000_000, True, 21_000_000_000), (5_000_000_000, True, 0),
    ],
)  # fmt: skip
def test_a_build_without_room_is_refused_with_the_bytes_that_are_missing(node, free_bytes, earlier, missing):
    if earlier:
        lab_of(node, "labkit:earlier")
    (node / ".free").write_text(f"{free_bytes}\n")
    done = build(node)
    if missing:
        assert done.returncode == 1
        assert (
            f"problem: no room: the build needs 25000000000 bytes in /var/lib/docker, and {missing} of" in done.stderr
        )
        assert not calls(node, "docker build --tag", "docker pull")
        assert calls(node, "docker builder prune") == ["docker builder prune --force"]
    else:
        assert done.returncode == 0, done.stderr
        assert has(node, IMAGE)


def test_images_of_earlier_projects_go_and_a_containers_stays(node):
    lab_of(node, "labkit:runs")
    for name in ("labkit:earlier", "labkit:<none>", "other:theirs"):
        (node / ".docker-state" / f"image-{name}").touch()
    assert build(node).returncode == 0
    assert calls(node, "docker rmi") == ["docker rmi labkit:earlier"]
    assert has(node, "labkit:runs") and has(node, IMAGE) and has(node, "other:theirs")
    assert calls(node, "docker image prune") == ["docker image prune --force"]


def test_an_earlier_image_that_docker_does_not_remove_stops_nothing(node):
    (node / ".docker-state/image-labkit:earlier").touch()
    (node / "faults").write_text("docker rmi: 1 image is being used\ndocker image prune: 1 a prune runs already\n")
    assert build(node).stdout == f"{IMAGE}, 13.2 GB\n"


def test_a_size_beyond_reason_is_said(node):
    (node / ".docker-state" / "size").write_text("30000000001\n")
    assert build(node).stdout.startswith(f"{IMAGE}, 30.0 GB, which is more than 30 GB: look with")


@pytest.mark.parametrize(
    ("bind", "image", "running", "stopped"),
    [
        ("127.0.0.1", "labkit:old", "stop", False), ("127.0.0.1", "labkit:old", "keep", False),
        ("127.0.0.1", IMAGE, "keep", False), ("0.0.0.0", "labkit:old", "keep", False),
        ("127.0.0.1", IMAGE, "stop", True), ("0.0.0.0", "labkit:old", "stop", True),
    ],
)  # fmt: skip
def test_a_container_that_runs_is_left_alone_unless_told_to_stop_it(node, bind, image, running, stopped):
    lab_of(node, "labkit:old")
    (node / f".docker-state/image-{IMAGE}").touch()
    done = run(node, "jupyter", "source", "workspace", image, bind, "8888", running)
    assert '"token"' in done.stdout, done.stderr
    assert bool(calls(node, "docker rm ", "docker run --detach")) is stopped
    label = (node / ".docker-state/container").read_text()
    assert label == (f"{image} {bind} 8888\n" if stopped else "labkit:old 127.0.0.1 8888\n")


def test_the_old_container_is_not_removed_for_an_image_that_is_not_there(node):
    lab_of(node, "labkit:old")
    done = run(node, "jupyter", "source", "workspace", IMAGE, "127.0.0.1", "8888", "stop")
    assert f"image {IMAGE} is not there. Build it with build_image" in done.stderr
    assert not calls(node, "docker rm ")
