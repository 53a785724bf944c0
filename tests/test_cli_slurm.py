"""``labkit slurm`` and ``labkit doctor --slurm`` from the command line."""

import json
import os
import shutil

import pytest

from labkit.cli import main
from labkit.cluster.examine import examine_script
from labkit.config.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace that scripts can be written to."""
    folder = tmp_path / "workspace"
    shutil.copytree(Workspace.find().root, folder, ignore=shutil.ignore_patterns("runs", "data", "slurm"))
    monkeypatch.setenv("LABKIT_WORKSPACE", str(folder))
    monkeypatch.setenv("PATH", "/nowhere")
    return folder


def test_a_script_is_written_with_the_line_that_submits_it(workspace, capsys):
    assert main(["slurm", "reduced_batch", "--gpus", "2", "strategy=ddp", "batch_size=4"]) == 0
    (script,) = (workspace / "slurm").glob("reduced_batch-*.sbatch")
    assert capsys.readouterr().out == f"{script}\nsbatch {script}\n"
    text = script.read_text()
    assert "run reduced_batch strategy=ddp batch_size=4" in text
    assert 'devices="$DEVICES" num_nodes="$SLURM_JOB_NUM_NODES"' in text
    assert (workspace / "slurm" / "logs").is_dir()


def test_steps_are_saved_where_they_can_be_unless_told_otherwise(workspace, capsys):
    assert main(["slurm", "reduced_batch"]) == 0
    (saves,) = (workspace / "slurm").glob("*.sbatch")
    assert "enable_checkpointing=true" in saves.read_text() and "--requeue" in saves.read_text()
    assert main(["slurm", "reduced_batch", "enable_checkpointing=false"]) == 0
    (other,) = set((workspace / "slurm").glob("*.sbatch")) - {saves}
    assert "enable_checkpointing=true" not in other.read_text() and "--no-requeue" in other.read_text()


@pytest.mark.slow
def test_a_script_that_was_edited_is_kept(workspace, capsys):
    assert main(["slurm", "reduced_batch"]) == 0
    (script,) = (workspace / "slurm").glob("*.sbatch")
    edited = script.read_text() + "# mine\n"
    script.write_text(edited)
    assert main(["slurm", "reduced_batch"]) == 0
    assert script.read_text() + "# mine\n" == edited
    assert script.with_suffix(".sbatch.bak").read_text() == edited


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "give the name of an experiment, or --job ID"),
    (["reduced_batch", "--job", "7"], "give the name of an experiment, or --job ID"),
    (["reduced_batch", "devices=2"], "devices comes from Slurm; give --gpus and --nodes"),
    (["reduced_batch", "--gpus", "2"], "set strategy=ddp"),
    (["reduced_batch", "--gpus", "0"], "devices=0"),
    (["reduced_batch", "--time", "soon"], "--time=soon is not a time of Slurm's"),
    (["reduced_batch", "--cpus-per-task", "-3"], "--cpus-per-task=-3"),
    (["bf16_true", "--profile", "a100-80gb", "--constraint", "v100"], "V100 has no bf16"),
    (["reduced_batch", "--submit"], "there is no sbatch here"),
    (["--job", "7"], "there is no scontrol here"),
    (["nothing"], "'nothing'"),
])  # fmt: skip
def test_bad_input_is_one_line(workspace, capsys, arguments, said):
    assert main(["slurm", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("error: ")


def test_a_script_is_examined_for_people_and_machines(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HOME", "/project")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "train.sbatch"
    script.write_text("#!/bin/bash\n#SBATCH --ntasks=2\n#SBATCH --time=60\nsrun python train.py --devices 2\n")
    assert main(["doctor", "--slurm", str(script)]) == 1
    said = capsys.readouterr().out
    assert "#SBATCH --ntasks-per-node=2  # in place of --ntasks=2" in said
    assert main(["doctor", "--slurm", str(script), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["worst"] == "red"
    assert {check["name"]: check["level"] for check in facts["checks"]}["tasks"] == "red"


def test_what_is_no_script_is_one_line_and_no_one_waits(tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_bytes(b"#!/bin/bash\n" + b"x" * 2**20)
    (tmp_path / "elf").write_bytes(b"\x7fELF\x02\x00\x00\x01\xff")
    for name, said in (("fifo", "not a regular file"), (".", "Is a directory"), ("huge", "larger than 256 KiB"),
                       ("elf", "binary"), ("a\0b", "cannot be read")):  # fmt: skip
        assert main(["doctor", "--slurm", f"{tmp_path}/{name}"]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and error.startswith("error: ")


@pytest.mark.parametrize(("data", "code", "said"), [
    (b"#!/bin/bash\n# gr\xfc\xdfe\n#SBATCH -n 1\n#SBATCH -G 1\nsrun python t.py\n", 0, "green"),
    (b"#!/bin/bash\r\n#SBATCH -n 1\r\nsrun python t.py\r\n", 1, "DOS line breaks"),
    (b"\xef\xbb\xbf#!/bin/bash\nsrun python t.py\n", 1, "byte order mark"),
    (b"", 1, "#!"),
    (b"#!/bin/bash\nmodule load x\n#SBATCH -N 2\npython t.py\n", 0, "not read by sbatch"),
])  # fmt: skip
def test_bytes_of_every_kind_are_examined(tmp_path, monkeypatch, capsys, data, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it").write_bytes(data)
    assert main(["doctor", "--slurm", "it"]) == code
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("unit", ["$(", '"$(', "${A:-", "(( ", "{ ", "if a; then ", 'bash -c "', "f() { f; f; }; f\n",
                                  'A=("${A[@]}" x y)\n', 'A="$A$A"x\n', "<(", "`", "a=(", "case a in b) "])  # fmt: skip
def test_a_script_that_nests_or_grows_without_end_is_examined(tmp_path, unit):
    assert examine_script("#!/bin/bash\n" + unit * (20_000 // len(unit)), tmp_path, {})


def test_a_script_that_cannot_be_read_is_one_line(tmp_path, capsys):
    assert main(["doctor", "--slurm", str(tmp_path / "none.sbatch")]) == 2
    assert "none.sbatch cannot be read: No such file" in capsys.readouterr().err
    assert main(["doctor", "reduced_batch", "--slurm", "x"]) == 2
    assert "leave out the experiment" in capsys.readouterr().err
