"""Planted secrets are looked for in every file and every output of real runs."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from labkit.config.secrets import HIDDEN
from labkit.runs.runner import run

pytestmark = pytest.mark.slow

ONE_STEP = ["max_steps=1", "num_train_samples=32"]
IN_TEXT = "hf_" + "Pl4nted" * 5
"""A secret that no variable names; only its look tells."""
PLANTED = {
    "HF_TOKEN": "hf_" + "Env1ronment" * 3,
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "deadbeef",
    "JUPYTER_TOKEN": "jupyter-planted-97531",
    "JUPYTERHUB_API_TOKEN": "hub-planted-86420",
    "AWS_SECRET_ACCESS_KEY": "planted/with+signs==",
    "OS_PASSWORD": "planted pass word",
}
IN_FILE = "planted-in-the-token-file"
IN_ADDRESS = "planted-behind-a-colon"
ALL = [*PLANTED.values(), IN_FILE, IN_TEXT, IN_ADDRESS]

PRINTS_AT_EXIT = f"""
import atexit, sys
if "labkit.runs.serving" in sys.orig_argv:
    atexit.register(print, "{IN_TEXT}")
"""


@pytest.fixture
def planted(ledger, tmp_path, monkeypatch):
    """An environment as on a hub, with secrets by name, in the hub's token file, and in other variables."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{IN_ADDRESS}@127.0.0.1:9")
    # a library that prints what it should not, in the process that trains
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PRINTS_AT_EXIT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(IN_FILE)
    return ledger


def said_by(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "labkit.cli", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def found_in(text: str) -> list[str]:
    return [value for value in ALL if value in text or json.dumps(value)[1:-1] in text]


def files_with_secrets(root: Path) -> list[str]:
    found = [f"{p}: {found_in(p.read_bytes().decode('latin-1'))}" for p in root.rglob("*") if p.is_file()]
    return [line for line in found if not line.endswith("[]")]


def test_a_run_and_all_that_is_said_of_it_holds_no_secret(planted):
    output = said_by("run", "reduced_batch", *ONE_STEP)
    for command in (
        ["run", "reduced_batch", *ONE_STEP, "--show-config"],
        ["run", "reduced_batch", *ONE_STEP, "--show-config", "--json"],
        ["show", "reduced_batch"],
        ["show", "reduced_batch", "--json"],
        ["compare"],
        ["compare", "--json"],
    ):
        output += said_by(*command)
    assert found_in(output) == []
    (folder,) = planted.folders()
    assert folder.read().status == "ok"
    assert files_with_secrets(planted.root) == []
    assert HIDDEN in folder.log.read_text()  # there was one, and it was taken out


def test_a_secret_that_is_typed_is_refused_and_not_repeated(planted, tmp_path):
    (tmp_path / IN_TEXT).mkdir()
    for typed in (
        f"dataset=https://me:{IN_ADDRESS}@host/set",
        f"dataset=https://host/set?token={IN_FILE}",
        f"dataset={tmp_path / IN_TEXT}",
        f"model_name={PLANTED['JUPYTER_TOKEN']}",
        f"lr={PLANTED['OS_PASSWORD']}",
        f"{PLANTED['HF_TOKEN']}=1",
        PLANTED["HF_TOKEN"],
        f"--token={PLANTED['HF_TOKEN']}",
    ):
        for more in ([], ["--show-config"]):
            said = said_by("run", "reduced_batch", typed, *more, code=2)
            assert HIDDEN in said
            assert found_in(said) == []
    assert not planted.root.exists()


def test_a_run_that_fails_on_something_named_like_a_secret_does_not_say_it(planted, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(32):
        Image.new("RGB", (64, 64), "red").save(folder / f"{i}.png")
    names = [f"{i}.png" for i in range(31)] + [f"{IN_TEXT}.png"]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": n, "text": "red"}) for n in names))
    output = said_by("run", "reduced_batch", f"dataset={folder}", "max_steps=1", code=1)
    output += said_by("show", "reduced_batch") + said_by("compare", "--json")
    (record,) = planted.records()
    assert record.status == "failed"
    assert HIDDEN in record.reason
    assert found_in(output) == []
    assert files_with_secrets(planted.root) == []


def test_no_process_of_a_run_has_a_secret_in_its_environment(planted):
    seen = {}

    def look(event):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                if "-m" in child.cmdline():
                    # of what was forked this is the server's; tests/runs/test_fork_server.py shows what it gets itself
                    seen[child.name()] = (Path("/proc") / str(child.pid) / "environ").read_text()

    record = run("reduced_batch", {"max_steps": 1, "num_train_samples": 32}, on_event=look)
    assert record.status == "ok"
    server = Path(sys.executable).name[:15]
    assert seen.keys() - {"pt_data_worker"} == {server, "train.fit", "plan.background"}  # torch names loader workers
    for environment in seen.values():
        assert "PATH=" in environment
        assert [value for value in PLANTED.values() if value in environment] == []
