"""Runs on two devices, each a real process on gloo: what they compute, what they hold, and how they die."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.wait import wait_for
from trainers import trainers

from labkit.config.schema import read_config
from labkit.lab.result import Result
from labkit.lab.tables import results
from labkit.ledger.ledger import Ledger
from labkit.ledger.predicted import prediction_of, prediction_rows
from labkit.ledger.summary import summary
from labkit.plan.steps import trace_rank
from labkit.runs.processes import processes_of
from labkit.runs.ranks.files import side_by_side
from labkit.runs.runner import run
from labkit.train.build import build_model

pytestmark = pytest.mark.slow

WAIT_S = 60.0
ROUNDING = 1e-5
SHARE = 0.005
"""Of a predicted peak or category, as in ``tests/plan/test_accuracy.py``."""
MOVED_BYTES = 8192
"""The tokens of a batch are there twice while they are moved, which is 0.6% of the least that a rank holds here."""
LATE = 0.1
"""The most that a run with DeepSpeed has held more in one step than in others, and a little; seen: 7% beside others."""

# 81 samples to train on: per epoch two steps of two micro batches, and one of what is left, one
SAME = {
    "num_train_samples": 90, "val_fraction": 0.1, "accumulate_grad_batches": 2, "max_steps": 4, "dropout": 0.0,
    "save_model": True, "capacity_gib": 1,
}  # fmt: skip
PLAINLY = {"val_fraction": 0.0, "save_model": False}
ADAPTED = {"val_fraction": 0.0, "use_lora": True, "lora_dropout": 0.0}
IN_4_BITS = {
    "batch_size": 5, "val_fraction": 0.0, "use_qlora": True, "lora_dropout": 0.0, "act_ckpt": True,
    "model_name": "tiny/blip2-t5-small",
}  # fmt: skip
FROZEN = {"batch_size": 6, "freeze_vision": True, "freeze_language": True} | PLAINLY
ZERO = {
    "batch_size": 8, "precision": "bf16-true", "loss_average": "batches", "num_train_samples": 96, "max_steps": 5,
    "report_every": 1,
} | PLAINLY  # fmt: skip
T5 = {
    "devices": 3, "model_name": "tiny/blip2-t5-small", "act_ckpt": True, "optim": "sgd", "accumulate_grad_batches": 1,
}  # fmt: skip
RUNS = {
    "alone": {"batch_size": 16},
    "ddp": {"batch_size": 8, "devices": 2, "strategy": "ddp"},
    "fsdp": {"batch_size": 8, "devices": 2, "strategy": "fsdp"},
    "alone, not validated": {"batch_size": 16} | PLAINLY,
    "pipeline": {"batch_size": 16, "devices": 2, "strategy": "pipeline"} | PLAINLY,
    "alone, 5 samples": {"batch_size": 5} | PLAINLY,
    "pipeline, 5 samples": {"batch_size": 5, "devices": 4, "strategy": "pipeline"} | PLAINLY,
    "alone, LoRA": {"batch_size": 16} | ADAPTED,
    "pipeline, LoRA": {"batch_size": 16, "devices": 2, "strategy": "pipeline"} | ADAPTED,
    "pipeline, LoRA, 4 ranks": {"batch_size": 16, "devices": 4, "strategy": "pipeline"} | ADAPTED,
    "alone, QLoRA": IN_4_BITS,
    "pipeline, QLoRA": IN_4_BITS | {"devices": 3, "strategy": "pipeline"},
    "alone, frozen": FROZEN,
    "pipeline, frozen": FROZEN | {"devices": 2, "strategy": "pipeline"},
    "alone, 96 samples": {"batch_size": 16, "num_train_samples": 96, "max_steps": 2} | PLAINLY,
    "zero": ZERO | {"devices": 2, "strategy": "deepspeed_stage_2"},
    "zero, 3 ranks": ZERO | T5 | {"strategy": "deepspeed_stage_2"},
    "zero, offloaded": ZERO | {"devices": 2, "strategy": "deepspeed_stage_2_offload", "optim": "deepspeed_cpu"},
    "zero 3": ZERO | {"devices": 2, "strategy": "deepspeed_stage_3", "use_lora": True, "act_ckpt": True},
    "zero 3, 3 ranks": ZERO | T5 | {"strategy": "deepspeed_stage_3"},
    "zero 3, offloaded": ZERO | {"devices": 2, "strategy": "deepspeed_stage_3_offload", "optim": "deepspeed_cpu"},
}  # fmt: skip


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("several") / "runs"
        patch.setenv("LABKIT_RUNS", str(folder))
        yield Ledger(folder)


@pytest.fixture(scope="module")
def trained(ledger):
    """The same four optimizer steps on one device and on two."""
    records = {name: run("reduced_batch", SAME | keys) for name, keys in RUNS.items()}
    assert {name: (r.status, r.reason) for name, r in records.items()} == dict.fromkeys(RUNS, ("ok", None))
    return records


def weights_of(ledger, record):
    return load_file(ledger.find(record.id).path / "model" / "model.safetensors")


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_devices_make_the_update_of_one_with_twice_the_batch(name, trained, ledger):
    alone, several = trained["alone"], trained[name]
    assert len(alone.losses) == 4
    assert several.losses == pytest.approx(alone.losses, rel=ROUNDING)
    assert several.validation_losses == pytest.approx(alone.validation_losses, rel=ROUNDING)
    assert several.samples == alone.samples == 80 + 32
    expected, found = weights_of(ledger, alone), weights_of(ledger, several)
    assert expected.keys() == found.keys()
    lr = alone.config["lr"]
    # where a gradient is rounding only, Adam makes a whole step of its sign: these are counted
    far = sum(((expected[key] - found[key]).abs() > 0.01 * lr).sum().item() for key in expected)
    assert far < 0.01 * sum(tensor.numel() for tensor in expected.values())
    start = build_model(read_config(alone.config), "cpu").state_dict()
    moved = torch.cat([(expected[key] - start[key]).flatten().abs() for key in expected if key in start])
    assert moved.median() > lr  # it is not that nothing has happened


def test_what_was_trained_on_shares_is_one_model_for_transformers(trained, ledger):
    folder = ledger.find(trained["fsdp"].id).path / "model"
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Blip2ForConditionalGeneration"]


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_every_rank_holds_what_was_predicted(name, trained):
    record = trained[name]
    ranks = side_by_side(record)
    assert [row["rank"] for row in ranks] == [0, 1]
    assert [row["status"] for row in ranks[1:]] == ["ok"]
    assert ranks[1]["peak_bytes"] == pytest.approx(ranks[0]["peak_bytes"], rel=SHARE)
    rows = prediction_rows(record)
    assert {row["step"] for row in rows} == {0, 1}
    for row in rows:
        if row["what"] == "peak" or row["measured_bytes"] > 0.01 * record.peak_bytes:
            assert abs(row["error"]) < SHARE, row


def at_the_end_of_a_step(memory):
    return next(p.end for p in memory.phases if p.phase == "after_optimizer_step" and p.step == 1)


def test_shares_are_halves_of_parameters_gradients_and_state(trained):
    whole = at_the_end_of_a_step(trained["ddp"].memory)
    fsdp = trained["fsdp"]
    for memory in (fsdp.memory, fsdp.ranks[0].memory):
        for category in ("parameters", "gradients", "optimizer_gpu"):
            assert at_the_end_of_a_step(memory)[category] == pytest.approx(whole[category] / 2, rel=0.01), category


def test_layers_on_two_devices_train_the_model_of_one(trained):
    alone, split = trained["alone, not validated"], trained["pipeline"]
    # the vision tower is on the first device, and no later loss would be the same if its gradients did not get there
    assert split.losses == pytest.approx(alone.losses, rel=ROUNDING)
    assert split.samples == alone.samples
    whole = at_the_end_of_a_step(alone.memory)
    ranks = [at_the_end_of_a_step(memory) for memory in (split.memory, split.ranks[0].memory)]
    embedding = 1000 * 320 * 4  # the text's, which the first and the last layers share
    for category, copies in (("parameters", 1), ("gradients", 1), ("optimizer_gpu", 2)):
        held = [rank[category] for rank in ranks]
        assert sum(held) == pytest.approx(whole[category] + copies * embedding, rel=0.001)
        assert max(held) < 0.75 * sum(held)


def test_a_batch_that_the_devices_do_not_divide_trains_the_model_of_one(trained):
    alone, split = trained["alone, 5 samples"], trained["pipeline, 5 samples"]
    assert split.losses == pytest.approx(alone.losses, rel=ROUNDING)
    assert split.samples == alone.samples


def held_in_the_end(record):
    """By each rank."""
    return [at_the_end_of_a_step(memory) for memory in (record.memory, *(other.memory for other in record.ranks))]


IN_A_PIPELINE = pytest.mark.parametrize(
    ("alone", "split"),
    [
        ("alone, LoRA", "pipeline, LoRA"), ("alone, LoRA", "pipeline, LoRA, 4 ranks"),
        ("alone, QLoRA", "pipeline, QLoRA"),
    ],
)  # fmt: skip


@IN_A_PIPELINE
def test_a_first_rank_with_nothing_to_train_is_part_of_a_pipeline(alone, split, trained):
    alone, split = trained[alone], trained[split]
    assert split.losses == pytest.approx(alone.losses, rel=ROUNDING)
    assert split.model == alone.model
    first, *others = held_in_the_end(split)
    # the vision tower is here, and nothing of it is trained: no gradient comes back, and there is no room for one
    assert first["gradients"] == first["optimizer_gpu"] == 0
    assert first["unattributed"] < 16 * 2**10
    assert split.memory.at("after_forward", 1, 0).end["activations"] < 2**20
    whole = at_the_end_of_a_step(alone.memory)
    for category in ("gradients", "optimizer_gpu"):
        assert whole[category] > 0
        assert sum(rank[category] for rank in others) == pytest.approx(whole[category], rel=0.01)


def test_a_last_rank_with_nothing_to_train_sends_gradients_back(trained):
    alone, split = trained["alone, frozen"], trained["pipeline, frozen"]
    assert split.losses == pytest.approx(alone.losses, rel=ROUNDING)
    first, last = held_in_the_end(split)
    assert last["gradients"] == last["optimizer_gpu"] == 0
    assert first["gradients"] == pytest.approx(at_the_end_of_a_step(alone.memory)["gradients"], rel=0.01)


@IN_A_PIPELINE
def test_the_adapters_of_all_ranks_are_one_that_plain_peft_loads(alone, split, trained, ledger):
    folders = [ledger.find(trained[name].id).path / "adapter" for name in (alone, split)]
    expected, found = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert found.keys() == expected.keys()
    config = read_config(trained[alone].config)
    lr, start = config.lr, build_model(config, "cpu")
    far = sum(((expected[key] - found[key]).abs() > 0.01 * lr).sum().item() for key in expected)
    assert far < 0.01 * sum(tensor.numel() for tensor in expected.values())
    loaded = PeftModel.from_pretrained(start, folders[1])
    held = {name.replace(".default", ""): tensor for name, tensor in loaded.state_dict().items() if ".lora_" in name}
    assert held.keys() == found.keys()
    assert all(torch.equal(held[name], found[name].to(held[name].dtype)) for name in found)


def ranks_in_the_lab(record):
    """The rows of a run in a lab's table."""
    return results([Result(record)], ("MiB", 2**20), "a run").rows


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith(("pipeline", "zero"))])
def test_every_rank_holds_what_is_planned_for_it(name, trained):
    record = trained[name]
    config = read_config(record.config)
    peaks = [record.peak_bytes, *(other.peak_bytes for other in record.ranks)]
    assert len(peaks) == config.devices
    for index, measured in enumerate([record.memory, *(other.memory for other in record.ranks)]):
        for phase in trace_rank(config, index).report.phases:
            last = config.accumulate_grad_batches - 1 if phase.micro_step else 0
            # gloo lets go of what it has sent a moment late now and then, which is much of what DeepSpeed holds
            several = phase.step and config.placement.uses_zero
            found = [
                measured.at(phase.phase, step, last)
                for step in (range(1, config.max_steps) if several else [phase.step])
            ]
            least_bytes = min(real.peak_bytes for real in found)
            if config.placement.uses_zero and not several:  # a first step there is but once
                assert phase.peak_bytes < (1 + SHARE) * least_bytes + MOVED_BYTES, (index, phase)
                continue
            assert phase.peak_bytes == pytest.approx(least_bytes, rel=SHARE, abs=MOVED_BYTES), (index, phase)
            for category in ("parameters", "gradients", "optimizer_gpu", "optimizer_cpu", "parameters_cpu"):
                least_bytes = min(real.end[category] for real in found)
                assert phase.end[category] == pytest.approx(least_bytes, abs=2048), (index, phase, category)
    # what is told is about the rank that needs most, of ranks that differ
    if config.placement.ranks_differ and max(peaks) > 1.01 * peaks[0]:
        assert record.fullest.rank == record.prediction.rank == peaks.index(max(peaks))
        assert f"on rank {record.fullest.rank}, in" in summary(record)
    told, cells = prediction_of(record), [[cell for cell in row if "%" in cell] for row in ranks_in_the_lab(record)]
    assert -LATE < told["error"] < SHARE if config.placement.uses_zero else abs(told["error"]) < SHARE
    assert [bool(found) for found in cells] == [rank == told["rank"] for rank in range(config.devices)]
    assert {row["step"] for row in prediction_rows(record)} == {0, 1}


