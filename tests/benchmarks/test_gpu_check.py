"""The GPU check does everything on the simulated GPU: predicts, runs, compares, resumes, and says what it leaves
out."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import gpu_check
import pytest
import torch

from labkit.config.layers import resolve
from labkit.config.profiles import Expected, load_profile
from labkit.config.workspace import Workspace
from labkit.ledger.parts import DiedIn
from labkit.ledger.records import Record
from labkit.memory import cuda
from labkit.memory.categories import CATEGORIES
from labkit.memory.report import MemoryReport, PhaseMemory
from labkit.plan.predict import Prediction

SCRIPT = Path(gpu_check.__file__)
WORKSPACE = Workspace.find()
NOT_SHIPPED = shutil.ignore_patterns("runs", "data", "results", "reference")
MIB = 2**20
FITS, DIES = "bf16_true", "xxl_smallest_batch"
"""An experiment of tiny that fits, and one that runs out of memory; the latter costs less and comes first."""
PRETRAINED = gpu_check.PRETRAINED
FORWARD_1 = {"step": 1, "micro_step": 0, "phase": "forward"}


# -- on the simulated GPU


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Two rows on tiny: killed after the first, and called again. The folder, and what the second call printed."""
    out = tmp_path_factory.mktemp("check")
    command = [sys.executable, SCRIPT, "--profile", "tiny", "--only", FITS, DIES, PRETRAINED, "--out", out]
    paths = [str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"LABKIT_RUNS": str(out / "runs"), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as first:
        while not first.stdout.readline().startswith((FITS, DIES, PRETRAINED)):
            assert first.poll() is None
        first.kill()
    rows = list(rows_in(out, "tiny").values())
    second = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    return SimpleNamespace(out=out, first=rows, second=second, command=command, env=env)


def rows_in(out, profile):
    data = json.loads((out / f"gpu_check-{profile}.json").read_text(encoding="utf-8"))
    return {row["experiment"]: row for row in data["rows"].values()}


@pytest.mark.slow
def test_a_check_that_was_killed_continues_with_the_rows_that_are_left(interrupted):
    [finished] = interrupted.first
    assert finished["state"] == "compared"
    assert f"{finished['experiment']}: compared before" in interrupted.second.stdout
    rows = rows_in(interrupted.out, "tiny")
    assert set(rows) == {FITS, DIES, PRETRAINED}
    assert rows[finished["experiment"]] == finished  # the same run and the same time
    assert interrupted.second.returncode == 0, interrupted.second.stderr
    assert "3 of 3 compared rows agree within 2%" in interrupted.second.stdout


@pytest.mark.slow
def test_a_run_that_fits_is_compared_in_every_phase_and_category(interrupted):
    row = rows_in(interrupted.out, "tiny")[FITS]
    assert (row["prediction"]["verdict"], row["measured"]["status"], row["expected"]) == ("fits", "ok", "ok")
    found = {(p["step"], p["micro_step"], p["phase"]) for p in row["phases"]}
    assert len(found) == len(row["phases"]) == 14  # of two steps the first and the last micro step
    assert (1, 3, "after_optimizer_step") in found
    assert set(row["phases"][0]["categories"]) == set(CATEGORIES)
    assert abs(row["worst"]["error"]) <= gpu_check.LIMIT
    assert row["reserved"] == {"predicted": None, "measured": None, "error": None}  # no allocator on the simulated GPU
    assert row["samples_per_s"] > 0
    assert len(row["measured"]["losses"]) == 3


@pytest.mark.slow
def test_out_of_memory_is_a_row_with_the_place_where_it_died(interrupted):
    row = rows_in(interrupted.out, "tiny")[DIES]
    assert row["agrees"]
    for place in (row["prediction"]["died_in"], row["measured"]["died_in"]):
        assert (place["step"], place["phase"]) == (0, "optimizer_step")
    assert row["prediction"]["requested_bytes"] == row["measured"]["out_of_memory"]["requested_bytes"]
    assert [p["phase"] for p in row["phases"]] == ["before_forward", "after_forward", "after_backward"]
    assert row["samples_per_s"] is None


@pytest.mark.slow
def test_one_row_loads_the_base_that_ships(interrupted):
    row = rows_in(interrupted.out, "tiny")[PRETRAINED]
    assert row["agrees"]
    assert (row["config"]["weights"], row["config"]["model_name"]) == ("pretrained", "tiny/blip2-opt-base")
    # on the simulated GPU nothing is reserved at once; on CUDA both numbers are told
    assert (row["prediction"]["warm_up_bytes"], row["prediction"]["reserved_without_warm_up_bytes"]) == (0, None)
    on_cuda = gpu_check.row_of(WORKSPACE, PRETRAINED, load_profile(WORKSPACE, "h100-94gb"))
    found = gpu_check.predict(on_cuda.config)
    assert found.reserved_bytes >= found.warm_up_bytes > 0
    assert found.reserved_without_warm_up_bytes is not None


@pytest.mark.slow
def test_a_runs_seconds_are_those_between_its_events(interrupted):
    measured = rows_in(interrupted.out, "tiny")[FITS]["measured"]
    assert 0 < measured["train_seconds"] <= measured["events_s"] + gpu_check.CLOCK_S
    assert measured["after_training_s"] >= 0


@pytest.mark.slow
def test_nothing_is_run_when_all_rows_are_there(interrupted):
    third = subprocess.run(interrupted.command, capture_output=True, text=True, env=interrupted.env, check=False)
    assert third.returncode == 0
    assert third.stdout.count("compared before") == 3
    assert len(list((interrupted.out / "runs").glob("tiny/*/*/record.json"))) == 3


# -- without waiting: the predictions and the runs are made up


def breakdown(total):
    return dict.fromkeys(CATEGORIES, 0) | {"parameters": total // 2, "activations": total - total // 2}


def phase(name="after_forward", step=0, micro_step=0, total=1000, reserved=None):
    return PhaseMemory(
        phase=name, step=step, micro_step=micro_step, end=breakdown(total), peak=breakdown(total),
        highest=breakdown(total), reserved_bytes=reserved, device_used_bytes=None if reserved is None else reserved + 9,
    )  # fmt: skip


def prediction(verdict="fits", died_in=None, factor=1.0, reserved=None, host_bytes=0):
    found = phase(total=int(1000 * MIB * factor), reserved=reserved)
    found.highest["optimizer_cpu"] = host_bytes
    return Prediction(
        source="predicted", phases=[found], operation="aten.add", reserved_bytes=reserved, verdict=verdict, margin=0.1,
        died_in=died_in,
    )  # fmt: skip


def record(name, status="ok", died_in=None, config=None, reserved=None, reason=None):
    report = MemoryReport(
        source="CUDA" if reserved else "simulated GPU", phases=[phase(total=1000 * MIB, reserved=reserved)]
    )
    return Record(
        id="a-run", experiment=name, profile="", status=status, overrides={}, config=config, config_hash="",
        created="", memory=report, died_in=died_in and DiedIn(**died_in), reason=reason,
    )  # fmt: skip


class Machine:
    """What predictions and runs answer, by experiment, and which runs there were."""

    def __init__(self) -> None:
        self.ran = []
        self.predictions = {}
        self.records = {}
        self.reserved = None

    def predict_all(self, rows):
        names = [row.name for row in rows]
        return {name: self.predictions.get(name, prediction(reserved=self.reserved)) for name in names}

    def run(self, name, overrides, profile, timeout_s, on_event):
        self.ran.append(name)
        config = resolve(WORKSPACE, name, overrides, profile).config.to_dict()
        return record(name, **({"config": config, "reserved": self.reserved} | self.records.get(name, {})))


@pytest.fixture
def machine(monkeypatch):
    found = Machine()
    monkeypatch.setattr(gpu_check, "predict_all", found.predict_all)
    monkeypatch.setattr(gpu_check, "run", found.run)
    return found


GPU = {
    "gpu": "NVIDIA H100 NVL", "driver": "580.1", "cuda": "13.0", "cudnn": 91900, "total_bytes": 93 * 2**30,
    "context_bytes": 500 * MIB,
    "cublas_workspace_bytes": 32 * MIB,
}  # fmt: skip


@pytest.fixture
def gpu(machine, monkeypatch):
    machine.reserved = 1100 * MIB
    monkeypatch.setattr(gpu_check, "in_child", lambda work: dict(GPU))
    monkeypatch.setattr(gpu_check, "too_much_for_host", lambda prediction: None)
    return machine


def check(out, *arguments, profile="tiny"):
    return gpu_check.main(["--profile", profile, "--out", str(out), *arguments])


FEW = ("--only", "reduced_batch", "bf16_true", "larger_model")


@pytest.mark.slow
def test_results_lie_in_the_workspace_where_no_other_folder_is_said(machine, tmp_path, monkeypatch):
    """In the image the script lies where nothing can be written, and only the workspace is brought home."""
    monkeypatch.setenv("LABKIT_WORKSPACE", str(shutil.copytree(WORKSPACE.root, tmp_path / "w", ignore=NOT_SHIPPED)))
    assert gpu_check.main(["--profile", "tiny", "--only", "bf16_true"]) == 0
    assert set(rows_in(tmp_path / "w" / "results", "tiny")) == {"bf16_true"}


@pytest.mark.slow
def test_a_missing_library_skips_its_rows_by_name(machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "missing", lambda names: [name for name in names if name == "bitsandbytes"])
    check(tmp_path, "--only", "xxl_qlora", "xxl_adam8bit", "bf16_true")
    assert machine.ran == ["bf16_true"]
    rows = rows_in(tmp_path, "tiny")
    assert {rows[name]["reason"] for name in ("xxl_qlora", "xxl_adam8bit")} == {"bitsandbytes not installed"}
    assert "skipped: xxl_adam8bit, xxl_qlora" in capsys.readouterr().out
    assert "- xxl_qlora: skipped, bitsandbytes not installed" in (tmp_path / "gpu_check-tiny.md").read_text()


def test_every_library_that_a_row_needs_is_named():
    names = load_profile(WORKSPACE, "tiny").expected
    found = {name: gpu_check.needs(resolve(WORKSPACE, name).config) for name in names}
    assert {name for name, libraries in found.items() if libraries == ["bitsandbytes"]} == {
        "xxl_adam8bit", "xxl_checkpointing", "xxl_qlora",
    }  # fmt: skip
    assert [name for name, libraries in found.items() if libraries == ["deepspeed"]] == ["xxl_cpu_offload"]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "said"), [("peft", "not installed here: peft; "), ("yaml", "yaml is missing here")])
