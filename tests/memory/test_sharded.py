"""Sharded: what a capture without a tracker of its own sees of FSDP, on a group of one process."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import nn
from torch.distributed.fsdp import fully_shard

from labkit.memory.capture import MemoryCapture
from labkit.memory.sharded import ShardTracker
from labkit.memory.tracker import BLOCK_BYTES

LAYERS, WIDTH = 3, 64
WEIGHT_BYTES = 4 * WIDTH * WIDTH


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Layers(LightningModule):
    def __init__(self):
        super().__init__()
        self.stack = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor:UserWarning")
def test_shards_are_parameters_and_gradients(group):
    module = Layers()
    for layer in module.stack:
        fully_shard(layer)
    fully_shard(module.stack)
    capture, loop = MemoryCapture(), SimpleNamespace(global_step=0, optimizers=[], callbacks=[])
    capture.on_train_start(loop, module)
    assert isinstance(capture._tracker, ShardTracker)
    batch = torch.randn(2, WIDTH)
    capture.on_train_batch_start(loop, module, batch, 0)
    loss = module.stack(batch).sum()
    capture.on_before_backward(loop, module, loss)
    loss.backward()
    capture.on_after_backward(loop, module)
    capture.teardown(loop, module, "fit")
    before, forward, backward = capture.report.phases
    shards = LAYERS * -(-WEIGHT_BYTES // BLOCK_BYTES) * BLOCK_BYTES
    assert before.end["parameters"] == backward.end["parameters"] == shards
    assert forward.end["parameters"] == shards  # a group of one has nothing to gather
    assert backward.end["gradients"] == shards
    assert forward.end["unattributed"] < WEIGHT_BYTES
