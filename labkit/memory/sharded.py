"""Sharded: a tracker for models whose parameters are torch's sharded tensors (FSDP2)."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from labkit.borrowed.torch import ON_LISTS, local
from labkit.borrowed.torch_fsdp import GATHERING, parameter_groups
from labkit.memory.tracker import Tracker


class ShardTracker(Tracker):
    """A tracker that counts of sharded tensors what this rank keeps."""

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        if not any(_is_sharded(value) for value in args):
            return super()._compute(func, args, kwargs)
        # on lists each tensor's own shard is meant. DTensor works out where each result lies, which takes time that
        # grows with the square of their number: half a minute for 1,250 parameters
        if not func.__name__.startswith(ON_LISTS):
            return NotImplemented  # a sharded tensor then asks for the operation on its shard, which comes here
        return super()._compute(func, [_locals(value) for value in args], kwargs)

    def gathered(self, tensors: Iterable[torch.Tensor]) -> None:
        """Weights of all ranks have their memory here, or have given it back."""
        for tensor in tensors:
            self._see(tensor, "fsdp.all_gather_copy_out")  # which names the peak, if this is one
            self.assign([tensor], "parameters")

    def assign(self, tensors: Iterable[torch.Tensor], category: str) -> None:
        """Say what these tensors, or this rank's shards of them, are for."""
        super().assign((local(tensor) for tensor in tensors), category)

    def category(self, tensor: torch.Tensor) -> str | None:
        """What a tensor's storage, or its shard's, is for; None for one that was never seen."""
        return super().category(local(tensor))


def follow_gathered(model: nn.Module, tracker: ShardTracker) -> None:
    """Tell the tracker of gathered parameters: FSDP frees and refills them by resizing storages, without an operation.

    A call to one of its methods ``GATHERING`` is all there is to see.
    """
    for group in groups(model):
        for parameter in group.fsdp_params:
            for name in GATHERING:
                setattr(parameter, name, _then_tell(getattr(parameter, name), parameter, tracker))


def groups(model: nn.Module) -> Iterator[Any]:
    """FSDP's groups of parameters that are gathered together."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            yield from parameter_groups(module)


def _then_tell(method: Any, parameter: Any, tracker: ShardTracker) -> Any:
    def call() -> None:
        method()
        tracker.gathered(parameter.all_gather_outputs)

    return call


def _is_sharded(value: Any) -> bool:
    """Whether it is a sharded tensor or a list of such; every operation asks, so there is no search."""
    return type(value[0] if type(value) is list and value else value) is DTensor


def _locals(value: Any) -> Any:
    return [local(item) for item in value] if type(value) is list else local(value)
