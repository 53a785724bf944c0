"""``docker/start``: what it asks of Docker, from a stand-in that writes its call down."""

import os
import subprocess
from pathlib import Path

import pytest

from provisioning.ssh import REMOTE

ROOT = Path(__file__).parents[2]
START = ROOT / "docker" / "start"
STAND_IN = """\
#!/bin/sh
# stands in for docker: one argument a line
printf '%s\\n' "$@" > "$DOCKER_CALL"
[ ! -e "$DOCKER_CALL.refuse" ] || { echo 'port is taken' >&2; exit 125; }
echo 0123456789ab
"""


@pytest.fixture
def node(tmp_path):
    """A node's home: a workspace that belongs to a user, and a docker that records."""
    (tmp_path / "programs").mkdir()
    docker = tmp_path / "programs" / "docker"
    docker.write_text(STAND_IN)
    docker.chmod(0o755)
    (tmp_path / "my workspace").mkdir()
    if os.getuid() == 0:
        os.chown(tmp_path / "my workspace", 1234, 1234)
    return tmp_path


def start(node, **settings):
    env = {
        "PATH": f"{node / 'programs'}:/usr/bin:/bin", "DOCKER_CALL": str(node / "call"), "IMAGE": "labkit:0123",
        "NAME": "labkit", "LABEL": "labkit=labkit:0123 127.0.0.1 8888", "BIND": "127.0.0.1", "PORT": "8890",
        "WORKSPACE": str(node / "my workspace"),
    }  # fmt: skip
    env = {key: value for key, value in (env | settings).items() if value is not None}
    return subprocess.run([str(START)], env=env, cwd=node, capture_output=True, text=True)


def pairs(node):
    """The options that were given, each with the word behind it, and the last word."""
    words = (node / "call").read_text().splitlines()
    return words, dict(zip(words, words[1:], strict=False))


@pytest.mark.slow
def test_the_container_has_its_name_label_port_gpus_and_workspace(node):
    done = start(node)
    assert done.returncode == 0, done.stderr
    words, options = pairs(node)
    assert words[:2] == ["run", "--detach"]
    assert words[-1] == "labkit:0123"
    assert options["--name"] == "labkit"
    assert options["--label"] == "labkit=labkit:0123 127.0.0.1 8888"
    assert options["--publish"] == "127.0.0.1:8890:8888"
    assert options["--gpus"] == "all"
    assert options["--shm-size"] == "16g"
    assert options["--volume"] == f"{node / 'my workspace'}:/workspace"
    assert "--rm" not in words


@pytest.mark.slow
def test_it_works_as_the_owner_of_the_workspace(node):
    start(node)
    owner = (node / "my workspace").stat()
    assert pairs(node)[1]["--user"] == f"{owner.st_uid}:{owner.st_gid}"


@pytest.mark.slow
def test_a_workspace_relative_to_the_home_is_mounted_by_its_full_name(node):
    start(node, WORKSPACE="my workspace")
    assert pairs(node)[1]["--volume"] == f"{node / 'my workspace'}:/workspace"


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["IMAGE", "NAME", "LABEL", "BIND", "PORT", "WORKSPACE"])
def test_a_setting_that_is_missing_is_named_and_nothing_is_started(node, setting):
    done = start(node, **{setting: None})
    assert done.returncode == 1
    assert done.stderr == f"problem: {setting} is not set\n"
    assert not (node / "call").exists()


@pytest.mark.slow
def test_a_workspace_that_is_not_there_is_not_made_by_docker_as_root(node):
    done = start(node, WORKSPACE=str(node / "other"))
    assert "there is no folder" in done.stderr
    assert not (node / "call").exists()


@pytest.mark.slow
def test_a_workspace_of_root_is_refused_with_the_command_that_mends_it(node):
    if Path("/root").stat().st_uid != 0:  # no matter who owns /root where this runs, it is root's
        pytest.fail("/root does not belong to root")
    done = start(node, WORKSPACE="/root")
    assert done.stderr == "problem: /root belongs to root. Give it to a user: chown -R 1000:1000 /root\n"
    assert not (node / "call").exists()


@pytest.mark.slow
def test_what_docker_refuses_is_the_scripts_own_failure(node):
    (node / "call.refuse").touch()
    done = start(node)
    assert done.returncode == 125
    assert "port is taken" in done.stderr


def test_provisioning_gives_every_setting_and_the_image_listens_where_the_port_leads():
    call = (REMOTE / "jupyter.sh").read_text()
    for setting in ("IMAGE", "NAME", "BIND", "PORT", "WORKSPACE", "LABEL"):
        assert f" {setting}=" in call
    assert "JUPYTER_PORT=8888" in (ROOT / "docker" / "Dockerfile").read_text()
