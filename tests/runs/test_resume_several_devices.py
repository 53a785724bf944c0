"""A run on two devices that stopped goes on where it was, and ends as if it had not."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from labkit.runs.records import Ledger, Record, RunFolder
from labkit.runs.runner import resume, run

SAVING = {"devices": 2, "batch_size": 4, "enable_checkpointing": True, "save_every": 1, "keep_checkpoints": 100}
SMALL = SAVING | {
    "strategy": "ddp", "num_train_samples": 80, "val_fraction": 0.2, "accumulate_grad_batches": 3, "dropout": 0.1,
    "lr_schedule": "linear", "warmup_steps": 2, "save_model": True,
}  # fmt: skip
"""Six optimizer steps in two epochs, each with a last smaller group and a validation."""

SHORT = SAVING | {"num_train_samples": 48, "accumulate_grad_batches": 2, "max_steps": 3, "dropout": 0.1}
BF16 = {"precision": "bf16-true", "loss_average": "batches"}
OTHERS = {
    "ddp with LoRA": ("food_lora", SHORT | {"strategy": "ddp", "save_model": True}),
    "ddp with QLoRA": ("xxl_qlora", SHORT | {"strategy": "ddp", "save_model": True}),
    "fsdp": ("reduced_batch", SHORT | {"strategy": "fsdp", "save_model": True}),
    "layer_split": ("reduced_batch", SHORT | {"strategy": "layer_split"}),
    "zero 2": ("reduced_batch", SHORT | BF16 | {"strategy": "deepspeed_stage_2", "save_model": True}),
    "zero 3": ("reduced_batch", SHORT | BF16 | {"strategy": "deepspeed_stage_3", "save_model": True}),
}


def trained(folder: Path) -> dict[str, str]:
    """Checksums of what a run has trained, where it writes that, and of each rank's last saved step, where not."""
    files = [*folder.glob("model/*.safetensors"), *folder.glob("adapter/*.safetensors")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def stopped_at(folder: RunFolder, step: int) -> RunFolder:
    """A copy of a run as a kill behind ``step`` would have left it."""
    copy = folder.path.with_name(f"{folder.path.name}-{step}")
    shutil.copytree(folder.path, copy)
    for saved in (copy / "checkpoints").glob("step-*"):
        if saved.name > f"step-{step:06}":
            shutil.rmtree(saved)
    for made in ("model", "adapter"):
        shutil.rmtree(copy / made, ignore_errors=True)
    (copy / "record.json").unlink()
    return RunFolder(copy)


@pytest.mark.parametrize("name", OTHERS)
def test_every_strategy_goes_on(ledger, name):
    experiment, values = OTHERS[name]
    record = run(experiment, values)
    assert (record.status, len(record.losses)) == ("ok", 3), record.reason
    folder = ledger.find(record.id)
    copy = stopped_at(folder, 2)
    again = resume(copy)
    assert (again.status, again.losses) == ("ok", record.losses), again.reason
    assert trained(copy.path) == trained(folder.path)
