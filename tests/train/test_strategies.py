"""Offload: what it needs, what is built for which device, and where ZeRO keeps what in stage 2 and 3."""

import copy
import functools
import os
import sys
import sysconfig

import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from tiny import T5, plain
from transformers import Blip2ForConditionalGeneration

from labkit.cli import main
from labkit.config.schema import RunConfig
from labkit.ledger.ledger import Ledger
from labkit.memory.categories import CATEGORIES
from labkit.runs.runner import run
from labkit.train.errors import CheckpointError
from labkit.train.in_place import OneDevice
from labkit.train.optimizers import build_optimizer
from labkit.train.strategies import Zero, ZeroOnCPU, build_strategy, missing_compiler, set_environment

torch.set_num_threads(1)

OFFLOAD = {
    "optim": "deepspeed_cpu", "strategy": "deepspeed_stage_2_offload", "loss_average": "batches",
    "precision": "bf16-true", "capacity_gib": 1, "model_name": T5, "weights": "random",
}  # fmt: skip
BUCKET_NUMBERS = 200_000


@pytest.fixture(autouse=True)
def environment():
    """What DeepSpeed is told by environment is forgotten after each test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def compiler():
    """Skips where DeepSpeed's CPU optimizer cannot be compiled."""
    if reason := missing_compiler(RunConfig(**OFFLOAD)):
        pytest.skip(reason)


@pytest.fixture(scope="module")
def offload(compiler, course_records):
    """The record of stage 2."""
    return course_records["xxl_cpu_offload"]


@pytest.fixture(scope="module")
def stage_3(compiler, tmp_path_factory):
    """The record of one step in stage 3, and the folder of its model."""
    folder = tmp_path_factory.mktemp("stage_3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder))
        record = run("xxl_cpu_offload", {"strategy": "deepspeed_stage_3_offload", "save_model": True, "max_steps": 1})
    assert record.status == "ok", record.reason
    return record, Ledger(folder).find(record.id).path / "model"


# -- what it needs


def test_other_optimizers_need_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "/nope")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nope")
    for optim in ("adamw", "sgd", "adam_8bit"):
        assert missing_compiler(RunConfig(model_name=T5, capacity_gib=1, weights="random", optim=optim)) is None


def test_without_a_compiler_the_reason_names_what_brings_one(monkeypatch):
    monkeypatch.setenv("CXX", "/nope")
    reason = missing_compiler(RunConfig(**OFFLOAD))
    assert "optim=deepspeed_cpu" in reason
    assert "(/nope)" in reason
    assert "'apt-get install g++'" in reason
    assert "\n" not in reason


