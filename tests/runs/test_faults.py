"""Faults of files and disks, with real means: each is one line, and no record of another run is lost."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from labkit.config.workspace import Workspace
from labkit.ledger.errors import LedgerError
from labkit.runs.runner import run

pytestmark = pytest.mark.slow

ONE_STEP = {"max_steps": 1, "num_train_samples": 32}
LABKIT = [sys.executable, "-m", "labkit.cli"]
IN_A_NAMESPACE = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
READ_ONLY = 'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; exec "$@"'


def said_by(command, code, **env):
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that a real run has saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("saved")))
        record = run("reduced_batch", ONE_STEP | {"save_model": True})
        assert record.status == "ok", record.reason
        (saved,) = Workspace.find().runs.glob("*/*/*/model")
    return saved


def cut(data):
    return data[:-1000]


def another_header(data):
    return b"\xff" * 8 + data[8:]


def no_json(data):
    return data[:8] + b"?" * 20 + data[28:]


@pytest.mark.parametrize("damage", [cut, another_header, no_json])
def test_weights_that_are_damaged_fail_a_run_in_one_line(ledger, model, tmp_path, damage):
    folder = shutil.copytree(model, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    record = run("reduced_batch", ONE_STEP | {"model_name": str(folder), "weights": "pretrained"})
    assert record.status == "failed"
    assert str(weights) in record.reason
    assert "\n" not in record.reason
    assert "Traceback" not in ledger.find(record.id).log.read_text()


def zipped(path, *names):
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, picture.getvalue())
        rows = "\n".join(f'{{"file_name": "{name}", "text": "red"}}' for name in names)
        archive.writestr("metadata.jsonl", rows)


def test_a_data_set_in_an_archive_that_reaches_out_of_its_folder_is_refused(ledger, tmp_path):
    folder = tmp_path / "deep" / "set"
    folder.mkdir(parents=True)
    inside = [f"{i}.png" for i in range(32)]
    outside = ["../" * 12 + str(tmp_path)[1:] + "/planted.png", "../../planted.png"]
    zipped(folder / "train.zip", *inside, *outside)
    before = sorted(tmp_path.rglob("*"))
    record = run("reduced_batch", ONE_STEP | {"dataset": str(folder)})
    assert record.status == "failed"
    assert str(folder) in record.reason
    assert "\n" not in record.reason
    new = {p for p in tmp_path.rglob("*") if ledger.root not in (p, *p.parents)} - {*before}
    assert new == set()
    assert list(Path(os.environ["HF_HOME"]).rglob("planted*")) == []
    zipped(folder / "train.zip", *inside)  # the same without what reaches out
    assert run("reduced_batch", ONE_STEP | {"dataset": str(folder)}).status == "ok"


def test_a_data_set_in_an_archive_that_breaks_off_fails_in_one_line(ledger, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    zipped(folder / "train.zip", *(f"{i}.png" for i in range(32)))
    archive = folder / "train.zip"
    archive.write_bytes(archive.read_bytes()[:-200])
    record = run("reduced_batch", ONE_STEP | {"dataset": str(folder)})
    assert record.status == "failed"
    assert str(folder) in record.reason
    assert "\n" not in record.reason


def test_a_workspace_that_is_read_only_can_be_looked_at_and_a_run_says_what_to_set(tmp_path, ledger):
    workspace = shutil.copytree(Workspace.find().root, tmp_path / "workspace", ignore=shutil.ignore_patterns("runs"))
    env = {"LABKIT_WORKSPACE": str(workspace), "LABKIT_RUNS": ""}
    command = [*IN_A_NAMESPACE, READ_ONLY, str(workspace), *LABKIT]
    # a machine that gives no one a mount of their own still has a folder that no one can write in
    if subprocess.run([*IN_A_NAMESPACE, READ_ONLY, str(workspace), "true"], capture_output=True).returncode:
        command, env = LABKIT, env | {"LABKIT_RUNS": "/proc/runs"}
    for arguments in (["run", "reduced_batch"], ["run", "reduced_batch", "--json"], ["run", "--all"]):
        out, err = said_by([*command, *arguments], 2, **env)
        assert out.strip() == ""
        assert err.count("\n") == 1
        assert "cannot be written" in err
        assert "Set LABKIT_RUNS" in err
    for arguments in (["compare"], ["configs"], ["profiles"], ["run", "reduced_batch", "--show-config"]):
        assert said_by([*command, *arguments], 0, **env)[1] == ""


@pytest.mark.parametrize("runs", ["/proc/runs", "/sys/runs", "/dev/null/runs"])
def test_a_place_where_no_one_can_write_is_named(runs):
    out, err = said_by([*LABKIT, "run", "reduced_batch"], 2, LABKIT_RUNS=runs)
    assert (out.strip(), err.count("\n")) == ("", 1)
    assert runs in err
    assert "Set LABKIT_RUNS" in err


def test_a_record_that_the_disk_does_not_take_is_named_and_what_is_known_of_the_run_is_kept(ledger):
    def block(event):
        if event["event"] == "start":
            (folder,) = ledger.folders()
            folder.record.with_name(".record.json.partial").mkdir()

    with pytest.raises(LedgerError, match="record.json cannot be written") as error:
        run("reduced_batch", ONE_STEP, on_event=block)
    assert "events.jsonl" in str(error.value)
    (record,) = ledger.records()
    assert record.status == "killed"
    assert len(record.losses) == 1
    assert record.memory.peak_bytes > 0
