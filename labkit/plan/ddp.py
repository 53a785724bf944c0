"""DDP: what DistributedDataParallel adds to a rank's memory, on tensors without storage."""

import sys
from collections import deque
from collections.abc import Sequence

import torch
from torch import nn

from labkit.borrowed.torch import bucket_assignment
from labkit.plan.rank import Rank

BUCKET_BYTES = 25 * 2**20
"""Size at which a bucket is full: ``bucket_cap_mb`` of DistributedDataParallel."""

BROADCAST_BYTES, AT_ONCE = 250 * 2**20, 2
"""Copies in which the weights go to the other ranks, and how many are under way: ``broadcast_bucket_size`` of
DistributedDataParallel, and ``maxInFlight`` of ``broadcast_coalesced`` in ``torch/csrc/distributed/c10d/comm.cpp``."""

FIRST_BUCKET_BYTES = 2**20
"""The same for the bucket that is reduced first: ``dist._DEFAULT_FIRST_BUCKET_BYTES``."""


class BucketedGradients(Rank):
    """Gradients as DDP keeps them with ``gradient_as_bucket_view=True``: views into buckets that are never freed.

    As in torch 2.13
    (``torch/nn/parallel/distributed.py`` and ``torch/csrc/distributed/c10d/reducer.cpp``):

    - when it wraps the model, all of its weights and buffers go to the other ranks, in copies that each hold many of
      them; one that is as large as a copy goes as it is (``_sync_module_states``);
    - one bucket for each dtype is there before the first forward, whose gradients are therefore allocated already
      (``_ddp_init_helper`` without unused parameters; ``Reducer::initialize_buckets``);
    - a gradient is made outside its bucket, copied in when it is accumulated, and its own memory is freed
      (``mark_variable_ready_dense``);
    - under ``no_sync`` it stays outside (``autograd_hook`` returns early). Micro batches that are accumulated hold
      buckets and gradients at once, until the last one copies them in;
    - before the forward that follows the first reduction, buckets of 1 and then 25 MiB are made in the order in which
      gradients arrived, while the old bucket lives (``_rebuild_buckets``);
    - ``zero_grad`` takes the views away, and no memory.

    Not here: what NCCL holds for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._views: dict[nn.Parameter, torch.Tensor] = {}
        self._arrived: list[nn.Parameter] = []
        self._rebuilt = False
        self._sync = True

    def apply(self, model: nn.Module) -> None:
        """Copy the weights, make the first buckets, and catch the gradients of the parameters that are trained."""
        _broadcast([*model.parameters(), *model.buffers()])
        trained = [p for p in model.parameters() if p.requires_grad]
        self._make_buckets(trained, [sys.maxsize])
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(self._accumulated)

    def before_forward(self, last_micro_step: bool) -> None:
        """What DDP does before a forward; all micro steps but the last run under ``no_sync``."""
        self._sync = last_micro_step
        if self._arrived and not self._rebuilt:
            self._rebuilt = True
            self._views.clear()  # where there are gradients they keep the old bucket
            self._make_buckets(self._arrived, [FIRST_BUCKET_BYTES, BUCKET_BYTES])

    def _make_buckets(self, parameters: Sequence[nn.Parameter], limits_bytes: list[int]) -> None:
        for indices in bucket_assignment(parameters, limits_bytes):
            self._make_bucket([parameters[i] for i in indices])

    def _make_bucket(self, parameters: Sequence[nn.Parameter]) -> None:
        first = parameters[0]
        numel = sum(p.numel() for p in parameters)
        bucket, offset = torch.empty(numel, dtype=first.dtype, device=first.device), 0
        self.tracker.assign([bucket], "gradients")
        for parameter in parameters:
            view = bucket.as_strided(parameter.size(), parameter.stride(), offset)
            offset += parameter.numel()
            self._views[parameter] = view
            if parameter.grad is not None:
                parameter.grad = view

    def _accumulated(self, parameter: nn.Parameter) -> None:
        if not self._sync:
            return
        if not self._rebuilt:
            self._arrived.append(parameter)
        parameter.grad = self._views[parameter]


def _broadcast(states: Sequence[torch.Tensor]) -> None:
    copies: deque[torch.Tensor] = deque(maxlen=AT_ONCE)
    for indices in bucket_assignment(states, [BROADCAST_BYTES]):
        if len(copies) == AT_ONCE:
            copies.popleft()  # it has arrived before the next is made
        if len(indices) > 1:
            copies.append(torch.cat([states[i].detach().reshape(-1) for i in indices]))
