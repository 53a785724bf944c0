"""Modules: the steps of any LightningModule on ``meta``, as its Trainer would run them."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule

from labkit.config.schema import RunConfig
from labkit.plan.meta_trainer import fit_on_meta
from labkit.plan.parallel import rank
from labkit.plan.semantics import DeviceSemantics, replacing
from labkit.plan.trace import Trace

STEPS = 2
"""The second step meets parameters, old gradients, new optimizer state and activations at once."""


def trace_module(
    module: LightningModule | Callable[[], LightningModule], batches: Iterable[Any], machine: RunConfig,
    callbacks: Iterable[Callback] = (), **options: Any,
) -> Trace:  # fmt: skip
    """Execute the first two optimizer steps of a module over ``batches`` without allocating what it needs.

    ``module`` is a module, which stays as it is, or what makes one. Of ``machine`` its device and precision count;
    ``options`` are those of Lightning's Trainer. Raises ``PredictionError`` for what ``meta`` tensors cannot do.
    """
    micro_steps = options.get("accumulate_grad_batches", 1)
    with replacing(), rank(machine) as this_rank, DeviceSemantics(machine) as semantics, this_rank.tracker:
        if isinstance(module, LightningModule):
            planned = on_meta(module)
        else:
            with torch.device("meta"):
                planned = module()
        return fit_on_meta(
            planned, batches, this_rank, semantics, machine.precision, callbacks, max_epochs=1,
            limit_train_batches=STEPS * micro_steps, limit_val_batches=0, **options,
        )  # fmt: skip


def on_meta(module: LightningModule) -> LightningModule:
    """A copy of a module whose weights and buffers are on ``meta``; what is tied stays tied."""
    known: dict[int, Any] = {}
    for tensor in module.buffers():
        known[id(tensor)] = tensor.detach().to("meta")
    for parameter in module.parameters():
        moved = parameter.detach().to("meta")
        known[id(parameter)] = torch.nn.Parameter(moved, requires_grad=parameter.requires_grad)
    return copy.deepcopy(module, known)
