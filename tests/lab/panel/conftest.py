"""A real Jupyter server with the panel, asked as a browser asks it, and runs that no one had to run."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from panel_runs import TOKEN, Runs

from labkit.config.workspace import Workspace
from labkit.ledger.ledger import Ledger

ROOT = Path(__file__).parents[3]
WAIT_S = 60
SMI = """#!/bin/sh
echo "0, NVIDIA H100 NVL, 37, 20480, 95830"
echo "1, NVIDIA H100 NVL, [N/A], 1, 95830"
echo "a line that is none"
"""


class Server:
    def __init__(self, root):
        self.runs, self.lease = root / "runs", root / "lease.json"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (root / "bin").mkdir()
        (root / "bin" / "nvidia-smi").write_text(SMI)
        (root / "bin" / "nvidia-smi").chmod(0o755)
        (root / "config").mkdir()
        extension = (ROOT / "docker" / "jupyter" / "server_extension.json").read_text()
        (root / "config" / "jupyter_server_config.json").write_text(extension)
        env = os.environ | {
            "LABKIT_RUNS": str(self.runs), "LABKIT_LEASE": str(self.lease), "JUPYTER_CONFIG_DIR": str(root / "config"),
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", "--ip=127.0.0.1",
            f"--port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            "--ServerApp.base_url=/user/someone", f"--ServerApp.root_dir={root}",
        ]  # fmt: skip
        with (root / "server.log").open("w") as log:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                self.get("/labkit/panel")
                break
            except OSError:
                assert time.monotonic() < deadline and self.process.poll() is None, (root / "server.log").read_text()
                time.sleep(0.1)

    def get(self, path, token=TOKEN, method="GET"):
        headers = {"Authorization": f"token {token}"} if token else {}
        url = f"http://127.0.0.1:{self.port}/user/someone{path}"
        request = urllib.request.Request(url, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.read().decode()

    def post(self, path):
        return self.get(path, method="POST")

    def json(self, path):
        return json.loads(self.get(path))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.process.terminate()
    found.process.wait(WAIT_S)


@pytest.fixture
def runs(server):
    """Makes runs in the ledger of the server."""
    return Runs(server.runs)


@pytest.fixture
def ledger(server, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(server.runs))
    return Ledger(Workspace.find().runs)
