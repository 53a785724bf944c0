"""A forked process is like one that was started afresh: streams, environment, exit codes, signals, and no trace
left."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.wait import wait_for

from labkit.runs import fork_server
from labkit.runs.fork_server import Forked, environment, start

pytestmark = pytest.mark.slow

WAIT_S = 60
PROGRAM = """
import atexit, json, os, signal, subprocess, sys, threading, time

def main():
    what, *rest = sys.argv[1:]
    if what == "facts":
        atexit.register(lambda: print("at exit"))
        print("on standard error", file=sys.stderr, flush=True)
        print(json.dumps({
            "argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ), "session": os.getsid(0), "pid": os.getpid(),
            "threads": len(os.listdir("/proc/self/task")), "group": os.getpgrp(),
            "files": sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                            if int(n) > 2 and os.path.lexists(f"/proc/self/fd/{n}")),
            "name": open("/proc/self/comm").read().strip(),
            "handlers": [signal.getsignal(n) is w for n, w in (
                (signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL),
                (signal.SIGCHLD, signal.SIG_DFL))],
            "imported": "torch" in sys.modules,
        }))
    elif what == "exit":
        sys.exit(int(rest[0]))
    elif what == "raise":
        raise ValueError("an unexpected error")
    elif what == "sleep":
        print("asleep", flush=True)
        time.sleep(600)
    elif what == "parent":
        subprocess.Popen(["sleep", "600"])
        print("asleep", flush=True)
        time.sleep(600)
    elif what == "read":
        print(os.read(0, 10) or "end", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "forked_program.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
        yield "forked_program"


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    # a shell that starts the tests in the background lets them ignore it, and what they start inherits that
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def begin(program, tmp_path):
    """Start the program with arguments; what it prints goes to a file."""
    begun = []

    def begin_one(*arguments, forks=True, **env):
        with (tmp_path / f"out{len(begun)}.txt").open("ab") as out:
            process = start(program, arguments, environment() | env, out.fileno(), forks=forks)
        begun.append(process)
        return process, Path(out.name)

    yield begin_one
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_S)
        process.stdin.close()


def said(path, text="asleep"):
    wait_for(lambda: text in path.read_text())


def facts(path):
    import json

    lines = path.read_text().splitlines()
    return json.loads(next(line for line in lines if line.startswith("{"))), lines