def test_without_what_all_rows_need_it_ends_with_one_line(module, said, tmp_path):
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise ModuleNotFoundError(f'no {{name}}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(block)
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SCRIPT.parents[2]}"}
    command = [sys.executable, SCRIPT, "--profile", "tiny", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def lacks_bitsandbytes(config):
    if config.use_qlora:
        raise PackageNotFoundError("bitsandbytes")
    return "a prediction"


@pytest.mark.slow
def test_a_prediction_that_fails_says_so_in_its_row_alone(monkeypatch):
    monkeypatch.setattr(gpu_check, "predict_in_child", lacks_bitsandbytes)
    tiny = load_profile(WORKSPACE, "tiny")
    rows = [gpu_check.row_of(WORKSPACE, name, tiny) for name in ("bf16_true", "xxl_qlora")]
    said = "bitsandbytes is not installed, and labkit's prediction asks for it"
    assert gpu_check.predict_all(rows) == {"bf16_true": "a prediction", "xxl_qlora": said}
    assert gpu_check._why(ValueError("one\ntwo")) == "no prediction: ValueError: one"
    unnamed = ModuleNotFoundError("Could not import module 'X'")  # transformers raises such
    assert gpu_check._why(unnamed) == "no prediction: ModuleNotFoundError: Could not import module 'X'"


@pytest.mark.slow
def test_a_row_without_a_prediction_is_skipped(machine, tmp_path):
    machine.predictions["larger_model"] = "no prediction: AttributeError: gone"
    check(tmp_path, *FEW)
    assert sorted(machine.ran) == ["bf16_true", "reduced_batch"]
    assert rows_in(tmp_path, "tiny")["larger_model"]["reason"] == "no prediction: AttributeError: gone"


def test_a_row_runs_three_steps_with_no_more_samples_than_that_and_downloads_nothing():
    plain = resolve(WORKSPACE, "grad_accumulation", {}, "h100-94gb").config
    config = gpu_check.row_of(WORKSPACE, "grad_accumulation", load_profile(WORKSPACE, "h100-94gb")).config
    assert (config.max_steps, config.num_train_samples) == (3, 3 * 16 * 4)
    assert (config.weights, config.dataset, config.num_workers) == ("random", "fluent_emoji", 2)
    assert (config.batch_size, config.max_length) == (plain.batch_size, plain.max_length)
    assert config.capacity_gib == plain.capacity_gib is not None


# -- resuming, and the budget


@pytest.mark.slow
def test_rows_are_kept_until_asked_again_and_run_again_with_other_versions(machine, tmp_path, monkeypatch):
    assert check(tmp_path, *FEW) == 0
    assert check(tmp_path, *FEW) == 0
    assert len(machine.ran) == 3
    assert check(tmp_path, *FEW, "--again") == 0
    assert len(machine.ran) == 6
    monkeypatch.setattr(gpu_check, "versions", lambda: {"torch": "2.11.0"})
    assert check(tmp_path, *FEW) == 0
    assert len(machine.ran) == 9
    text = (tmp_path / "gpu_check-tiny.md").read_text()
    assert text.count("3 of 3 compared rows agree") == 2  # each version has its section
    assert text.index("torch 2.13.0") < text.index("torch 2.11.0")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[]", '{"setups": {}, "rows": {"x": 1}, "more": 0}', '{"setups": {"x": {}}}'])
def test_a_damaged_file_is_put_aside(text, machine, tmp_path, capsys):
    damaged = tmp_path / "gpu_check-tiny.json"
    damaged.write_text(text)
    assert check(tmp_path, *FEW) == 0
    [aside] = tmp_path.glob("gpu_check-tiny.damaged-*.json")
    assert aside.read_text() == text
    assert "gpu_check-tiny.json is damaged (" in capsys.readouterr().out
    assert len(rows_in(tmp_path, "tiny")) == 3


@pytest.mark.slow
def test_no_row_is_started_that_the_budget_has_no_time_for(machine, tmp_path, capsys):
    assert check(tmp_path, *FEW, "--budget-s", "5") == 1
    assert machine.ran == []
    assert all(row["state"] == "not run" for row in rows_in(tmp_path, "tiny").values())
    assert "not run: reduced_batch, bf16_true, larger_model" in capsys.readouterr().out
    check(tmp_path, *FEW)
    assert len(machine.ran) == 3
    check(tmp_path, *FEW, "--again", "--budget-s", "5")  # what was compared stays
    assert all(row["state"] == "compared" for row in rows_in(tmp_path, "tiny").values())


def test_cheap_rows_come_first_and_estimates_learn():
    pace = gpu_check.Pace(100.0, time.monotonic())
    assert pace.expected_s(30) == 30
    pace.took(30, 60)
    pace.took(30, 30)
    assert pace.expected_s(30) == pytest.approx(45)
    assert 99 < pace.left_s <= 100
    small, large = (resolve(WORKSPACE, name, {}, "h100-94gb").config for name in ("bf16_true", "reduced_batch"))
    assert gpu_check.estimate_s(small, prediction()) < gpu_check.estimate_s(large, prediction(factor=2.0))


@pytest.mark.slow
def test_a_run_that_fails_is_told_with_its_reason_and_tried_again(machine, tmp_path, capsys):
    machine.records["bf16_true"] = {"status": "failed", "reason": "RuntimeError: no"}
    assert check(tmp_path, *FEW) == 1
    assert "bf16_true: failed, failed: RuntimeError: no" in capsys.readouterr().out
    machine.records["bf16_true"] = {"status": "timeout", "reason": "stopped"}
    assert check(tmp_path, *FEW) == 0  # what was compared agrees, and what was not run is named
    assert "not run: bf16_true" in capsys.readouterr().out
    machine.records.clear()
    assert check(tmp_path, *FEW) == 0
    assert machine.ran.count("bf16_true") == 3
    assert len(machine.ran) == 5


# -- errors and verdicts


def test_an_error_above_zero_says_that_too_much_was_predicted():
    assert gpu_check.error_of(110, 100) == pytest.approx(0.1)
    assert gpu_check.error_of(90, 100) == pytest.approx(-0.1)
    assert gpu_check.error_of(5, 0) is gpu_check.error_of(None, 5) is gpu_check.error_of(5, None) is None


def test_the_planned_second_micro_step_stands_for_the_last():
    planned = MemoryReport(source="predicted", phases=[phase(micro_step=m, step=s) for s in (0, 1) for m in (0, 1)])
    report = MemoryReport(source="CUDA", phases=[phase(micro_step=m) for m in range(4)])
    found = [(a.micro_step, b.micro_step) for a, b in gpu_check.phase_pairs(planned, report, 4)]
    assert found == [(0, 0), (1, 3)]  # the run died before its second step
    assert gpu_check.phase_pairs(planned, None, 4) == []


def test_the_worst_error_has_a_sign_and_a_place():
    phases = [
        gpu_check.compare_phase(phase(total=101, reserved=200), phase(total=100, reserved=200)),
        gpu_check.compare_phase(phase(step=1, total=100, reserved=190), phase(step=1, total=100, reserved=200)),
    ]
    worst = gpu_check.worst_of(phases)
    assert worst["error"] == pytest.approx(-0.05)
    assert gpu_check.worst_words(worst) == "-5.00% reserved, after forward 1"
    assert phases[0]["categories"]["parameters"] == {"predicted": 50, "measured": 50, "error": 0}
    assert phases[0]["categories"]["gradients"]["error"] is None
    assert gpu_check.worst_of([]) is None


OOM_1 = Expected(status="oom", step=1, phase="forward")
BACKWARD_0 = FORWARD_1 | {"step": 0, "phase": "backward"}


@pytest.mark.parametrize(
    ("verdict", "predicted_in", "status", "died_in", "expected", "said"),
    [
        ("fits", None, "ok", None, Expected(), []),
        ("borderline", None, "ok", None, Expected(), []),
        ("out of memory", FORWARD_1, "oom", FORWARD_1 | {"micro_step": 3}, OOM_1, []),
        ("fits", None, "oom", FORWARD_1, OOM_1, ["predicted fits, measured out of memory"]),
        ("out of memory", BACKWARD_0, "oom", FORWARD_1, OOM_1,
         ["predicted to die in backward, step 0, died in forward, step 1"]),
        ("fits", None, "ok", None, OOM_1, ["expected oom, forward of step 1, measured ok"]),
        ("out of memory", FORWARD_1, "oom", FORWARD_1, Expected(), ["expected ok, measured oom forward, step 1"]),
        ("no capacity given", None, "ok", None, Expected(), ["predicted no capacity given, measured fits"]),
    ],
)  # fmt: skip
def test_verdicts_agree_when_predicted_measured_and_expected_are_one(
    verdict, predicted_in, status, died_in, expected, said
):
    ran = record("x", status, died_in, config={"accumulate_grad_batches": 1, "batch_size": 1})
    assert gpu_check.disagreements(prediction(verdict, predicted_in), ran, expected, None) == said


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "code"), [(1.019, 0), (0.981, 0), (1.021, 1), (0.979, 1)])
def test_more_than_two_percent_either_way_is_an_error(factor, code, machine, tmp_path, capsys):
    machine.predictions["bf16_true"] = prediction(factor=factor)
    assert check(tmp_path, *FEW) == code
    printed = capsys.readouterr().out
    assert f"{3 - code} of 3 compared rows agree within 2%" in printed
    assert ("off by more than 2%" in printed) == bool(code)
    assert f"{factor - 1:+.2%} peak" in printed


