"""Collecting, with a program in the place of ssh that answers as ssh does. The real one is in ``tests/system``."""

import json
import shlex
import stat

import pytest

from labkit.cli import main
from labkit.grading import collect as module
from labkit.grading.archive import ArchiveError, read_archive
from labkit.grading.collect import Host, collect
from labkit.lab.lesson import LABS

NODE = Host(name="node")


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Puts a shell script in the place of ssh; collected archives come into an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def install(text):
        path = tmp_path / "bin" / "ssh"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
        return here

    return install


@pytest.mark.slow
def test_it_is_checked_and_gets_its_name(ssh, student, handed):
    here = ssh(f"cat {shlex.quote(str(handed(student(), 'Ann')))}")
    path, found = collect(NODE, "Ann")
    assert path.resolve() == here / "submission-Ann.tar.gz" and found.name == "Ann"
    assert read_archive(path).sha256 == found.sha256
    again, _ = collect(NODE, "Ann")
    assert again != path and len(list(here.iterdir())) == 2


@pytest.mark.slow
def test_what_is_typed_there_is_quoted(ssh, tmp_path):
    ssh(f'printf "%s\\n" "$@" > {tmp_path}/typed; exit 1')
    host = Host(name="node", user="cc", port=2222, key=tmp_path / "key", container="lab 1; reboot", labkit="a b/labkit")
    with pytest.raises(ArchiveError):
        collect(host, "Zoë '; rm -rf ~; '")
    typed = (tmp_path / "typed").read_text().splitlines()
    assert typed[-3:-1] == ["--", "cc@node"]
    assert shlex.split(typed[-1]) == [
        "docker", "exec", "lab 1; reboot", "a b/labkit", "submit", "--name", "Zoë '; rm -rf ~; '", "--output", "-",
    ]  # fmt: skip
    assert {"BatchMode=yes", "2222", str(tmp_path / "key")} <= set(typed)


FAILURES = {
    "refused": ("echo 'cc@node: Permission denied (publickey).' >&2; exit 255", "the key is refused"),
    "no host key": ("echo 'Host key verification failed.' >&2; exit 255", "host key is not known"),
    "no answer": ("echo 'connect to host node port 22: Connection refused' >&2; exit 255", "no answer .*refused"),
    "no labkit": ("echo 'bash: line 1: labkit: command not found' >&2; exit 127", "has no labkit .*--labkit"),
    "no docker": ("echo 'bash: docker: command not found' >&2; exit 127", "has no docker"),
    "no container": ("echo 'Error response from daemon: No such container: lab' >&2; exit 1", "no container 'lab'"),
    "not running": ("echo 'Error response: container 1f is not running' >&2; exit 1", "no container 'lab'"),
    "not in it": ("echo 'exec: \"labkit\": executable file not found in $PATH' >&2; exit 126", "has no labkit"),
    "disk full": ("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1", "a disk of node is full"),
    "no work": ("echo 'error: there is nothing to hand in' >&2; exit 2", "exit code 2: there is nothing to hand in"),
    "silent": ("exit 3", "exit code 3: it said nothing"),
    "cut": ("head -c 3000 {archive}", "not a whole submission: it is cut off.*Collect again"),
    "cut and failed": ("head -c 3000 {archive}; exit 255", "no answer"),
    "nothing": ("true", "not a whole submission"),
    "chatty shell": ("echo Welcome; cat {archive}", "not a whole submission: .*login shell"),
    "escapes": ("printf '\\033[2Jhi\\n' >&2; exit 1", "exit code 1"),
    "endless": ("cat /dev/zero", "more than the 64 MiB"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("script", "says"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_one_line_and_leaves_nothing(ssh, student, handed, script, says):
    here = ssh(script.replace("{archive}", shlex.quote(str(handed(student(), "Ann")))))
    with pytest.raises(ArchiveError, match=says) as error:
        collect(Host(name="node", container="lab"), "Ann")
    assert str(error.value).isprintable()
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_the_work_of_somebody_else_is_refused(ssh, student, handed):
    here = ssh(f"cat {shlex.quote(str(handed(student(), 'Bob')))}")
    with pytest.raises(ArchiveError, match="sent the work of 'Bob' and not of 'Ann'"):
        collect(NODE, "Ann")
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_a_node_that_sends_more_than_a_submission_may_have_is_cut_off(ssh, monkeypatch):
    here = ssh("head -c 3000000 /dev/zero")
    monkeypatch.setattr(module, "LARGEST_BYTES", module.MIB)
    with pytest.raises(ArchiveError, match="sends more than the 1 MiB"):
        collect(NODE, "Ann")
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_a_node_that_hangs_is_left(ssh, monkeypatch):
    here = ssh("exec sleep 5")
    monkeypatch.setattr(module, "BOUND_S", 0.3)
    with pytest.raises(ArchiveError, match="was not done after 0 s"):
        collect(NODE, "Ann")
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_is_full_here_is_said(ssh, student, handed, monkeypatch):
    here = ssh(f"cat {shlex.quote(str(handed(student(), 'Ann')))}")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(ArchiveError, match="cannot be written: No space left on device"):
        collect(NODE, "Ann")
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_a_machine_without_ssh_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArchiveError, match="ssh is not on this machine. Install"):
        collect(NODE, "Ann")


@pytest.mark.slow
def test_the_command_says_what_it_brought(ssh, student, handed, capsys):
    here = ssh(f"cat {shlex.quote(str(handed(student(), 'Ann')))}")
    assert main(["collect", "node", "--name", "Ann"]) == 0
    assert capsys.readouterr().out.startswith(f"submission-Ann.tar.gz: 3 runs, {len(LABS)} notebooks")
    assert main(["collect", "node", "--name", "Ann", "--output", "a.tgz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 3
    assert (here / "a.tgz").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["node"], "--name"),
        (["node", "--name", "a\x1b"], "--name="),
        ([" ", "--name", "Ann"], "HOST=' '"),
        (["node", "--name", "Ann", "--user=-oProxyCommand=reboot"], "--user='-oProxyCommand=reboot'"),
        (["node", "--name", "Ann", "--port", "0"], "--port=0"),
        (["node", "--name", "Ann", "--key", "nowhere"], "--key=nowhere"),
        (["node", "--name", "Ann", "--output", "nowhere/a.tar.gz"], "nowhere/a.tar.gz cannot be written"),
    ],
)
def test_bad_input_is_one_line(ssh, arguments, says, capsys):
    here = ssh("exit 9")
    assert main(["collect", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err and err.rstrip("\n").isprintable()
    assert list(here.iterdir()) == []
