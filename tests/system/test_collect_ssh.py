"""Collecting through a real sshd on loopback, and a real ssh. Where OpenSSH is not there it is installed, as root."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.wait import wait_for

from labkit.grading.archive import ArchiveError, read_archive
from labkit.grading.collect import Host, collect
from labkit.lab.lesson import LABS
from labkit.runs.runner import run

BOUND_S = 20.0
SSHD = "/usr/sbin/sshd"


def make_key(path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A folder with a node's work; a real sshd lets ``key`` in, and a client's configuration calls it ``node``."""
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        subprocess.run(["apt-get", "update"], check=True)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", "openssh-server"], check=True)
    folder = tmp_path_factory.mktemp("node")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder / "runs"))
        run("reduced_batch", {"max_steps": 2})
    host_key, key = make_key(folder / "host_key"), make_key(folder / "key")
    make_key(folder / "stranger")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = f"LABKIT_RUNS={folder}/runs PATH={folder}/bin:{Path(sys.executable).parent}:/usr/bin:/bin"
    settings += f" PYTHONPATH={Path(__file__).parents[2]}"
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f"AuthorizedKeysFile {key}.pub\nSetEnv {settings}\n"
    )
    known = " ".join(Path(f"{host_key}.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}\n")
    (folder / "ssh_config").write_text(
        f"Host node stopped strange\n  HostName 127.0.0.1\n  UserKnownHostsFile {folder}/known_hosts\n"
    )
    (folder / "bin").mkdir()
    (folder / "bin" / "half").write_text('#!/bin/bash\nlabkit "$@" | head -c 4000; kill -9 $PPID\n')
    (folder / "bin" / "docker").write_text('#!/bin/bash\n[ "$1 $2" = "exec lab" ] && shift 2 && exec "$@"\nexit 1\n')
    (folder / "client").mkdir()
    (folder / "client" / "ssh").write_text(f'#!/bin/bash\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    for script in (folder / "bin" / "half", folder / "bin" / "docker", folder / "client" / "ssh"):
        script.chmod(0o755)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd refuses to start without it
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_for(lambda: accepts(port) or server.poll() is not None, BOUND_S, (folder / "sshd.log").read_text)
        assert server.poll() is None, (folder / "sshd.log").read_text()
        yield folder, port
    finally:
        server.terminate()
        server.wait(BOUND_S)


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture
def host(node, tmp_path, monkeypatch):
    """The node as ``labkit collect`` is told of it; other values may be typed."""
    folder, port = node
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{folder / 'client'}:/usr/bin:/bin")
    return lambda **more: Host(**{"name": "node", "port": port, "key": folder / "key"} | more)


def test_a_students_work_comes_home_whole(host, tmp_path):
    path, found = collect(host(), "Zoë Müller")
    assert found.name == "Zoë Müller" and len(found.notebooks) == len(LABS)
    assert len({name.rpartition("/")[0] for name in found.sha256 if name.startswith("runs/")}) == 1
    assert read_archive(path).sha256 == found.listed == found.sha256


def test_also_out_of_a_container(host):
    """docker is a stand-in here: it only runs what it is told; no Docker engine was at hand."""
    assert collect(host(container="lab"), "Ann")[1].name == "Ann"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"key": "stranger"}, "the key is refused"),
        ({"labkit": "nowhere/labkit"}, "has no nowhere/labkit"),
        ({"labkit": "half"}, "no answer|no whole submission"),
        ({"port": "free"}, "no answer .*refused"),
        ({"name": "127.0.0.1"}, "host key is not known"),
    ],
    ids=str,
)
def test_what_fails_has_a_name_and_leaves_nothing(host, node, tmp_path, more, says):
    if "key" in more:
        more = {"key": node[0] / more["key"]}
    if more.get("port") == "free":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            more = {"port": probe.getsockname()[1]}
    with pytest.raises(ArchiveError, match=says) as error:
        collect(host(**more), "Ann")
    assert str(error.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_ledger_there_is_said_as_it_is_said_there(host, node):
    (node[0] / "bin" / "empty").write_text(
        f'#!/bin/bash\nLABKIT_RUNS={shlex.quote(str(node[0] / "none"))} labkit "$@"\n'
    )
    (node[0] / "bin" / "empty").chmod(0o755)
    with pytest.raises(ArchiveError, match="exit code 2: there is nothing to hand in"):
        collect(host(labkit="empty"), "Ann")
