"""The way into a node, with a program in the place of ssh that answers as ssh does."""

import json
import shlex
import stat
import time
import urllib.parse
from pathlib import Path

import pytest

from provisioning import errors
from provisioning.jupyter import Link, tunnel_to
from provisioning.ssh import Ssh


@pytest.fixture
def way(tmp_path):
    return Ssh("203.0.113.7", "cc", 22, tmp_path / "key", tmp_path / "known hosts", "server-id")


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Puts a shell script in the place of ssh."""

    def install(text):
        path = tmp_path / "bin" / "ssh"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return install


@pytest.mark.slow
def test_arguments_arrive_as_they_are(way, ssh, tmp_path, monkeypatch):
    (tmp_path / "echo.sh").write_text("printf '<%s>' \"$@\"; cat\n")
    monkeypatch.setattr("provisioning.ssh.REMOTE", tmp_path)
    ssh('exec bash -c "${@: -1}"')
    odd = ["a b", "$HOME", "it's", "; exit 3", "`id`", ""]
    with (tmp_path / "data").open("w+b") as data:
        data.write(b"through standard input")
        data.seek(0)
        assert way.run("echo", *odd, data=data) == "".join(f"<{item}>" for item in odd) + "through standard input"


@pytest.mark.slow
def test_a_python_script_arrives_with_its_arguments_and_imports_nothing_of_the_students(
    way, ssh, tmp_path, monkeypatch
):
    (tmp_path / "echo.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    (tmp_path / "json.py").write_text("raise SystemExit('the student's')\n")
    monkeypatch.setattr("provisioning.ssh.REMOTE", tmp_path)
    ssh(f'cd {shlex.quote(str(tmp_path))}; exec bash -c "${{@: -1}}"')
    odd = ["a b", "$HOME", "it's", "; exit 3", ""]
    assert json.loads(way.run("echo", *odd)) == odd


def test_nothing_of_the_users_own_configuration_and_no_question_is_asked(way):
    options = shlex.join(way.options)
    assert "-F none" in options
    for option in ("BatchMode=yes", "IdentitiesOnly=yes", "HostKeyAlias=server-id", "StrictHostKeyChecking=accept-new"):
        assert f"-o {option}" in options
    assert "known hosts" in options


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        ("echo 'cc@x: Permission denied (publickey).' >&2; exit 255", errors.SshError, "key .* is refused"),
        ("echo 'connect to host x port 22: Connection refused' >&2; exit 255", errors.SshError, "no answer .*refused"),
        ("echo 'connect to host x port 22: Connection timed out' >&2; exit 255", errors.SshError, "no answer"),
        ("echo 'problem: no room: 7 bytes are missing' >&2; exit 1", errors.DiskFullError, "no room: 7 bytes are mis"),
        ("echo 'tar: x: Cannot write: No space left on device' >&2; exit 2", errors.DiskFullError, "a disk is full"),
        ("echo 'problem: do this' >&2; echo later >&2; exit 4", errors.RemoteError, "failed: do this .exit code 4"),
        ("echo 'just words' >&2; exit 1", errors.RemoteError, "failed: just words"),
        ("exit 1", errors.RemoteError, "failed: no output"),
    ],
)
def test_a_failure_has_a_name_and_one_line(way, ssh, script, error, says, tmp_path):
    ssh(script)
    with pytest.raises(error, match=says) as raised:
        way.run("hello", log=tmp_path / "logs" / "hello.log")
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)
    assert (tmp_path / "logs" / "hello.log").exists()


@pytest.mark.slow
def test_a_machine_without_ssh_is_told(way, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.UsageError, match="ssh is not on this machine. Install"):
        way.run("hello")


@pytest.mark.slow
def test_a_script_that_hangs_is_stopped(way, ssh):
    ssh("exec sleep 5")
    with pytest.raises(errors.RemoteError, match="was stopped after 1 s"):
        way.run("hello", bound_s=1)


@pytest.mark.slow
def test_waiting_goes_on_until_the_node_answers_and_no_longer_than_its_bound(way, ssh, tmp_path):
    tries = tmp_path / "tries"
    ssh(f"echo x >> {tries}; [ $(wc -l < {tries}) -ge 3 ] || {{ echo 'Connection refused' >&2; exit 255; }}")
    said = []
    way.wait(30, 0.01, said.append)
    assert len(tries.read_text().split()) == 3
    assert len(said) == 1  # now and then, not at each try
    ssh("echo 'Connection refused' >&2; exit 255")
    with pytest.raises(errors.SshError, match="no answer"):
        way.wait(0, 0.01, said.append)


@pytest.mark.slow
def test_output_goes_to_a_file_when_asked(way, ssh, tmp_path):
    ssh("echo bytes; echo words >&2")
    with (tmp_path / "out").open("wb") as out:
        assert way.run("hello", to=out) == ""
    assert (tmp_path / "out").read_bytes() == b"bytes\n"


def known(tmp_path):
    """What lets a person in without a question about the host: this machine has been there before."""
    file = shlex.quote(shlex.quote(str(tmp_path / "known hosts")).join(("UserKnownHostsFile=", "")))
    return f"-i {tmp_path / 'key'} -o {file} -o HostKeyAlias=server-id -p 22 cc@203.0.113.7"


def test_a_link_shows_the_tunnel_and_not_the_token(way, tmp_path):
    link = Link(way, 8888, "s3cret")
    link.keep(tmp_path / "link")
    for shown in (str(link), repr(link)):
        assert "s3cret" not in shown
        assert f"ssh -N -L 8889:127.0.0.1:8888 {known(tmp_path)}" in shown
    assert link.url == "http://127.0.0.1:8889/lab?token=s3cret"
    assert (tmp_path / "link").stat().st_mode & 0o777 == 0o600
    opened = Link(way, 8888, "s3cret", is_open=True, file=tmp_path / "link")
    assert opened.url == "http://203.0.113.7:8888/lab?token=s3cret"
    assert "s3cret" not in str(opened)
    for shown in (str(link), str(opened)):
        assert f"Log in:  ssh {known(tmp_path)}" in shown
    assert "Tunnel" not in str(opened)


def test_an_address_that_was_kept_has_its_tunnel(way, tmp_path):
    url = "http://127.0.0.1:8891/lab?token=s3cret"
    assert tunnel_to(url, way, 8888) == f"ssh -N -L 8891:127.0.0.1:8888 {known(tmp_path)}"
    elsewhere = "ssh -N -L 8891:127.0.0.1:8888 -o HostKeyAlias=server-id -p 22 cc@203.0.113.7"
    assert tunnel_to(url, way, 8888, key=False) == elsewhere
    assert tunnel_to("http://203.0.113.7:8888/lab?token=s3cret", way, 8888) == ""


@pytest.mark.parametrize("kept", [True, False])
def test_a_browser_is_started_without_the_token_on_its_command_line(way, tmp_path, monkeypatch, kept):
    """All users of a machine can read the command lines of its processes; of the page only its owner can."""
    link = Link(way, 8888, "s3cret", is_open=True)
    if kept:
        link.keep(tmp_path / "jupyter-link")
    opened = []
    monkeypatch.setattr(Link, "_wait", lambda self: None)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    link.open()
    (address,) = opened
    assert address.startswith("file:///") and "s3cret" not in address
    page = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path))
    assert "url=http://203.0.113.7:8888/lab?token=s3cret" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_no_command_line_of_a_tunnel_or_a_script_has_the_token(way, ssh, tmp_path, monkeypatch):
    ssh("printf '%s\\n' \"$*\" >> " + str(tmp_path / "said") + "; exec sleep 30")
    monkeypatch.setattr(Link, "_wait", lambda self: time.sleep(0.5))
    link = Link(way, 8888, "s3cret")
    link.open(browser=False)
    link.close()
    assert "8888" in (tmp_path / "said").read_text() and "s3cret" not in (tmp_path / "said").read_text()
