"""The command: advice and profiles for other GPUs, for people and for machines."""

import json
import shutil
import subprocess
import sys

import pytest

from labkit.cli import main
from labkit.config.workspace import Workspace

HEAVY = ("torch", "lightning", "transformers", "bitsandbytes", "datasets", "numpy", "PIL", "tokenizers")


@pytest.fixture
def workspace(tmp_path, monkeypatch, ledger):
    for folder in ("configs", "profiles"):
        shutil.copytree(Workspace.find().root / folder, tmp_path / "workspace" / folder)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(tmp_path / "workspace"))
    return Workspace.find()


@pytest.mark.slow
def test_advice_is_printed_for_people_and_for_machines(ledger, capsys):
    assert main(["advise", "baseline"]) == 0
    out, err = capsys.readouterr()
    assert "baseline on tiny: out of memory (predicted)" in out
    assert "labkit run baseline batch_size=16 accumulate_grad_batches=2 --profile tiny" in out
    assert main(["advise", "baseline", "--gpu", "tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["proposals"][0]["to_type"] in out
    assert all(p["verdict"] == "fits" and p["saved_bytes"] > 0 for p in found["proposals"])


@pytest.mark.slow
def test_of_a_run_that_fits_the_largest_batch_is_said_and_of_a_hopeless_one_what_is_missing(ledger, capsys):
    assert main(["advise", "bf16_true", "max_length=8"]) == 0
    assert "the largest batch_size that fits is" in capsys.readouterr().out
    assert main(["advise", "baseline", "capacity_gib=0.001"]) == 1
    assert "nothing that labkit can change makes it fit" in capsys.readouterr().out


BAD = [
    (["advise", "baselin"], "'baseline'"),
    (["advise", "baseline", "--gpu", "a100-81"], "'a100-80gb'"),
    (["advise", "baseline", "batch_size"], "KEY=VALUE"),
    (["advise", "xxl", "--gpu", "v100-16gb"], "precision=bf16-true"),
    (["profiles", "make"], "--gpu"),
    (["profiles", "make", "--gpu", "24Gi"], "24GiB"),
    (["profiles", "make", "--gpu", "24GiB", "--name", "a/b"], "a/b"),
    (["profiles", "make", "--gpu", "a100-80gb"], "--force"),
    (["profiles", "tiny", "--force"], "--force"),
]


@pytest.mark.parametrize(("arguments", "part"), BAD, ids=[" ".join(line) for line, _ in BAD])
def test_what_cannot_be_is_one_line(arguments, part, workspace, capsys):
    before = sorted(workspace.profiles.iterdir())
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err
    assert sorted(workspace.profiles.iterdir()) == before


@pytest.mark.slow
def test_an_error_imports_nothing_heavy():
    code = (
        "import sys; from labkit.cli import main; status = main(['advise', 'baseline', '--gpu', 'nothing']);"
        f"print(status, [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == ["2", "[]\n"]
