"""Owners: which tensor is a parameter, a gradient, or state of an optimizer; each is found where it hangs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from labkit.borrowed.bitsandbytes import is_paged, quant_state
from labkit.borrowed.lightning import TRAINER
from labkit.borrowed.torch import MODULE_TABLES, tree_iter
from labkit.memory.categories import HOST_CATEGORIES
from labkit.memory.tracker import Tracker

OwnedBy = Callable[[Any], Mapping[str, Iterable[torch.Tensor]]]
"""Gives the tensors of an optimizer by category."""


def assign_state(
    tracker: Tracker,
    module: torch.nn.Module,
    optimizers: Iterable[torch.optim.Optimizer],
    owned_by: OwnedBy | None = None,
) -> None:
    """Find parameters, gradients and optimizer state where they hang, and say so to the tracker."""

    def assign_on_device(tensors: Iterable[torch.Tensor], category: str) -> None:
        # where nothing is moved, a parameter of ZeRO's stage 3 is a view of what it keeps in host memory
        tracker.assign((t for t in tensors if tracker.category(t) not in HOST_CATEGORIES), category)

    for optimizer in optimizers:
        owned = owned_by(optimizer) if owned_by else optimizer_state(optimizer)
        for category, tensors in owned.items():
            tracker.assign(tensors, category)
    parts = list(module.modules())  # the iterators of parameters and buffers would each walk them all again
    parameters, buffers = (
        [tensor for part in parts for tensor in getattr(part, table).values() if tensor is not None]
        for table in MODULE_TABLES[:2]
    )
    assign_on_device((*parameters, *buffers), "parameters")
    assign_on_device((t for holder in (*parameters, *parts) for t in quantization_tensors(holder)), "parameters")
    assign_on_device((p.grad for p in parameters if p.grad is not None), "gradients")


def quantization_tensors(holder: torch.Tensor | torch.nn.Module) -> Iterator[torch.Tensor]:
    """Scales and code books of a weight that bitsandbytes has quantized; they are attributes of it and of its layer,
    and are no parameters. What FSDP makes of the weight has none, and the layer keeps them.

    With double quantization the scales have scales of their own.
    """
    state = quant_state(holder)
    while state is not None:
        yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor))
        state = state.state2


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, list[torch.Tensor]]:
    """Optimizer state by category."""
    found: dict[str, list[torch.Tensor]] = {"optimizer_cpu": [], "optimizer_gpu": []}
    fused = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for state in optimizer.state.values():
        for key, value in state.items():
            # torch keeps the step counters of adamw in host memory, unless it is fused or capturable
            in_host_memory = (key == "step" and not fused) or is_paged(value)
            category = "optimizer_cpu" if in_host_memory else "optimizer_gpu"
            found[category] += [leaf for leaf in tree_iter(value) if isinstance(leaf, torch.Tensor)]
    return found


def tensors_in(batch: Any) -> Iterator[torch.Tensor]:
    """The tensors of a batch: in lists, tuples and mappings, such as a tokenizer returns."""
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_in(value)
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from tensors_in(value)


def modules_of(callback: Any) -> Iterator[torch.nn.Module]:
    """The modules that a callback keeps, as a moving average of the weights."""
    return (value for value in vars(callback).values() if isinstance(value, torch.nn.Module))


_CONTAINERS = (list, tuple, dict, deque)
"""Attributes of other kinds hold no tensor that is looked for; passing them by takes most of the time."""

_PASSED_BY = {*MODULE_TABLES, *TRAINER}
"""Parameters and buffers have their category; Lightning's trainer leads everywhere."""


def attributes(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Tensors in plain attributes of a module and its parts, lists and dictionaries included."""
    for part in module.modules():
        for name, value in vars(part).items():
            if name in _PASSED_BY:
                continue
            if type(value) is torch.Tensor:
                yield value
            elif isinstance(value, _CONTAINERS) and value:  # most are lists of hooks, with none in them
                yield from (leaf for leaf in tree_iter(value) if type(leaf) is torch.Tensor)