def test_the_third_step_is_the_one_that_is_timed():
    clock = gpu_check.StepClock()
    for event in (
        {"event": "start", "time": 0.0},
        {"event": "progress", "step": 1, "time": 1.0},
        {"event": "phase", "step": 1, "phase": "after_optimizer_step", "time": 5.0},
        {"event": "progress", "step": 2, "time": 6.0},
        {"event": "progress", "step": 3, "time": 7.0},
        {"event": "progress", "step": 3, "time": 9.0},  # when the model has been taken down
        {"event": "result", "time": 10.0},
    ):
        clock(event)
    assert clock.third_step_s == 2.0
    assert (clock.training_s, clock.after_training_s) == (7.0, 3.0)
    assert clock.disagreements(7.2) == []
    assert clock.disagreements(9.0) == ["the run says 9.0 s of training, its events 7.0 s"]
    assert gpu_check.StepClock().disagreements(9.0) == []  # a run that ended before has no events to hold it against


# -- a GPU, as far as it can be made up


def test_without_a_gpu_it_says_so_in_one_line(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "in_child", lambda work: None)
    says = r"^PyTorch sees no CUDA GPU here: 'labkit doctor' says why\. --profile tiny checks [^\n]*$"
    with pytest.raises(SystemExit, match=says):
        check(tmp_path, profile="h100-94gb")


