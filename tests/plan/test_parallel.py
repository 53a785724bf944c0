"""What is planned for one rank is compared with what two real processes measure, with torch's own DDP and FSDP2.

Two processes train for two steps on a CPU, over gloo, under the tracker: one with ``DistributedDataParallel``
(``gradient_as_bucket_view=True``), one with ``fully_shard``. Compared for every phase of every micro step: the peak,
and parameters, gradients, optimizer state and activations at the end. DDP's buckets are made in C++ and seen all the
same; FSDP's gathered parameters are resized without an operation, and told to the tracker in both.

Not seen here: what gloo allocates, which is taken out where it would be (``one_rank.py``), and what NCCL holds on a
GPU; copies that a CUDA stream delays.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from labkit.config.schema import RunConfig
from labkit.memory.report import MemoryReport
from labkit.memory.tracker import BLOCK_BYTES
from labkit.plan.allocator import SimulatedAllocator
from labkit.plan.replay import replay
from labkit.plan.steps import trace
from labkit.train.adapters import add_lora
from labkit.train.build import build_model
from labkit.train.fsdp import sharded_modules

OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-small"
SHARE = 0.02
"""What is claimed: peaks and categories within 2%. Measured: 0.05%."""

MEASURED = {
    "ddp, accumulated": {"strategy": "ddp", "model_name": OPT, "accumulate_grad_batches": 2},
    "ddp, adapters in bf16": {"strategy": "ddp", "model_name": T5, "use_lora": True, "precision": "bf16-true"},
    "fsdp": {"strategy": "fsdp", "model_name": OPT, "batch_size": 16, "precision": "bf16-true"},
    "fsdp, computed again": {
        "strategy": "fsdp", "model_name": T5, "accumulate_grad_batches": 2, "act_ckpt": True,
    },
    "fsdp, adapters": {"strategy": "fsdp", "model_name": T5, "use_lora": True},
    "fsdp, mixed precision": {"strategy": "fsdp", "model_name": OPT, "precision": "bf16-mixed"},
    "fsdp, 4 bits": {"strategy": "fsdp", "model_name": T5, "use_qlora": True, "double_quant": True},
}  # fmt: skip


def config_of(**keys):
    plain = {"weights": "random", "capacity_gib": 8, "batch_size": 4, "max_length": 16, "devices": 2}
    return RunConfig(**(plain | keys))


def state_bytes(report):
    """Parameters, gradients and optimizer state after the last optimizer step."""
    end = report.at("after_optimizer_step", 1, max(p.micro_step for p in report.phases)).end
    return {category: end[category] for category in ("parameters", "gradients", "optimizer_gpu")}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Reports of both ranks by name, from two processes that train with one config after the other."""
    folder, child = tmp_path_factory.mktemp("ranks"), Path(__file__).with_name("one_rank.py")
    configs = json.dumps([config_of(**keys).to_dict() for keys in MEASURED.values()])
    written = [folder / f"{rank}.json" for rank in range(2)]
    started = [
        subprocess.Popen(
            [sys.executable, child, str(rank), folder / "rendezvous", configs, path],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank, path in enumerate(written)
    ]  # fmt: skip
    try:
        for process in started:
            said, _ = process.communicate(timeout=240)
            assert process.returncode == 0, said
    finally:  # none outlives this
        for process in started:
            process.kill()
            process.communicate()
    ranks = [dict(zip(MEASURED, json.loads(path.read_text()), strict=True)) for path in written]
    return {name: [rank[name] for rank in ranks] for name in MEASURED}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_two_real_processes_hold_what_is_planned(name, measured):
    planned = trace(config_of(**MEASURED[name])).report
    losses = [rank["losses"] for rank in measured[name]]
    assert losses[0] == losses[1]  # the same batch on both, so they stay in step
    for real_report in (MemoryReport.from_dict(rank["report"]) for rank in measured[name]):
        assert planned.peak_bytes == pytest.approx(real_report.peak_bytes, rel=SHARE)
        assert len(real_report.phases) == len(planned.phases)
        for phase in planned.phases:
            real = real_report.at(phase.phase, phase.step, phase.micro_step)
            key = (phase.step, phase.micro_step, phase.phase)
            assert phase.peak_bytes == pytest.approx(real.peak_bytes, rel=SHARE), key
            for category in ("parameters", "gradients", "optimizer_gpu", "activations"):
                slack = SHARE * real.end[category] + 0.001 * real.peak_bytes
                assert abs(phase.end[category] - real.end[category]) <= slack, (key, category)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MEASURED if "ddp" in name])
