"""FSDP: torch's own ``fully_shard`` on tensors without storage, as one rank of a group that never communicates."""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from labkit.borrowed.torch import fake_store
from labkit.borrowed.torch_fsdp import AllGather, ReduceScatter, keep_on_meta
from labkit.config.schema import RunConfig
from labkit.memory.sharded import ShardTracker, follow_gathered, groups
from labkit.memory.tracker import Tracker, host
from labkit.plan.rank import Rank
from labkit.plan.shapes import ShapeTracker
from labkit.train.fsdp import shard
from labkit.train.models import dtype_of


class _ShardShapeTracker(ShardTracker, ShapeTracker):
    """The same for tensors on ``meta``."""


class ShardedModel(Rank):
    """One rank of FSDP2, the first of ``config.devices``, in a process group that only has a size.

    Use it as a context around the whole prediction. What is planned is what is run: ``fully_shard`` with its hooks,
    the parameters it gathers, frees and prefetches in forward, backward and recomputation, its buffers, its padding
    and the optimizer on the shards. Only communication is left out. Every micro step reduces its gradients, since
    Lightning's ``ModelParallelStrategy`` has no ``no_sync`` (``ParallelStrategy.block_backward_sync``).

    The first rank has the largest shards. Not here: what NCCL holds for itself, and blocks that the allocator keeps
    longer because another stream uses them.
    """

    def __init__(self, config: RunConfig) -> None:
        self._shards = _ShardShapeTracker()
        super().__init__(self._shards)
        self.config = config
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> "ShardedModel":
        self._warnings.__enter__()
        # OPT's layers end in a view; nothing works in place on it, so FSDP's hooks on it stay
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        dist.init_process_group("fake", store=fake_store(), rank=0, world_size=self.config.world_size)
        return self

    def __exit__(self, *_: object) -> None:
        dist.destroy_process_group()
        self._warnings.__exit__(None, None, None)

    def building(self) -> contextlib.AbstractContextManager[None]:
        """A context to build the model in: no rank holds all of it, so no rank follows."""
        return host()

    def prepare(self, model: nn.Module) -> None:
        """Shard the model and let its communication allocate, and nothing else."""
        with host():  # the whole weights are still there
            if self.config.dtypes.weights_in_16_bits:
                model.to(dtype_of(self.config.precision))
            shard(model, self.config, init_device_mesh("cpu", (self.config.world_size,)))
            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.set_custom_all_gather(_Gather())
                    module.set_custom_reduce_scatter(_Reduce(self.tracker))
            for group in groups(model):
                keep_on_meta(group)
        follow_gathered(model, self._shards)


class _Gather(AllGather):
    """An all-gather that has the buffer, and no data; FSDP asks for its mesh's device, which is not ``meta``."""

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device="meta")

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: Any, async_op: bool = False
    ) -> None:
        return None


class _Reduce(ReduceScatter):
    """A reduce-scatter that has the buffers of whole and sharded gradients, and no data."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def allocate(self, size: Sequence[Any], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        made = torch.empty(*size, dtype=dtype, device="meta")
        self.tracker.assign([made], "gradients")
        return made

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        return None