def test_without_pythons_headers_the_reason_names_what_brings_them(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", sys.executable)  # any program is one
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    reason = missing_compiler(RunConfig(**OFFLOAD))
    assert str(tmp_path / "Python.h") in reason
    assert "'apt-get install python3-dev'" in reason
    assert "\n" not in reason
    (tmp_path / "Python.h").touch()
    assert missing_compiler(RunConfig(**OFFLOAD)) is None


@pytest.mark.slow
def test_without_a_compiler_the_experiment_is_skipped_and_says_why(ledger, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "/nope")
    assert main(["run", "xxl_cpu_offload"]) == 0
    (record,) = ledger.records()
    assert (record.status, record.as_expected) == ("skipped", None)
    assert record.reason == missing_compiler(RunConfig(**OFFLOAD))
    assert record.memory is None
    assert "'apt-get install g++'" in " ".join(capsys.readouterr().out.split())


# -- what is built


def test_a_plain_run_has_one_device():
    simulated = build_strategy(RunConfig(model_name=T5, capacity_gib=1, weights="random"))
    assert (type(simulated), simulated.root_device) == (OneDevice, torch.device("cpu"))
    assert build_strategy(RunConfig(device="cuda")).root_device == torch.device("cuda:0")


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("device", ["simulated", "cuda"])
def test_offload_has_deepspeeds_own_strategy_on_cuda_and_one_for_cpus_elsewhere(device, stage):
    config = RunConfig(**(OFFLOAD | {"device": device, "strategy": f"deepspeed_stage_{stage}_offload"}))
    strategy = build_strategy(config)  # asks for CUDA only when training begins
    assert type(strategy) is (Zero if device == "cuda" else ZeroOnCPU)
    assert isinstance(strategy, DeepSpeedStrategy)
    zero = strategy.config["zero_optimization"]
    assert zero["stage"] == stage
    assert zero["offload_optimizer"]["device"] == "cpu"
    assert zero.get("offload_param", {}).get("device") == ("cpu" if stage == 3 else None)
    assert (zero["reduce_bucket_size"] == BUCKET_NUMBERS) == (device == "simulated")
    # on CUDA DeepSpeed's own default, said aloud so that it can be planned with
    prefetch = {"simulated": 50_000, "cuda": 50_000_000}[device] if stage == 3 else None
    assert zero.get("stage3_prefetch_bucket_size") == prefetch
    assert strategy._process_group_backend == ("gloo" if device == "simulated" else None)


# -- where ZeRO keeps what


@functools.cache
def largest(name):
    return max(p.numel() for p in plain(name).parameters())


def host_bytes(numbers, largest_numbers, summed, stepped):
    """Stage 2's share of host memory: of each number an fp32 master weight, its fp32 gradient and a bf16 copy on its
    way back; from the first backward on a bf16 sum of the micro batches' gradients; two fp32 states once it has
    stepped; and room for one gradient."""
    return numbers * (4 + 4 + 2 + 2 * summed + (4 + 4) * stepped) + 2 * largest_numbers


@pytest.mark.slow
def test_stage_2_keeps_state_and_master_weights_in_host_memory(offload):
    numbers = offload.model.parameters
    for phase in offload.memory.phases:
        assert phase.highest["optimizer_gpu"] == 0
        assert phase.highest["parameters_cpu"] == 0
        first = (phase.step, phase.micro_step) == (0, 0)
        summed = not first or phase.phase not in ("before_forward", "after_forward")
        stepped = phase.step > 0 or phase.phase == "after_optimizer_step"
        expected = host_bytes(numbers, largest(T5), summed, stepped)
        assert phase.end["optimizer_cpu"] == pytest.approx(expected, rel=0.01), (phase.step, phase.phase)


@pytest.mark.slow
def test_stage_2_keeps_weights_and_one_bucket_of_gradients_on_the_device(offload):
    numbers = offload.model.parameters
    for phase in offload.memory.phases:
        assert phase.end["parameters"] == pytest.approx(2 * numbers, rel=0.01)
        # gradients go to the host as they come: there is room for one, but never for all
        assert 0 < phase.highest["gradients"] <= 2 * (largest(T5) + BUCKET_NUMBERS) + 4096


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_the_peak_of_a_run_is_that_of_its_highest_phase(stage, offload, stage_3):
    record = offload if stage == 2 else stage_3[0]
    assert record.peak_bytes == record.memory.peak_bytes == max(p.peak_bytes for p in record.memory.phases)
    for phase in record.memory.phases:
        assert set(phase.peak) == set(CATEGORIES)
        assert 0 <= phase.end["unattributed"] < 0.02 * phase.peak_bytes
        assert 0 <= phase.peak["unattributed"] < 0.02 * phase.peak_bytes


@pytest.mark.slow
def test_stage_3_keeps_the_weights_in_host_memory_too(stage_3):
    record, _ = stage_3
    numbers = record.model.parameters
    for phase in record.memory.phases:
        assert phase.highest["optimizer_gpu"] == 0
        assert phase.end["parameters"] == 0
        assert phase.end["parameters_cpu"] == pytest.approx(2 * numbers, rel=0.01)
        # fp32 master weight and gradient and a bf16 gradient of each number; two fp32 states once it has stepped
        per_number = 4 + 4 + 2 + (4 + 4) * (phase.phase == "after_optimizer_step")
        assert phase.end["optimizer_cpu"] == pytest.approx(per_number * numbers, rel=0.01), phase.phase
    assert record.peak_bytes < 0.75 * 94.8 * 2**20


@pytest.mark.slow
def test_stage_3_saves_a_whole_model_that_plain_transformers_loads(stage_3):
    record, folder = stage_3
    model = Blip2ForConditionalGeneration.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == record.model.parameters
    start = dict(plain(T5, precision="bf16-true").named_parameters())
    lr = record.config["lr"]
    moved = 0
    for key, weight in model.named_parameters():
        assert weight.shape == start[key].shape, key
        change = (weight.float() - start[key].float()).abs()
        # one step of Adam moves a number by lr at most, and by its weight decay; bf16 rounds what comes out
        assert (change <= 1.1 * lr + start[key].float().abs() * (0.01 * lr + 2**-7)).all(), key
        moved += int((change > 0).sum())
    assert moved > record.model.parameters / 2


# -- what comes out


@pytest.mark.slow
def test_both_stages_have_the_same_first_loss(offload, stage_3):
    assert stage_3[0].losses == pytest.approx(offload.losses[:1], rel=1e-4)


@pytest.mark.slow
def test_offload_has_the_first_loss_of_a_plain_run(ledger, compiler):
    values = {"dropout": 0.0, "max_steps": 1}
    offload = run("xxl_cpu_offload", values)
    plainly = run("xxl_cpu_offload", values | {"strategy": "auto", "optim": "sgd"})
    assert (offload.status, plainly.status) == ("ok", "ok")
    assert plainly.config["loss_average"] == offload.config["loss_average"] == "batches"
    assert plainly.samples == offload.samples == 64
    # weights that lie elsewhere in memory are summed in another order; near 7 a bf16 number is 2**-5 from the next,
    # and this is the mean of four
    assert plainly.losses == pytest.approx(offload.losses, abs=2 * 2**-5 / 4)


@pytest.mark.filterwarnings("ignore")  # what deepspeed says when it is imported
@pytest.mark.parametrize(
    "named", ["../elsewhere", "{}/elsewhere", "elsewhere", "checkpoint/../../elsewhere", "", "\xff"]
)
def test_a_checkpoint_that_names_a_folder_beside_it_is_refused(tmp_path, named):
    saved = tmp_path / "step-000003"
    (saved / "state.ckpt").mkdir(parents=True)
    (saved / "state.ckpt" / "latest").write_text(named.format(tmp_path), encoding="latin-1")
    strategy = build_strategy(RunConfig(**OFFLOAD))
    with pytest.raises(CheckpointError, match=r"step-000003 is damaged \(latest names .*; delete it") as refused:
        strategy.load_checkpoint(saved / "state.ckpt")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what deepspeed says when it is imported
def test_the_cpu_optimizer_steps_as_adamw_does(compiler):
    set_environment(simulated=True)
    config = RunConfig(**(OFFLOAD | {"lr": 1e-3}))
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(size)) for size in ((1000, 7), (33,), (1,))]
    theirs = copy.deepcopy(ours)
    optimizers = build_optimizer(config, ours), torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.01)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        for one, other in zip(ours, theirs, strict=True):
            assert (one - other).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"use_lora": True}, {"freeze_language": True}], ids=["LoRA", "frozen language"])
def test_stage_3_keeps_frozen_weights_in_host_memory_too(ledger, offload, keys):
    stage_3 = {"strategy": "deepspeed_stage_3_offload", "batch_size": 4, "accumulate_grad_batches": 1, "max_steps": 1}
    record = run("xxl_cpu_offload", stage_3 | keys)
    assert record.status == "ok", record.reason
    for phase in record.memory.phases:
        assert phase.end["parameters"] == 0
        assert phase.end["parameters_cpu"] == pytest.approx(record.model.parameter_bytes, rel=0.02)
        assert phase.end["unattributed"] < 0.02 * phase.peak_bytes