def test_weights_on_their_way_to_the_other_ranks_are_there_twice(name, measured):
    loaded = replay(trace(config_of(**MEASURED[name])).events(), kind=SimulatedAllocator).marks[0]
    for rank in measured[name]:
        assert loaded.peak_allocated_bytes == pytest.approx(rank["loading_peak_bytes"], rel=SHARE)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 3, 8])
@pytest.mark.parametrize("model_name", [OPT, T5])
def test_a_sharded_rank_keeps_its_share_and_the_padding(model_name, devices):
    config = config_of(model_name=model_name, strategy="fsdp", devices=devices)
    model = build_model(config, "meta")
    shards = [-(-p.shape[0] // devices) * p[0].numel() * p.itemsize for p in model.parameters()]
    kept = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in shards)
    buffers = sum(-(-b.nbytes // BLOCK_BYTES) * BLOCK_BYTES for b in model.buffers())
    report = trace(config).report
    assert report.at("before_forward", 0).end["parameters"] == kept + buffers
    alone = trace(config_of(model_name=model_name, devices=1)).report
    found, whole = state_bytes(report), state_bytes(alone)
    for category, size in found.items():
        assert size == pytest.approx(whole[category] / devices, rel=0.03), category
    # a layer's weights come and go; all of them are never there
    assert found["parameters"] < report.category_peaks["parameters"] < whole["parameters"]


@pytest.mark.slow
def test_after_forward_what_is_left_of_the_root_is_there_in_16_bits():
    full, mixed = (trace(config_of(strategy="fsdp", model_name=OPT, precision=p)).report for p in
                   ("32-true", "bf16-mixed"))  # fmt: skip
    gathered = []
    for report in (full, mixed):
        shards = report.at("before_forward", 1).end["parameters"]
        gathered.append(report.at("after_forward", 1).end["parameters"] - shards)
        assert report.at("after_backward", 1).end["parameters"] == shards
    assert mixed.at("before_forward", 1).end["parameters"] == full.at("before_forward", 1).end["parameters"]
    assert gathered[1] == pytest.approx(gathered[0] / 2, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("model_name", [OPT, T5])
def test_ddp_holds_the_gradients_of_one_device_and_never_gives_them_back(model_name):
    report = trace(config_of(model_name=model_name, strategy="ddp")).report
    alone = trace(config_of(model_name=model_name, devices=1)).report
    assert state_bytes(report) == pytest.approx(state_bytes(alone), rel=0.01)
    model = build_model(config_of(model_name=model_name, devices=1), "meta")
    rounding = BLOCK_BYTES * sum(1 for _ in model.parameters())
    assert report.peak_bytes >= alone.peak_bytes - rounding  # a bucket is rounded up once, gradients one by one
    gradients = state_bytes(report)["gradients"]
    for phase in report.phases:
        assert phase.end["gradients"] == pytest.approx(gradients, rel=0.01), (phase.step, phase.phase)


@pytest.mark.slow
def test_ddp_has_the_gradients_twice_until_the_last_micro_batch():
    report = trace(config_of(model_name=OPT, strategy="ddp", accumulate_grad_batches=3)).report
    buckets = report.at("before_forward", 0).end["gradients"]
    assert report.at("after_backward", 1, 0).end["gradients"] == pytest.approx(2 * buckets, rel=0.01)
    assert report.at("after_backward", 1, 1).end["gradients"] == pytest.approx(buckets, rel=0.01)


@pytest.mark.parametrize(("model_name", "layers"), [(OPT, 2 + 2 + 2), (T5, 2 + 2 + 2 + 2)])
@pytest.mark.parametrize("use_lora", [False, True])
def test_layers_of_all_three_parts_are_sharded_one_by_one(model_name, layers, use_lora):
    config = config_of(model_name=model_name, strategy="fsdp", use_lora=use_lora)
    model = build_model(config, "meta")
    if use_lora:
        model = add_lora(model, config)
    found = list(sharded_modules(model))
    assert len(found) == layers
    inside = {id(p) for module in found for p in module.parameters()}
    left = [name for name, p in model.named_parameters() if id(p) not in inside]
    assert not [name for name in left if "lora" in name or ".self_attn" in name]


@pytest.mark.slow
def test_nothing_is_left_behind():
    resize = torch.UntypedStorage.resize_
    trace(config_of(model_name=OPT, strategy="fsdp"))
    assert not dist.is_initialized()
    assert torch.UntypedStorage.resize_ is resize
    assert torch.zeros(1).device.type == "cpu"
    trace(config_of(model_name=OPT, strategy="fsdp", devices=4))  # a group of another size
