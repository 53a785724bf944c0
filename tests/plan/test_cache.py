"""Traces are kept by what they depend on, and by nothing else."""

import dataclasses
import os

import numpy as np
import pytest

import labkit.plan.steps
from labkit.config.layers import resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.plan import cache as cache_module
from labkit.plan.cache import WITHOUT_EFFECT, TraceCache
from labkit.plan.predict import predict

CONFIG = resolve(Workspace.find(), "reduced_batch").config
OTHER = {  # a valid value for each key that is said to have no effect
    "weights": "pretrained", "dataset": "fluent_emoji_food", "num_train_samples": 8, "val_fraction": 0.5,
    "num_workers": 0, "lr": 1e-3, "lr_schedule": "linear", "warmup_steps": 3, "global_batch_size": 16,
    "max_epochs": 9, "max_steps": 9, "limit_train_batches": 9, "seed": 1, "lora_alpha": 8, "capacity_gib": 1.0,
    "report_every": 3, "enable_checkpointing": True, "save_every": 5, "keep_checkpoints": 3, "save_model": True,
    "lr_scaling": "linear", "collective_timeout_s": 9.0,
}  # fmt: skip
NEEDS = {"save_every": {"enable_checkpointing": True}}


@pytest.fixture
def executed(monkeypatch):
    """The configs whose steps were executed."""
    found, real = [], labkit.plan.steps.trace

    def count(config):
        found.append(config)
        return real(config)

    monkeypatch.setattr(labkit.plan.steps, "trace", count)
    return found


def same(one, other):
    return (
        (one.moves == other.moves).all()
        and [one.operation_of(i) for i in range(len(one.moves))]
        == [other.operation_of(i) for i in range(len(other.moves))]
        and (one.marks, one.report, one.operation) == (other.marks, other.report, other.operation)
    )


@pytest.mark.slow
def test_another_capacity_costs_a_replay_only(tmp_path, executed):
    cache = TraceCache(tmp_path)
    first = predict(CONFIG, cache=cache)
    again = predict(dataclasses.replace(CONFIG, capacity_gib=CONFIG.capacity_gib / 2), cache=cache)
    assert len(executed) == 1
    assert (first.verdict, again.verdict) == ("fits", "out of memory")


@pytest.mark.slow
def test_another_process_reads_what_was_written(tmp_path, executed):
    written = TraceCache(tmp_path).trace(CONFIG)
    read = TraceCache(tmp_path).trace(CONFIG)
    assert len(executed) == 1
    assert read is not written
    assert same(read, written)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "cut", "other", "without"])
def test_a_damaged_entry_is_made_again(tmp_path, executed, damage):
    TraceCache(tmp_path).trace(CONFIG)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    if damage == "without":
        with entry.open("wb") as file:
            np.savez(file, moves=np.zeros(1))
    else:
        entry.write_bytes({"empty": b"", "cut": whole[:-100], "other": b"no archive"}[damage])
    TraceCache(tmp_path).trace(CONFIG)
    assert len(executed) == 2
    assert entry.read_bytes()[:2] == b"PK"
    TraceCache(tmp_path).trace(CONFIG)
    assert len(executed) == 2


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, executed):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert predict(CONFIG, cache=TraceCache(blocked / "below")).verdict == "fits"


@pytest.mark.parametrize("key", sorted(WITHOUT_EFFECT))
def test_keys_without_effect_have_none(key):
    changed = RunConfig(**(CONFIG.to_dict() | {key: OTHER[key]} | NEEDS.get(key, {})))
    assert cache_module._key(changed) == cache_module._key(CONFIG)


@pytest.mark.slow
def test_what_has_no_effect_gives_the_same_steps():
    lora = RunConfig(**(CONFIG.to_dict() | {"use_lora": True}))
    others = {"lr": 1e-3, "seed": 1, "lora_alpha": 8, "lr_schedule": "linear", "warmup_steps": 3, "max_steps": 9}
    assert same(labkit.plan.steps.trace(lora), labkit.plan.steps.trace(dataclasses.replace(lora, **others)))


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 8}, {"max_length": 13}, {"precision": "bf16-true"}, {"accumulate_grad_batches": 2},
        {"optim": "sgd"}, {"act_ckpt": True}, {"freeze_vision": True}, {"use_lora": True}, {"device": "cuda"},
        {"model_name": "tiny/blip2-t5-small"}, {"devices": 2, "strategy": "ddp"}, {"use_lora": True, "lora_r": 8},
        {"use_qlora": True}, {"use_qlora": True, "double_quant": True}, {"use_lora": True, "lora_dropout": 0.0},
        {"use_lora": True, "lora_targets": ("fc1",)}, {"loss_average": "batches"}, {"dropout": 0.0},
        {"optim_impl": "fused"},
    ],
    ids=str,
)  # fmt: skip
def test_keys_with_an_effect_are_told_apart(change):
    changed = RunConfig(**(CONFIG.to_dict() | change))
    assert cache_module._key(changed) != cache_module._key(CONFIG)


def test_more_micro_steps_than_two_are_the_same_two():
    two, four = (RunConfig(**(CONFIG.to_dict() | {"accumulate_grad_batches": n})) for n in (2, 4))
    assert cache_module._key(two) == cache_module._key(four)


def test_other_versions_are_other_entries(monkeypatch):
    before = cache_module._key(CONFIG)
    monkeypatch.setattr(cache_module, "_versions", lambda: ["torch 0"])
    assert cache_module._key(CONFIG) != before


@pytest.mark.slow
def test_many_are_executed_in_processes_of_their_own(tmp_path, executed, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    cache = TraceCache(tmp_path)
    configs = [RunConfig(**(CONFIG.to_dict() | {"batch_size": n, "lr": 1 / n})) for n in (1, 2)]
    cache.fill([*configs, configs[0]])
    assert len(list(tmp_path.iterdir())) == 2
    assert same(cache.trace(configs[1]), labkit.plan.steps.trace(configs[1]))
    assert len(executed) == 1  # the one for the comparison


def test_the_cache_is_that_of_the_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    assert TraceCache.find().folder == tmp_path / "runs" / ".predictions"
    assert TraceCache.find() is TraceCache.find()
