"""How busy a node is: the script that a node runs, on a real Jupyter server; and the guard that looks at it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient
from support.wait import wait_for

from provisioning import guard
from provisioning.errors import UsageError
from provisioning.ssh import REMOTE

TOKEN = "only-for-this-test"
SUDO = '#!/bin/bash\nexec "$@"\n'
DOCKER = """#!/bin/bash
# one container: this machine. 'stop' is written down
case "$1" in
  inspect) cat "$HOME/state" ;;
  exec) shift 3; exec "$@" ;;
  stop) echo "$*" >> "$HOME/stopped-calls"; echo false > "$HOME/state" ;;
esac
"""
SMI = '#!/bin/bash\ncat "$HOME/gpu"\n'


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A home with stand-ins for what needs a GPU or Docker, and a Jupyter server that is real."""
    home = tmp_path_factory.mktemp("node")
    (home / "bin").mkdir()
    for name, text in (("sudo", SUDO), ("docker", DOCKER), ("nvidia-smi", SMI)):
        (home / "bin" / name).write_text(text)
        (home / "bin" / name).chmod(0o755)
    (home / "bin" / "python").symlink_to(sys.executable)
    (home / "gpu").write_text("0\n0\n")
    path = f"{home / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    env = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    env |= {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "PATH": path}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyter_server", "--ip=127.0.0.1", f"--port={port}", "--allow-root", "--no-browser",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home}",
    ]  # fmt: skip
    with (home / "server.log").open("w") as out:
        server = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/api", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, (home / "server.log").read_text()
            time.sleep(0.2)
    yield home, env, url
    server.terminate()
    server.wait(60)


