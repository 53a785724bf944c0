"""What the fork server of multiprocessing does not keep, and labkit's does (docs/fork-server.md).

Each test shows it on the Python that runs the tests. Where one fails, multiprocessing has learnt it: when none is left,
``labkit.runs.fork_server`` can go.
"""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

WAIT_S = 60
MAIN = """
import atexit, multiprocessing, os, signal, sys, time

def child(how):
    atexit.register(print, "at exit", flush=True)
    if how == "sleep":
        time.sleep(600)

print("main module")
if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    from multiprocessing.forkserver import _forkserver
    process = context.Process(target=child, args=(sys.argv[1],), daemon=True)
    process.start()
    server = _forkserver._forkserver_pid
    if sys.argv[1] == "look":
        while not (environment := open(f"/proc/{server}/environ", "rb").read()):
            pass  # it is just being started
        print("secret" if b"planted" in environment else "no secret")
        print("our output" if os.readlink(f"/proc/{server}/fd/1") == os.readlink("/proc/self/fd/1") else "its own")
        print("our session" if os.getsid(server) == os.getsid(0) else "its own")
        print("group", os.getpgid(process.pid) == process.pid)
    if sys.argv[1] == "sleep":
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        process.join(30)
        print("exit code", process.exitcode, "alive", os.path.exists(f"/proc/{process.pid}"))
        os.kill(process.pid, signal.SIGKILL)
    process.join()
"""


@pytest.fixture
def said_by(tmp_path):
    """What the program prints, with one of its words."""
    (tmp_path / "program.py").write_text(MAIN)

    def run_it(word):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "program.py"), word], env=os.environ | {"HF_TOKEN": "planted"},
            capture_output=True, text=True, timeout=WAIT_S, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    return run_it


def test_its_server_has_our_environment_streams_and_session(said_by):
    lines = said_by("look")
    assert {"secret", "our output", "our session", "group False"} <= set(lines)


def test_it_imports_the_main_module_again(said_by):
    assert said_by("end").count("main module") > 1


def test_when_its_server_is_killed_a_child_runs_on_and_counts_as_ended(said_by):
    assert "exit code 255 alive True" in said_by("sleep")


@pytest.mark.skipif(sys.version_info >= (3, 12, 1), reason="since then they are run")
def test_what_a_child_has_registered_for_its_exit_is_not_run(said_by):
    assert "at exit" not in said_by("end")
