"""When training ends, nothing is moved to host memory, and the clock of training has stopped before."""

import json
import time

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy, strategy

from labkit.config.layers import resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.train.events import EventWriter
from labkit.train.fit import fit
from labkit.train.in_place import InPlace
from labkit.train.strategies import build_strategy

MOVE_S = 1000.0
"""What moving tens of gigabytes would take, added to the clock by a stand-in for the move."""


@pytest.fixture
def moved(monkeypatch):
    """Counts what Lightning's teardown moves. Each time the clock runs on, as on a GPU with a model that is large."""
    calls, late = [], [0.0]
    clock = time.perf_counter

    def to_host(self):
        calls.append("weights")
        late[0] += MOVE_S
        return self

    def states_to_host(optimizers, device):
        calls.extend("state" for optimizer in optimizers if optimizer.state)  # at set-up there is none

    monkeypatch.setattr(LightningModule, "cpu", to_host)
    monkeypatch.setattr(strategy, "_optimizers_to_device", states_to_host)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late[0])
    return calls


def trained(folder, **values):
    workspace = Workspace.find()
    values = {"max_steps": 2, "batch_size": 2, "num_train_samples": 8, **values}
    config = resolve(workspace, "reduced_batch", values, "tiny").config
    with EventWriter(folder / "events.jsonl") as events:
        result = fit(folder, config, workspace.data, events)
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return result, next(event for event in reversed(told) if event["event"] == "progress")["train_seconds"]


@pytest.mark.slow
def test_lightnings_own_teardown_moves_all_and_ours_nothing(moved, tmp_path, monkeypatch):
    result, seconds = trained(tmp_path)
    assert (result["status"], moved) == ("ok", [])
    assert 0 < seconds < MOVE_S
    monkeypatch.setattr(InPlace, "teardown", Strategy.teardown)
    folder = tmp_path / "lightning"
    folder.mkdir()
    result, seconds = trained(folder)
    assert moved == ["state", "weights"]
    assert 0 < seconds < MOVE_S  # the clock has stopped before


@pytest.mark.slow
def test_nothing_is_moved_after_an_out_of_memory(moved, tmp_path):
    result, seconds = trained(tmp_path, capacity_gib=70 / 1024)
    assert (result["status"], result["died_in"]["phase"]) == ("oom", "optimizer_step")
    assert moved == []
    assert seconds < MOVE_S


@pytest.mark.parametrize(
    "values", [{}, {"strategy": "ddp", "devices": 2}, {"strategy": "pipeline", "devices": 2},
               {"strategy": "deepspeed_stage_2_offload", "optim": "deepspeed_cpu", "precision": "bf16-true",
               "loss_average": "batches"}],
)  # fmt: skip
@pytest.mark.parametrize("device", ["simulated", "cuda"])
def test_every_strategy_that_lightning_would_move_stays(moved, values, device):
    """Torn down without having been set up: what is left of Lightning's teardown is what ends the process group."""
    built = build_strategy(RunConfig(**{"device": device, "capacity_gib": 1, "weights": "random", **values}))
    assert isinstance(built, InPlace)
    module = LightningModule()
    module.weight = torch.nn.Parameter(torch.zeros(1))
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    built.connect(module)
    built.optimizers = [torch.optim.SGD(module.parameters())]
    built.accelerator, built.checkpoint_io = trainer.accelerator, trainer.strategy.checkpoint_io
    if isinstance(built, DDPStrategy):
        built.cluster_environment = LightningEnvironment()
    built.teardown()
    assert moved == []
    assert built.lightning_module is module
