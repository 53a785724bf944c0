"""Runs in pieces: a copy that stops after a checkpoint, and what the whole one and the copy have in the end."""

import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from labkit.ledger.ledger import Ledger
from labkit.ledger.run_folder import RunFolder
from labkit.runs.runner import resume, run

SAVING = {"devices": 2, "batch_size": 4, "enable_checkpointing": True, "save_every": 1, "keep_checkpoints": 100}
SHORT = SAVING | {"num_train_samples": 16, "num_workers": 0, "max_epochs": 2, "dropout": 0.1}
"""Four optimizer steps, two of them in the first epoch."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run has trained, in one file."""
    (file,) = [*folder.glob("model/*.safetensors"), *folder.glob("adapter/*.safetensors")]
    return load_file(file)


def state(folder: Path, step: int) -> list[dict]:
    """What each rank has saved after a step: weights, optimizer, random state. ZeRO has it in files of its own."""
    files = sorted((folder / "checkpoints" / f"step-{step:06}").glob("*.ckpt"))
    return [torch.load(file, weights_only=True) for file in files if file.is_file()]


def differences(one, other, path: str = "") -> list[str]:
    """Where two trees of tensors and values are not the same, bit for bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) and one.dtype == other.dtype else [path]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [path]
        return [found for key in one for found in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [path]
        return [found for i in range(len(one)) for found in differences(one[i], other[i], f"{path}.{i}")]
    return [] if one == other else [path]


def stopped_at(folder: RunFolder, step: int) -> RunFolder:
    """A copy of a run as a kill after ``step`` would have left it."""
    copy = folder.path.with_name(f"{folder.path.name}-{step}-{secrets.token_hex(2)}")
    shutil.copytree(folder.path, copy)
    for saved in (copy / "checkpoints").glob("step-*"):
        if saved.name > f"step-{step:06}":
            shutil.rmtree(saved)
    for made in ("model", "adapter"):
        shutil.rmtree(copy / made, ignore_errors=True)
    (copy / "record.json").unlink()
    return RunFolder(copy)


def resumes_as_in_one_piece(ledger: Ledger, values: dict[str, Any]) -> None:
    """Assert it for a run of four steps that stops after the first: losses, and all that is saved at the end."""
    record = run("reduced_batch", values)
    assert (record.status, len(record.losses)) == ("ok", 4), record.reason
    folder = ledger.find(record.id)
    copy = stopped_at(folder, 1)
    again = resume(copy)
    assert (again.status, again.losses) == ("ok", record.losses), again.reason
    found, expected = state(copy.path, 4), state(folder.path, 4)
    if values.get("save_model"):
        found, expected = weights(copy.path), weights(folder.path)
    assert len(expected) > 1
    assert differences(found, expected) == []