def test_it_is_the_process_that_was_asked_for(begin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for forks in (True, False):
        process, out = begin("facts", "two words", forks=forks, LABKIT_MARK="here")
        assert isinstance(process, Forked) == forks
        assert process.wait(WAIT_S) == process.poll() == 0
        one, lines = facts(out)
        assert lines[0] == "on standard error"
        assert lines[-1] == "at exit"
        assert one["pid"] == one["session"] == one["group"] == process.pid
        assert one.pop("imported") == forks
        found.append(one)
        assert one["cwd"] == str(tmp_path)
        assert one["env"]["LABKIT_MARK"] == "here"
        assert not forks or one["name"] == "forked_program"
        assert one["handlers"] == [True, True, True]
    forked, fresh = found
    assert forked["argv"][1:] == fresh["argv"][1:]
    assert forked["env"] == fresh["env"]
    assert forked["threads"] == fresh["threads"] == 1  # to fork a process with threads is not safe
    assert not [name for name in forked["files"] if "socket" in name or "pipe" in name]


@pytest.mark.parametrize("forks", [True, False])
def test_it_ends_as_it_ends(begin, forks):
    assert begin("exit", "3", forks=forks)[0].wait(WAIT_S) == 3
    process, out = begin("raise", forks=forks)
    assert process.wait(WAIT_S) == 1
    assert out.read_text().splitlines()[-1] == "ValueError: an unexpected error"
    for number in (signal.SIGKILL, signal.SIGTERM):
        process, out = begin("sleep", forks=forks)
        said(out)
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(number)
        assert process.wait(WAIT_S) == -number
        process.send_signal(number)  # nothing is there to hear it
    process, out = begin("sleep", forks=forks)
    said(out)
    process.send_signal(signal.SIGINT)
    process.wait(WAIT_S)
    assert out.read_text().splitlines()[-1] == "KeyboardInterrupt"


def test_a_group_is_killed_at_once(begin):
    process, out = begin("parent")
    said(out)
    children = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(WAIT_S) == -signal.SIGKILL
    wait_for(lambda: not any(is_running(pid) for pid in children))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_its_standard_input_ends_when_it_is_closed(begin):
    process, out = begin("read")
    process.stdin.close()
    assert process.wait(WAIT_S) == 0
    assert out.read_text().split() == ["end"]


def test_one_server_forks_for_what_is_read_when_called_and_another_for_what_is_read_at_import(begin):
    begin("exit", "0", LABKIT_ANYTHING="1")[0].wait(WAIT_S)
    server = fork_server._server
    begin("exit", "0", LABKIT_ANYTHING="2", PYTEST_CURRENT_TEST="x")[0].wait(WAIT_S)
    assert fork_server._server is server
    still, out = begin("sleep")
    said(out)
    process, other = begin("facts", OMP_NUM_THREADS="2")
    assert process.wait(WAIT_S) == 0
    assert fork_server._server is not server
    assert facts(other)[0]["env"]["OMP_NUM_THREADS"] == "2"
    assert still.poll() is None  # the first server is let go, and still says how what it has forked ends
    still.kill()
    assert still.wait(WAIT_S) == -signal.SIGKILL


def test_a_prediction_in_this_process_keeps_the_server(begin):
    begin("exit", "0")[0].wait(WAIT_S)
    server = fork_server._server
    import labkit.plan.steps  # noqa: F401 - torch sets variables when it is imported

    assert server.fits(environment())


def test_an_edit_of_labkit_is_seen(begin, monkeypatch):
    begin("exit", "0")[0].wait(WAIT_S)
    server = fork_server._server
    monkeypatch.setattr(fork_server, "_newest_source", lambda: time.time())
    assert not server.fits(environment())


def test_it_is_waited_for_in_a_process_with_many_files(begin):
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        assert begin("exit", "6")[0].wait(WAIT_S) == 6
    finally:
        for descriptor in files:
            os.close(descriptor)


def test_who_is_interrupted_while_asking_ends_no_other(begin):
    still, out = begin("sleep")
    said(out)
    server = fork_server._server
    mine, theirs = socket.socketpair()
    with mine, theirs, out.open() as file:
        socket.send_fds(server._control, [b"."], [theirs.fileno(), file.fileno()])
    assert begin("exit", "0")[0].wait(WAIT_S) == 0
    assert fork_server._server is server
    assert still.poll() is None


def test_a_server_that_has_ended_is_replaced(begin):
    begin("exit", "0")[0].wait(WAIT_S)
    server = fork_server._server
    os.kill(server._process.pid, signal.SIGKILL)
    assert begin("exit", "4")[0].wait(WAIT_S) == 4
    assert fork_server._server is not server


def test_what_a_killed_server_has_forked_counts_as_killed(begin):
    process, out = begin("sleep")
    said(out)
    os.kill(fork_server._server._process.pid, signal.SIGKILL)
    assert process.wait(WAIT_S) == -signal.SIGKILL
    wait_for(lambda: not is_running(process.pid))


def test_nothing_is_left_of_a_process_that_had_a_server(program, tmp_path):
    code = f"""
import os
from labkit.runs import fork_server
out = os.open({str(tmp_path / "out.txt")!r}, os.O_CREAT | os.O_WRONLY)
process = fork_server.start("forked_program", ["read"], fork_server.environment(), out)
print(process.pid, fork_server._server._process.pid, flush=True)
if input() == "die":
    os.kill(os.getpid(), 9)
"""
    for how, returncode in (("end", 0), ("die", -9)):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as watcher:  # fmt: skip
            pids = [int(pid) for pid in watcher.stdout.readline().split()]
            assert len(pids) == 2
            _, stderr = watcher.communicate(how + "\n", timeout=WAIT_S)
            assert watcher.returncode == returncode
            assert stderr == ""
        wait_for(lambda pids=pids: not any(is_running(pid) for pid in pids))


def test_without_libraries_that_can_be_imported_it_is_a_new_python(begin, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('broken')")
    process, _ = begin("exit", "5", PYTHONPATH=f"{tmp_path}:{os.environ['PYTHONPATH']}")
    assert process.wait(WAIT_S) == 5
    assert isinstance(process, subprocess.Popen)


ASKS = """
import os, sys
from labkit.runs import fork_server
out = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
process = fork_server.start("forked_program", sys.argv[2:], fork_server.environment(), out)
own = fork_server._server._process
print(process.pid, own.pid if own else 0, flush=True)
sys.exit(process.wait() if sys.stdin.read() == "" else 9)
"""


@pytest.fixture
def asks(tmp_path):
    """A function that starts a process that asks for a fork; it, the fork, its own server if it has one, what it
    printed."""
    asking = []

    def ask(*arguments, **env):
        out = tmp_path / f"asked{len(asking)}.txt"
        one = subprocess.Popen([sys.executable, "-c", ASKS, str(out), *arguments], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env=os.environ | env)  # fmt: skip
        asking.append(one)
        fork, own = map(int, one.stdout.readline().split())
        return one, fork, own, out

    yield ask
    for one in asking:
        one.kill()
        one.communicate()


@pytest.fixture(scope="module")
def shared(program, tmp_path_factory):
    """A server that all processes of these tests may use; its process."""
    with fork_server.share(tmp_path_factory.mktemp("shared")):
        yield Path(os.environ[fork_server.SHARED])


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_processes_share_a_server_and_each_is_told_how_its_own_fork_ended(shared, asks):
    first, sleeps, own, out = asks("sleep")
    second, exits, other, _ = asks("exit", "3")
    assert own == other == 0
    assert second.communicate()[0] == "" and second.returncode == 3
    said(out)
    (server,) = {parent_of(sleeps)}
    assert "labkit.runs.serving" in Path(f"/proc/{server}/cmdline").read_text()
    os.kill(sleeps, signal.SIGTERM)
    first.communicate()
    assert first.returncode == 256 - signal.SIGTERM


def test_one_that_was_killed_or_says_nonsense_does_not_stop_the_others(shared, asks):
    one, fork, own, out = asks("read")
    assert own == 0
    one.kill()
    wait_for(lambda: not is_running(fork))  # its standard input has ended
    for sent in (b"", b"x"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(shared))
            stranger.sendall(sent)
    again, _, own, _ = asks("exit", "4")
    again.communicate()
    assert (own, again.returncode) == (0, 4)


def test_another_environment_or_a_server_that_has_gone_means_one_of_its_own(shared, asks, tmp_path):
    for env in ({"OMP_NUM_STREAMS": "2"}, {fork_server.SHARED: str(tmp_path / "none")}):
        one, _, own, _ = asks("exit", "5", **env)
        assert own > 0
        one.communicate()
        assert one.returncode == 5


def test_what_was_set_while_the_server_is_shared_is_as_before(program, tmp_path, monkeypatch):
    monkeypatch.setenv(fork_server.SHARED, "before")
    with fork_server.share(tmp_path):
        assert os.environ[fork_server.SHARED] == str(tmp_path / "fork-server")
    assert os.environ[fork_server.SHARED] == "before"
    assert list(tmp_path.iterdir()) == []
