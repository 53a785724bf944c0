"""FSDP: torch's own ``fully_shard`` on tensors without storage, as one rank of a group that never communicates."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter
from torch.distributed.tensor import DTensor

from labkit.config.schema import RunConfig
from labkit.memory.tracker import Tracker, host
from labkit.plan.shapes import ShapeTracker

_GATHERED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

_ELEMENTWISE = ("_foreach_", "_fused_")
"""Operations of optimizers on lists of tensors, each on its own shard. DTensor works out where each result lies, which
takes time that grows with the square of their number: half a minute for 1,250 parameters."""


def sharded_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that are sharded one by one, in the order of the model: every layer of every stack of layers.

    These are the layers of the vision encoder, of the Q-Former and of the language model, with the adapters in them.
    The model itself comes after them and takes what is left: embeddings, projections, norms, the output layer.
    """
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from child  # a stack inside a layer is sharded with its layer
        else:
            yield from sharded_modules(child)


def shard(model: nn.Module, config: RunConfig, mesh: DeviceMesh) -> None:
    """Shard a model over ``mesh`` for the run: parameters on their first dimension, with torch's defaults.

    Under a mixed precision weights are gathered in 16 bits and gradients reduced in 32: ours to choose, since
    Lightning's ``ModelParallelStrategy`` leaves the policy to the module. The root stays gathered after forward.
    """
    policy = MixedPrecisionPolicy()
    if config.precision in _GATHERED:
        policy = MixedPrecisionPolicy(param_dtype=_GATHERED[config.precision], reduce_dtype=torch.float32)
    for module in (*sharded_modules(model), model):
        fully_shard(module, mesh=mesh, mp_policy=policy)


def follow_gathered(model: nn.Module, tracker: "ShardTracker") -> None:
    """Tell the tracker of gathered parameters: FSDP frees and refills them by resizing storages, without an operation.

    A call to ``alloc_all_gather_outputs`` or ``free_unsharded_param`` (torch 2.13, ``_fsdp_param.py``) is all there is
    to see.
    """
    for group in _groups(model):
        for parameter in group.fsdp_params:
            for name in ("alloc_all_gather_outputs", "free_unsharded_param"):
                setattr(parameter, name, _then_tell(getattr(parameter, name), parameter, tracker))


class ShardTracker(Tracker):
    """A tracker that looks through sharded tensors at what a rank keeps of them."""

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not any(_is_sharded(value) for value in args):
            return super()._compute(func, args, kwargs)
        if not func.__name__.startswith(_ELEMENTWISE):
            return NotImplemented  # a sharded tensor then asks for the operation on its shard, which comes here
        return super()._compute(func, [_locals(value) for value in args], kwargs)

    def gathered(self, tensors: Iterable[torch.Tensor]) -> None:
        """Weights of all ranks have their memory here, or have given it back."""
        for tensor in tensors:
            self._see(tensor, "fsdp.all_gather_copy_out")  # which names the peak, if this is one
            self.assign([tensor], "parameters")

    def assign(self, tensors: Iterable[torch.Tensor], category: str) -> None:
        """Say what these tensors, or this rank's shards of them, are for."""
        super().assign((_local(tensor) for tensor in tensors), category)

    def category(self, tensor: torch.Tensor) -> str | None:
        """What a tensor's storage, or its shard's, is for; None for one that was never seen."""
        return super().category(_local(tensor))


class _ShardShapeTracker(ShardTracker, ShapeTracker):
    """The same for tensors on ``meta``."""


class ShardedModel:
    """One rank of FSDP2, the first of ``config.devices``, in a process group that only has a size.

    Use it as a context around the whole prediction. What is planned is what is run: ``fully_shard`` with its hooks,
    the parameters it gathers, frees and prefetches in forward, backward and recomputation, its buffers, its padding
    and the optimizer on the shards. Only communication is left out. Every micro step reduces its gradients, since
    Lightning's ``ModelParallelStrategy`` has no ``no_sync`` (``ParallelStrategy.block_backward_sync``).

    The first rank has the largest shards. Not here: what NCCL holds for itself, and blocks that the allocator keeps
    longer because another stream uses them.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.tracker: ShardTracker = _ShardShapeTracker()
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> "ShardedModel":
        self._warnings.__enter__()
        # OPT's layers end in a view; nothing works in place on it, so FSDP's hooks on it stay
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        # registers the backend "fake"; torch has no public name for it
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=self.config.devices)
        return self

    def __exit__(self, *_: object) -> None:
        dist.destroy_process_group()
        self._warnings.__exit__(None, None, None)

    @staticmethod
    def building() -> contextlib.AbstractContextManager[None]:
        """A context to build the model in: no rank holds all of it, so nobody follows."""
        return host()

    def apply(self, model: nn.Module) -> None:
        """Shard the model and let its communication allocate, and nothing else."""
        with host():  # the whole weights are still there
            shard(model, self.config, init_device_mesh("cpu", (self.config.devices,)))
            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.set_custom_all_gather(_Gather())
                    module.set_custom_reduce_scatter(_Reduce(self.tracker))
            for group in _groups(model):
                group._validate_no_meta_params = lambda: None  # weights are to stay on meta here
                for parameter in group.fsdp_params:
                    parameter.device = torch.device("meta")
        follow_gathered(model, self.tracker)

    def before_forward(self, last_micro_step: bool) -> None:
        """Nothing: every micro step is like the others."""


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


def _groups(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            yield from module._get_fsdp_state()._fsdp_param_groups


def _then_tell(method: Any, parameter: Any, tracker: ShardTracker) -> Any:
    def call() -> None:
        method()
        tracker.gathered(parameter.all_gather_outputs)

    return call


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def _is_sharded(value: Any) -> bool:
    """Whether it is a sharded tensor or a list of such; every operation asks, so there is no search."""
    return type(value[0] if type(value) is list and value else value) is DTensor


def _locals(value: Any) -> Any:
    return [_local(item) for item in value] if type(value) is list else _local(value)