def test_zero_halves_the_optimizer_state_and_no_more(trained):
    zero = trained["zero"]
    numbers = zero.model.parameters
    for memory in (zero.memory, zero.ranks[0].memory):
        held = at_the_end_of_a_step(memory)
        assert held["optimizer_gpu"] == pytest.approx(numbers * 12 / 2, rel=0.01)  # master weights, two moments
        assert held["parameters"] == pytest.approx(numbers * 2, rel=0.01)
    # in 16 bits, and a mean of means
    assert zero.losses[:2] == pytest.approx(trained["alone, 96 samples"].losses, rel=0.001)


def test_the_log_of_every_rank_is_kept(trained, ledger):
    folder = ledger.find(trained["ddp"].id).path
    assert "MEMBER: 2/2" in (folder / "log.rank1.txt").read_text()
    first = (folder / "log.txt").read_text()
    assert "MEMBER: 1/2" in first
    # Lightning has its first rank alone say it, and was imported before these processes had ranks
    assert "GPU available" in first and "GPU available" not in (folder / "log.rank1.txt").read_text()


# -- faults


def run_and_send(number: int, **keys):
    """A run whose rank 1 gets a signal in its second step; the record and the folder."""
    seen = {}

    def send(event):
        seen.setdefault("folder", event.get("folder"))
        if event["event"] == "phase" and event["step"] == 1 and "pid" not in seen:
            seen["pid"] = trainers(Path(seen["folder"]))[1]
            os.kill(seen["pid"], number)

    record = run(
        "reduced_batch", {"devices": 2, "strategy": "ddp", "batch_size": 4, "max_steps": 10**6, "max_epochs": 10**6}
        | keys, timeout_s=300, on_event=send,
    )  # fmt: skip
    assert "pid" in seen
    return record, seen["folder"]


