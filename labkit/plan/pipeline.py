"""Pipeline: torch's own stage and schedule on tensors without storage, as one rank that hears from no other."""

import contextlib
from typing import Any

import torch
import torch.distributed as dist

from labkit.borrowed.torch import fake_store
from labkit.borrowed.torch_pipelining import GPipeAlone, StageAlone
from labkit.config.schema import RunConfig
from labkit.memory.tracker import host
from labkit.plan.rank import PlannedModule, Rank
from labkit.train.disk_room import checkpoint_bytes
from labkit.train.models import dtype_of
from labkit.train.pipeline import PipelineModule


class SomeLayers(Rank):
    """The layers of one rank, ``index``, in a process group that only has a size.

    Use it as a context around the whole prediction. What is planned is what is run: the same stage with its buffers
    for what it receives, and the same schedule. Not here: what NCCL holds for itself.
    """

    def __init__(self, config: RunConfig, index: int) -> None:
        super().__init__()
        self._config = config
        self._index = index

    def __enter__(self) -> "SomeLayers":
        store, size = fake_store(), self._config.world_size
        dist.init_process_group("fake", store=store, rank=self._index, world_size=size)
        return self

    def __exit__(self, *_: object) -> None:
        dist.destroy_process_group()

    def building(self) -> contextlib.AbstractContextManager[None]:
        """A context to build the model in: no rank holds all of it, so no rank follows."""
        return host()

    def module(self, config: RunConfig, model: Any) -> "PlannedStage":
        """The rank's layers, of a model that is whole."""
        with host():
            if config.dtypes.weights_in_16_bits:
                model.to(dtype_of(config.precision))
            whole_bytes = checkpoint_bytes(config, model.parameters())
            module = PlannedStage(config, model, self._index)
        module.on_disk_bytes = whole_bytes
        self.tracker.assign((*module.parameters(), *module.buffers()), "parameters")
        return module


class PlannedStage(PlannedModule, PipelineModule):
    """The module of a rank whose neighbours are not there."""

    stage_class = StageAlone
    schedule_class = GPipeAlone

    def on_fit_start(self) -> None:
        """There is no rank to make a group with."""

    def sum_tied(self, grad: torch.Tensor | None) -> None:
        """It is summed in place, which takes no memory."""

    def over_ranks(self, summed: torch.Tensor) -> None:
        """It is sent in place."""