@pytest.mark.slow
def test_on_a_gpu_what_is_reserved_is_judged_too_and_the_machine_is_described(gpu, tmp_path, capsys):
    gpu.predictions["bf16_true"] = prediction(reserved=1200 * MIB)
    assert check(tmp_path, *FEW, profile="h100-94gb") == 1
    rows = rows_in(tmp_path, "h100-94gb")
    assert rows["reduced_batch"]["agrees"]
    assert rows["bf16_true"]["disagreements"] == ["+9.09% reserved, after forward 0 is off by more than 2%"]
    assert rows["bf16_true"]["measured"]["beside_allocator_bytes"] == 9
    text = (tmp_path / "gpu_check-h100-94gb.md").read_text()
    assert "Driver 580.1, CUDA 13.0, cuDNN 91900 (its attention kernel off). 93.00 GiB in total" in text
    assert "CUDA context 500.00 MiB, cuBLAS workspace 32.00 MiB" in text
    assert "| 5 | bf16_true | fits | fits | ok | - | - | 0.977 | 0.977 | +0.00% | 1.172 | 1.074 | +9.09% |" in text


@pytest.mark.slow
def test_every_table_has_as_many_cells_in_each_line(gpu, tmp_path):
    gpu.records["larger_model"] = {"status": "oom", "died_in": FORWARD_1}
    check(tmp_path, *FEW, profile="h100-94gb")
    text = (tmp_path / "gpu_check-h100-94gb.md").read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [2 + 3, 2 + 3, 2 + 3 * 2]  # rows, phases, categories that are not 0
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert [line.split(" | ")[1] for line in tables[0][2:]] == ["reduced_batch", "bf16_true", "larger_model"]
    assert "- larger_model: predicted fits, measured out of memory; expected ok, measured oom forward, step 1" in text