def nothing_is_left(folder: str) -> None:
    wait_for(lambda: not processes_of(Path(folder)), said=lambda: processes_of(Path(folder)))


def test_a_rank_that_is_killed_ends_the_run_and_is_named(ledger):
    record, folder = run_and_send(signal.SIGKILL)
    nothing_is_left(folder)
    assert (record.status, record.exit_code, record.ended_by_rank) == ("killed", -signal.SIGKILL, 1)
    assert record.reason.startswith("rank 1 was killed by signal 9 (SIGKILL)")
    assert record.diagnosis.kind in ("killed", "host_out_of_memory")
    assert record.diagnosis.next_steps
    assert ledger.find(record.id).read() == record


def test_a_rank_that_hangs_is_a_time_out(ledger):
    record, folder = run_and_send(signal.SIGSTOP, collective_timeout_s=15)
    nothing_is_left(folder)
    assert (record.status, record.exit_code) == ("timeout", 124)
    assert record.reason == "rank 0 waited 15 s for rank 1, which still ran and did not answer"
    assert record.diagnosis.kind == "distributed_timeout"
    assert record.wall_seconds < 300


def test_a_port_that_is_taken_is_named(ledger, monkeypatch):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        record = run("reduced_batch", {"devices": 2, "strategy": "ddp", "batch_size": 4, "max_steps": 1})
    nothing_is_left(str(ledger.find(record.id).path))
    assert (record.status, record.ended_by_rank) == ("failed", 0)
    assert "EADDRINUSE" in record.reason
    assert record.diagnosis.kind == "port_in_use"
    assert f"grep {port} " in record.diagnosis.next_steps[0]
