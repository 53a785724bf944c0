"""The command: diagnose and doctor, for people and for machines."""

import json
import subprocess
import sys

import pytest

from labkit.cli import main
from labkit.config.workspace import Workspace
from labkit.help.diagnosis.diagnose import diagnose
from labkit.ledger.ledger import Ledger
from labkit.ledger.parts import Diagnosis
from labkit.ledger.shape import plain
from labkit.runs.runner import run

HEAVY = ("torch", "lightning", "transformers", "bitsandbytes", "datasets", "numpy", "PIL", "tokenizers", "rich")


@pytest.fixture(scope="module")
def dead(tmp_path_factory):
    """The record of a run that is out of memory, in a ledger of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("dead")))
        yield run("xxl_smallest_batch")


@pytest.mark.slow
def test_a_run_out_of_memory_is_explained_with_what_would_fit(dead, capsys):
    assert main(["diagnose", "xxl_smallest_batch"]) == 0
    out = capsys.readouterr().out
    parts = ["What happened", "simulated GPU's memory ran out in the optimizer step of step 0", "Evidence", "held by ",
             "What to do", "labkit advise xxl_smallest_batch --gpu tiny", "Would fit (predicted)", "1. ", "costs ",
             "labkit run xxl_smallest_batch "]  # fmt: skip
    rest = out
    for part in parts:
        _, found, rest = rest.partition(part)
        assert found, f"{part!r} is not there, or not in its place"
    assert main(["diagnose", dead.id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["diagnosis"] == plain(diagnose(dead, ""))
    assert [p["verdict"] for p in found["predicted"]["proposals"]] == ["fits"] * len(found["predicted"]["proposals"])
    assert found["predicted"]["proposals"][0]["to_type"] in out


@pytest.mark.slow
def test_show_has_the_diagnosis_that_a_record_keeps(dead, capsys):
    assert dead.diagnosis.kind == "simulated_gpu_full"
    main(["show", dead.id])
    out = capsys.readouterr().out
    assert "What happened" in out
    assert all(line in out for line in dead.diagnosis.next_steps)


@pytest.mark.slow
def test_what_was_found_when_the_run_ended_is_what_is_said(dead, capsys, monkeypatch):
    folder = Ledger(Workspace.find().runs).find(dead.id)
    read = type(folder).read
    kept = {"kind": "host_out_of_memory", "happened": "confirmed then", "evidence": ["a"], "next_steps": ["b"]}

    def with_diagnosis(self):
        record = read(self)
        record.diagnosis = Diagnosis(**kept)
        return record

    monkeypatch.setattr(type(folder), "read", with_diagnosis)
    main(["diagnose", dead.id, "--json"])
    assert json.loads(capsys.readouterr().out)["diagnosis"] == kept


@pytest.mark.slow
def test_a_run_that_ended_well_is_said_to_have(ledger, capsys):
    assert run("reduced_batch", {"max_steps": 1}).status == "ok"
    assert main(["diagnose", "reduced_batch"]) == 0
    assert "nothing to diagnose" in capsys.readouterr().out


def test_a_log_of_another_program_is_read(tmp_path, capsys, ledger):
    log = tmp_path / "job-12.out"
    log.write_text("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which "
                   "1.23 GiB is free. Including non-PyTorch memory, this process has 77.90 GiB memory in use. Of the "
                   "allocated memory 77.00 GiB is allocated by PyTorch, and 0.30 GiB is reserved by PyTorch but "
                   "unallocated.")  # fmt: skip
    assert main(["diagnose", str(log)]) == 0
    out = capsys.readouterr().out
    assert "The GPU is really full" in out
    assert "gradient accumulation" in out
    assert "labkit advise" not in out  # which knows experiments, and this is none of them
    assert main(["diagnose", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["diagnosis"]["kind"] == "gpu_full"
    log.write_text(f"labkit run baseline\n{log.read_text()}")
    assert main(["diagnose", str(log)]) == 0
    assert "labkit advise EXPERIMENT --gpu 79.15GiB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["diagnose", "no-such-run"], "'no-such-run'"),
        (["diagnose", "baseline"], "labkit run baseline"),
        (["diagnose", "."], "no run"),
        (["doctor", "baselin"], "'baseline'"),
        (["doctor", "--profile", "tinny"], "'tiny'"),
        (["doctor", "baseline", "batch_size"], "KEY=VALUE"),
        (["doctor", "baseline", "batch_size=0"], "batch_size=0"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, part, ledger, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err


@pytest.mark.slow
def test_doctor_is_green_here_and_red_where_a_gpu_is_missing(ledger, capsys, monkeypatch, tmp_path):
    assert main(["doctor"]) == 0
    assert "green  gpu" in capsys.readouterr().out
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi, wherever this runs
    assert main(["doctor", "--profile", "h100-94gb"]) == 1
    out = capsys.readouterr().out
    assert "red    gpu" in out
    assert out.splitlines()[-1].endswith("red")
    assert main(["doctor", "--profile", "h100-94gb", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["worst"], found["checks"][0]["level"]) == ("red", "red")


@pytest.mark.slow
def test_doctor_asks_the_planner_what_an_experiment_needs(ledger, capsys):
    main(["doctor", "xxl_cpu_offload", "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "MiB" in checks["host memory"]["found"]
    main(["doctor", "reduced_batch", "enable_checkpointing=true", "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    # 2 checkpoints and one that is written, each of parameters and two states of Adam: 3 x 3 x 15.2 MiB
    assert "needed about 136.96 MiB" in checks["disk"]["found"]


@pytest.mark.slow
def test_a_log_and_a_machine_are_looked_at_without_heavy_libraries(tmp_path, monkeypatch):
    (tmp_path / "log.txt").write_text("OSError: [Errno 28] No space left on device")
    code = (
        "import sys; from labkit.cli import main; main(['diagnose', 'log.txt']); main(['doctor', '--json']);"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    monkeypatch.setenv("LABKIT_WORKSPACE", str(Workspace.find().root))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]"