@pytest.mark.slow
def test_a_gpu_or_a_host_that_is_too_small_skips_rows(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "in_child", lambda work: GPU | {"total_bytes": 80 * 2**30})
    assert check(tmp_path, *FEW, profile="h100-94gb") == 1
    assert gpu.ran == []
    reasons = {row["reason"] for row in rows_in(tmp_path, "h100-94gb").values()}
    assert reasons == {"its 92.10 GiB are more than the GPU's 80.00 GiB"}
    monkeypatch.undo()
    assert gpu_check.too_much_for_host(prediction(host_bytes=MIB)) is None
    assert gpu_check.too_much_for_host(prediction(host_bytes=2**50)).startswith("needs 1048576.00 GiB of host memory")


def test_the_facts_of_a_gpu(monkeypatch):
    allocated = iter((10, 10 + 2 * 2 * 4 * 4 + 32))
    properties = SimpleNamespace(total_memory=99)
    answers = {
        "is_available": lambda: True, "mem_get_info": lambda: (70, 100), "get_device_name": lambda index: "a GPU",
        "get_device_capability": lambda index: (9, 0), "get_device_properties": lambda index: properties,
        "memory_allocated": lambda: next(allocated), "synchronize": lambda: None,
        "get_allocator_backend": lambda: "native",
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device, dtype: ones(*shape, dtype=dtype))
    monkeypatch.setattr(gpu_check, "MATMUL_SIZE", 4)
    monkeypatch.setattr(cuda, "used_by_others_bytes", lambda: 12)
    monkeypatch.setattr(gpu_check, "_answer", lambda *command: "580.1\n")
    found = gpu_check.cuda_facts()
    assert (found["total_bytes"], found["used_with_context_bytes"], found["context_bytes"]) == (100, 30, 18)
    assert (found["cublas_workspace_bytes"], found["driver"], found["capability"]) == (32, "580.1", "9.0")
    json.dumps(found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.cuda_facts() is None


def test_expandable_segments_are_read_from_the_environment(monkeypatch):
    for name in gpu_check.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert gpu_check.environment() == {"expandable_segments": False}
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64,expandable_segments:True")
    assert gpu_check.environment()["expandable_segments"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--only", "nothing"), "has no experiment nothing"), (("--profile", "24GiB"), "names no experiments")],
)
def test_what_cannot_be_checked_ends_with_one_line(arguments, said, tmp_path):
    with pytest.raises(SystemExit, match=said):
        check(tmp_path, *arguments)
