"""The built image: what it says of itself, Jupyter in it, a student's files over two starts, and an experiment."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import LAB, ROOT

NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code", "id": "a", "execution_count": None, "metadata": {}, "outputs": [],
            "source": "echo from $BASH_VERSION",
        }
    ],
    "metadata": {"kernelspec": {"name": "bash", "display_name": "Bash", "language": "bash"}},
    "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip
START_S = 120.0


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in folder.rglob("*")}


def start_words(image) -> list[str]:
    return [*image.config["Entrypoint"], *image.config["Cmd"]]


class Jupyter:
    """What a container does when it starts, on a free port of this machine's loopback."""

    def __init__(self, image, workspace: Path) -> None:
        self.image, self.workspace = image, workspace
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.log = image.folder / f"jupyter-{self.port}.log"
        command = image.command(workspace, *start_words(image), "--ip=127.0.0.1", JUPYTER_PORT=self.port)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def listed(self) -> list[dict]:
        """What provisioning asks: each server that runs in the container."""
        done = self.image.run(self.workspace, "jupyter", "server", "list", "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def ready(self) -> dict:
        """Wait for the server; what it says of itself."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            servers = self.listed()
            if servers and self.answer("/api"):
                return servers[-1]
            time.sleep(0.5)
        raise AssertionError(self.log.read_text())

    def answer(self, path: str, token: str = "") -> dict | int:
        """The JSON that a path answers, or the HTTP status it refuses with; 0 when no one listens."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token:
            asked.add_header("Authorization", f"token {token}")
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return 0

    def start_kernel(self, token: str, name: str) -> None:
        """Start a kernel without a notebook."""
        headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        address = f"http://127.0.0.1:{self.port}/api/kernels"
        asked = urllib.request.Request(address, json.dumps({"name": name}).encode(), headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 201

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def jupyter(image):
    """Starts Jupyter in a workspace; all are stopped after the test."""
    started = []

    def start(workspace: Path) -> Jupyter:
        started.append(Jupyter(image, workspace))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


def test_dockerfile_and_scripts_are_clean_for_their_linters(tools):
    hadolint = Path(sys.executable).with_name("hadolint")
    for command in (
        [hadolint, ROOT / "docker" / "Dockerfile"],
        ["shellcheck", ROOT / "docker" / "start", ROOT / "docker" / "renew"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_image_has_a_user_a_volume_and_no_secret(image):
    config = image.config
    assert config["User"] == "1000:100"
    assert config["Volumes"] == {"/workspace": {}}
    assert config["ExposedPorts"] == {"8888/tcp": {}}
    assert "JUPYTER_TOKEN" not in json.dumps(config)


def test_jupyter_answers_who_has_its_token_and_tells_it_to_who_is_inside(image, workspace, jupyter):
    server = jupyter(workspace)
    told = server.ready()
    assert len(server.listed()) == 1
    assert len(told["token"]) == 48
    assert told["token"] not in server.log.read_text()
    assert server.answer("/api/status", told["token"])["kernels"] == 0
    assert server.answer("/api/status") == 403
    assert server.answer("/api/status", "another") == 403
    kernels = server.answer("/api/kernelspecs", told["token"])["kernelspecs"]
    assert {"python3", "bash"} <= set(kernels)
    names = {item["name"] for item in server.answer("/api/contents", told["token"])["content"]}
    assert {"labs", "configs", "profiles", "finetune.py"} <= names

    inside = ("python", "/opt/labkit/kernels.py")
    assert json.loads(image.run(workspace, *inside).stdout) == {"kernels": [], "terminals": 0}
    server.start_kernel(told["token"], "bash")
    (kernel,) = json.loads(image.run(workspace, *inside).stdout)["kernels"]
    assert kernel["path"] == "bash" and kernel["state"] and kernel["last_activity"].endswith("Z")

    check = image.config["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert image.run(workspace, *check[1:], JUPYTER_PORT=server.port).returncode == 0
    server.stop()
    assert image.run(workspace, *inside).stdout == "null\n"
    assert image.run(workspace, *check[1:], JUPYTER_PORT=server.port).returncode != 0


def test_a_second_start_brings_what_is_missing_and_leaves_what_is_edited(image, workspace, jupyter):
    first = jupyter(workspace)
    token = first.ready()["token"]
    first.stop()
    lab, config = workspace / LAB, workspace / "configs" / "baseline.yaml"
    shipped = config.read_text()
    lab.write_text("my answer")
    config.unlink()
    second = jupyter(workspace)
    assert second.ready()["token"] != token
    assert len(second.listed()) == 1
    assert lab.read_text() == "my answer"
    assert config.read_text() == shipped
    assert owners(workspace) == {1000}


def test_the_user_can_change_the_workspace_and_nothing_of_the_image(image, workspace):
    inside = "id -u; touch /workspace/mine && echo written; touch /opt/labkit/venv/mine || echo refused"
    done = image.run(workspace, "bash", "-c", inside)
    assert done.stdout.split() == ["1000", "written", "refused"]
    terminal = image.run(workspace, "bash", "-lc", "command -v labkit python")
    assert terminal.stdout.split() == ["/opt/labkit/venv/bin/labkit", "/opt/labkit/venv/bin/python"]


def test_the_bash_kernel_runs_a_notebook(image, workspace):
    path = workspace / "bash.ipynb"
    path.write_text(json.dumps(NOTEBOOK))
    path.chmod(0o666)
    done = image.run(workspace, *image.config["Entrypoint"], "jupyter", "execute", "--inplace", "/workspace/bash.ipynb")
    assert done.returncode == 0, done.stderr
    assert "from 5." in path.read_text()


@pytest.mark.parametrize("user", [None, "4321:4321"], ids=["the image's user", "a user of the node"])
def test_an_experiment_runs_and_its_record_is_the_users(image, workspace, user):
    """``docker/start`` has the container work as the owner of the workspace, whom the image need not know."""
    uid, gid = map(int, (user or image.config["User"]).split(":"))
    os.chown(workspace, uid, gid)
    experiment = ("labkit", "run", "reduced_batch", "max_steps=1", "num_train_samples=32", "--json")
    # a container has one user; here two share one, so each has a runtime folder of its own
    options = {"JUPYTER_RUNTIME_DIR": f"/tmp/of-{uid}"} | ({"user": user} if user else {})
    done = image.run(workspace, *image.config["Entrypoint"], *experiment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    records = list((workspace / "runs").glob("tiny/reduced_batch/*/record.json"))
    assert [json.loads(path.read_text())["status"] for path in records] == ["ok"]
    assert owners(workspace) == {uid}
    # by its exit status: of a command that ends at once buildah has been seen to lose what it printed
    of_the_image = "import labkit, sys; sys.exit(not labkit.__file__.startswith('/opt/labkit/venv/'))"
    imported = image.run(workspace, "python", "-c", of_the_image, **options)
    assert imported.returncode == 0, imported.stderr


def test_the_check_of_a_gpu_is_there_and_its_result_is_work_in_the_workspace(image, workspace):
    check = ("python", "/opt/labkit/source/tests/benchmarks/gpu_check.py", "--profile", "tiny", "--only", "bf16_true")
    done = image.run(workspace, *image.config["Entrypoint"], *check, JUPYTER_RUNTIME_DIR="/tmp/of-the-check")
    assert done.returncode == 0, done.stdout + done.stderr
    results = workspace / "results"
    assert sorted(path.name for path in results.iterdir()) == ["gpu_check-tiny.json", "gpu_check-tiny.md"]
    (setup,) = json.loads((results / "gpu_check-tiny.json").read_text())["setups"].values()
    assert setup["labkit"]["text"] != hashlib.sha256().hexdigest()[:12]  # it found labkit's text
    assert owners(workspace) == {1000}


def test_the_doctor_compares_with_what_the_image_was_built_from(image, workspace):
    doctor = ("labkit", "doctor", "--json")
    done = image.run(workspace, *image.config["Entrypoint"], *doctor, JUPYTER_RUNTIME_DIR="/tmp/of-the-doctor")
    found = json.loads(done.stdout[done.stdout.index("{") :])  # what the entry point says comes first
    (versions,) = [check for check in found["checks"] if check["name"] == "versions"]
    assert (versions["level"], versions["found"].endswith("packages as pinned")) == ("green", True)


def test_a_workspace_that_is_anothers_is_refused_with_the_next_step(image, workspace):
    os.chown(workspace, 0, 0)
    workspace.chmod(0o755)
    done = image.run(workspace, *start_words(image))
    assert done.returncode != 0
    assert "User 1000 of the container must be able to write in /workspace" in done.stdout + done.stderr