@pytest.fixture
def ask(node):
    home, env, _ = node
    shutil.rmtree(home / ".labkit-idle", ignore_errors=True)
    begun(home, timedelta(hours=2))

    def ask():
        done = subprocess.run(
            ["bash", str(REMOTE / "activity.sh")], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def begun(home, ago):
    """The container started so long ago, in Docker's way of writing it."""
    (home / "state").write_text(f"true {datetime.now(UTC) - ago:%Y-%m-%dT%H:%M:%S}.123456789Z\n")


def call(url, verb, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api/{path}", data, {"Authorization": f"token {TOKEN}"}, method=verb)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


@contextlib.contextmanager
def kernel(home, url):
    """A kernel of the server, and a client that has it execute; returns a function that tells its state."""
    name = call(url, "POST", "kernels", {"name": "python3"})["id"]
    client = BlockingKernelClient(connection_file=str(home / "runtime" / f"kernel-{name}.json"))
    client.load_connection_file()
    client.start_channels(hb=False)

    def state():
        return call(url, "GET", f"kernels/{name}")["execution_state"]

    def asked():
        client.kernel_info()
        return state() == "idle"

    wait_for(asked, 60)
    yield client, state
    client.stop_channels()
    call(url, "DELETE", f"kernels/{name}")


@pytest.mark.slow
def test_a_kernel_a_terminal_and_a_gpu_are_told_from_an_open_page(node, ask):
    home, env, url = node
    told = ask()
    assert (told["running"], told["busy"], told["kernels"]) == (True, False, 0)
    assert 7190 < told["quiet_s"] < 7260  # it has not been used since it began
    with kernel(home, url) as (client, state):
        wait_for(lambda: not ask()["busy"], 60)  # its start costs CPU time
        told = ask()
        assert (told["kernels"], told["busy_kernels"], told["busy"]) == (1, 0, False)
        assert told["quiet_s"] < 60
        client.execute("import time; time.sleep(15)")
        wait_for(lambda: state() == "busy")
        told = ask()
        assert (told["busy_kernels"], told["busy"]) == (1, True)

    (home / "gpu").write_text("3\n97\n")
    assert ask()["busy"] and ask()["gpu_percent"] == 97
    (home / "gpu").write_text("0\n[N/A]\n")  # what a GPU without the figure says
    assert not ask()["busy"]

    terminal = call(url, "POST", "terminals", {"cwd": str(home)})["name"]  # a shell below the server
    assert ask()["quiet_s"] < 60
    call(url, "DELETE", f"terminals/{terminal}")


@pytest.mark.slow
def test_what_goes_on_in_the_background_is_busy_by_the_cpu_that_it_uses(node, ask):
    home, env, url = node
    with kernel(home, url) as (client, state):
        client.execute("import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])")
        wait_for(lambda: ask()["cpu_percent"] > 20 and state() == "idle", 60)
        told = ask()
        assert told["busy"] and told["busy_kernels"] == 0
        client.execute("child.kill(); child.wait()")
        wait_for(lambda: not ask()["busy"], 60)


@pytest.mark.slow
def test_the_guard_stops_a_jupyter_that_is_not_used_and_no_other(node, ask):
    home, env, _ = node
    (home / "gpu").write_text("0\n")
    (home / "stopped-calls").unlink(missing_ok=True)
    folder = home / ".labkit-idle"
    for name in ("systemctl", "tee"):
        (home / "bin" / name).write_text(
            f'#!/bin/bash\necho "{name} $*" >> "$HOME/calls"\ncat > /dev/null < /dev/stdin\n'
        )
        (home / "bin" / name).chmod(0o755)
    install = ["bash", str(REMOTE / "guard.sh"), "30", (REMOTE / "activity.sh").read_text()]
    done = subprocess.run(install, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.stdout == "idle guard: stops Jupyter after 30 min without use\n", done.stderr
    assert "systemctl enable --now labkit-idle.timer" in (home / "calls").read_text()

    def look():
        command = ["bash", str(folder / "watch.sh"), str(folder), "30"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return (home / "stopped-calls").exists()

    begun(home, timedelta(minutes=29))
    assert not look()
    begun(home, timedelta(minutes=90))
    (home / "gpu").write_text("80\n")
    assert not look()  # busy, and from now on so long quiet as since now
    (home / "gpu").write_text("0\n")
    assert not look()
    long_ago = time.time() - 31 * 60
    os.utime(folder / "seen", (long_ago, long_ago))
    (home / "bin" / "nvidia-smi").rename(home / "bin" / "away")
    (home / "bin" / "nvidia-smi").write_text("#!/bin/bash\nexit 9\n")
    (home / "bin" / "nvidia-smi").chmod(0o755)
    command = ["bash", str(folder / "watch.sh"), str(folder), "30"]
    subprocess.run(command, env=env, capture_output=True, timeout=60, check=True)
    assert not (home / "stopped-calls").exists()  # who cannot be asked is not stopped
    (home / "bin" / "away").rename(home / "bin" / "nvidia-smi")
    assert look()
    told = ask_stopped(env)
    assert told["running"] is False
    assert datetime.now(UTC) - datetime.fromisoformat(told["stopped_by_guard"]) < timedelta(minutes=2)
    assert look() and (home / "stopped-calls").read_text().count("stop") == 1  # once
    begun(home, timedelta(0))  # started again
    look()
    assert not (folder / "stopped").exists() and (home / "stopped-calls").read_text().count("stop") == 1
    off = subprocess.run(["bash", str(REMOTE / "guard.sh"), "off"], env=env, capture_output=True, text=True,
                         stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip
    assert off.stdout == "idle guard: off\n" and not folder.exists()


def ask_stopped(env):
    done = subprocess.run(["bash", str(REMOTE / "activity.sh")], env=env, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def test_the_guard_is_off_or_waits_long_enough_to_read():
    assert (guard.parse("off"), guard.parse("1h30m"), guard.parse("5m")) == ("off", "90", "5")
    with pytest.raises(UsageError, match="--idle-guard=4m is too short. Give 5m at least, or off"):
        guard.parse("4m")
    with pytest.raises(UsageError, match="--idle-guard: 'soon' is not a length"):
        guard.parse("soon")
