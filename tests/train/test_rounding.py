"""Rounding: updates that are lost are counted one by one."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.train.rounding import LostUpdates, count

VALUES = {
    "batch_size": 4, "accumulate_grad_batches": 1, "dropout": 0.0, "num_workers": 0, "max_steps": 2,
    "num_train_samples": 8,
}  # fmt: skip


class Three(LightningModule):
    """Weights 1, 1 and 1 in bf16 with gradients 1, 1 and 0, where half a unit of the last place is 2**-8."""

    def __init__(self, lr, dtype):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, dtype=dtype))
        self.lr = lr

    def training_step(self, batch, batch_idx):
        return (self.weight * torch.tensor([1.0, 1.0, 0.0], dtype=self.weight.dtype)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.mark.parametrize(
    ("lr", "dtype", "lost"),
    [(2**-10, torch.bfloat16, 2), (2**-7, torch.bfloat16, 0), (2**-10, torch.float32, 0), (2**-30, torch.float32, 2)],
)
def test_an_update_below_half_of_the_last_place_is_lost(tmp_path, lr, dtype, lost):
    counter = LostUpdates()
    module = Three(lr, dtype)
    Trainer(
        accelerator="cpu", max_steps=1, callbacks=[counter], default_root_dir=tmp_path, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, torch.utils.data.DataLoader([0]))  # fmt: skip
    assert counter.updates == [2]  # the third has no gradient
    assert counter.lost == [lost]


def config(**values):
    return resolve(Workspace.find(), "bf16_true", VALUES | values, "tiny").config


@pytest.mark.slow
def test_bf16_true_loses_what_mixed_keeps(tmp_path):
    true = count(config(lr=2e-5), tmp_path)
    mixed = count(config(lr=2e-5, precision="bf16-mixed"), tmp_path)
    large = count(config(lr=2e-2), tmp_path)
    assert len(true["updates"]) == len(true["losses"]) == 2
    assert true["updates"][0] > 100_000

    def share(found):
        return sum(found["lost"]) / sum(found["updates"])

    assert share(true) > 0.3
    assert share(mixed) < 0.01
    assert share(large) < 0.1 * share(true)


@pytest.mark.slow
def test_the_command_prints_json_alone(tmp_path):
    request = {"configs": [dataclasses.asdict(config(max_steps=1))], "data_folder": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "labkit.train.rounding", json.dumps(request)], capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["precision"] == "bf16-true" and len(found["losses"]) == 1
