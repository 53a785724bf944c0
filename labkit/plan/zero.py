"""ZeRO: what DeepSpeed's stage 2 keeps, on one device or several, with offload or without, as tensors on ``meta``.

DeepSpeed cannot run on ``meta`` tensors. These are the buffers that its stage 2 makes, allocated and freed in its order
(``stage_1_and_2.py`` of DeepSpeed 0.19), with Lightning's sizes: all weights in one flat buffer, a share of master
weights and optimizer state, and of the gradients those of the share. On the simulated GPU it is compared with DeepSpeed
itself (tests/plan/test_offload.py, tests/runs/ranks). Not here: what NCCL holds for itself.

Nothing in host memory is page-locked, since Lightning leaves ``pin_memory`` off; torch would round such a buffer up to
a power of two.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from labkit.config.schema import RunConfig
from labkit.memory.owners import optimizer_state
from labkit.memory.tracker import host
from labkit.plan.zero_rank import ZeroRank
from labkit.train.optimizers import build_optimizer
from labkit.train.strategies import zero_sizes

_ALIGNED_NUMBERS = 2
"""The flat buffer is padded to a multiple of this for each rank (``nccl_start_alignment_factor``)."""


class Divided(ZeroRank):
    """One device of all, ``index``, with its share of gradients and optimizer state."""

    def __init__(self, config: RunConfig, index: int) -> None:
        super().__init__(config)
        self._index = index

    def make(self, module: nn.Module) -> "ZeroDivided":
        """Stage 2."""
        return ZeroDivided(self._config, module, self._index)


class ZeroDivided(torch.optim.Optimizer):
    """The optimizer of a rank.

    Makes its buffers when it is made, and a flat one of all trained weights. ``begin_backward`` and ``end_backward``
    stand around each backward, gradients are taken as they arrive. With offload the share and its gradients are in host
    memory, where ``step`` happens. ``tensors`` says what is what, as ``labkit.train.strategies.zero_tensors`` does for
    DeepSpeed's own.
    """

    def __init__(self, config: RunConfig, module: nn.Module, rank: int) -> None:
        self._rank = rank
        self._trained = [p for p in module.parameters() if p.requires_grad]
        super().__init__(self._trained, {})
        self._dtype = self._trained[0].dtype
        self._offloads = config.placement.offloads
        self._adds_up = config.accumulate_grad_batches > 1
        self._bucket_numbers = zero_sizes(config)["reduce_bucket_size"]
        unit = _ALIGNED_NUMBERS * config.world_size
        numbers = -(-sum(p.numel() for p in self._trained) // unit) * unit
        self._share = numbers // config.world_size
        self._shares_of: dict[int, dict[int, int]] = {}
        flat, start = self._empty(numbers), 0
        for parameter in self._trained:
            parameter.data = flat.narrow(0, start, parameter.numel()).view(parameter.shape)
            self._shares_of[id(parameter)] = _cut(start, parameter.numel(), self._share)
            start += parameter.numel()
        with host() if self._offloads else contextlib.nullcontext():
            self._master = nn.Parameter(torch.empty(self._share, dtype=torch.float32, device="meta"))
        self._inner = None if self._offloads else build_optimizer(config, [self._master])
        self._in_host: list[torch.Tensor] = []
        self._moved: list[torch.Tensor] = []
        if self._offloads:
            largest = max(p.numel() for p in self._trained)
            with host():  # the gradients of the step, and weights and gradients on their way
                self._in_host = [torch.empty_like(self._master), self._empty(self._share), self._empty(largest)]
            self._moved = [self._empty(largest)]
        self._stepped = False
        self._norms: list[torch.Tensor] = []  # each in a block of the allocator's
        self._buckets: list[torch.Tensor] = []
        self._filled = 0
        self._waiting: list[nn.Parameter] = []
        self._kept: torch.Tensor | None = None
        self._kept_numbers = 0
        self._sums: dict[int, torch.Tensor] = {}
        self._is_last = True
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(self._take)

    def tensors(self, optimizer: Any = None) -> dict[str, Iterable[torch.Tensor]]:
        """What ZeRO keeps, by category of memory. There is one optimizer, and the argument is not read."""
        if self._inner is None:
            in_host = [self._master, *self._in_host, *self._sums.values()]
            return {"optimizer_cpu": in_host, "gradients": [*self._buckets, *self._moved]}
        stepped = optimizer_state(self._inner)
        grads = [] if self._master.grad is None else [self._master.grad]
        return {
            "optimizer_gpu": [self._master, *stepped["optimizer_gpu"], *stepped["optimizer_cpu"], *grads],
            "gradients": [*self._buckets, *self._sums.values()],
        }

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients leave as they come, and none is left to be zeroed."""

    def begin_backward(self, is_last: bool) -> None:
        """A backward begins; ``is_last`` of this optimizer step."""
        self._is_last = is_last

    def end_backward(self) -> None:
        """A backward is over: what is in the bucket is reduced, and the gradients of the share are kept or added."""
        self._reduce()
        for parameter in self._trained:
            gradient, parameter.grad = parameter.grad, None
            if gradient is None or self._offloads:  # then it is in host memory already
                continue
            if id(parameter) in self._sums:
                self._sums[id(parameter)].add_(gradient)
            else:
                self._sums[id(parameter)] = gradient
        self._buckets.clear()
        self._kept = None

    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]  # Lightning always has one
        """Forward and backward by the ``closure``, then the step of the share; under offload the first makes Adam's
        state in host memory."""
        closure()
        if self._inner is None:
            if not self._stepped:
                with host():
                    self._in_host += [torch.empty_like(self._master) for _ in range(2)]
            self._stepped = True
            self._norms.clear()
            return
        self._take_norms()
        parts = [
            self._sums[id(p)].view(-1)[: self._shares_of[id(p)][self._rank]]
            for p in self._trained if id(p) in self._sums
        ]  # fmt: skip
        if missing := self._share - sum(part.numel() for part in parts):
            parts.append(self._empty(missing))  # what the last share is padded with
        flat = torch.cat(parts) if len(parts) > 1 else parts[0]
        self._master.grad = flat.to(torch.float32)
        del flat, parts
        self._sums.clear()
        self._inner.step()
        self._master.grad = None

    def _take_norms(self) -> None:
        for gradient in self._sums.values():
            gradient.to(torch.float64).norm(2)

    def _take(self, parameter: nn.Parameter) -> None:
        if not self._buckets:  # overlap_comm: one is filled while the other is reduced
            self._buckets = [self._empty(self._bucket_numbers) for _ in range(2)]
        if self._filled + parameter.numel() > self._bucket_numbers:
            self._reduce()
            self._buckets.reverse()
        if parameter.numel() <= self._bucket_numbers:  # a larger one waits as it is, under offload a copy of it
            parameter.grad = self._buckets[0].narrow(0, self._filled, parameter.numel()).view(parameter.shape)
        elif self._offloads:
            parameter.grad = torch.empty_like(parameter)
        self._filled += parameter.numel()
        self._waiting.append(parameter)

    def _reduce(self) -> None:
        runs: list[list[int]] = []  # neighbours in the bucket for the same rank go together
        for parameter in self._waiting:
            for rank, numbers in self._shares_of[id(parameter)].items():
                if runs and runs[-1][0] == rank:
                    runs[-1][1] += numbers
                else:
                    runs.append([rank, numbers])
        if len(runs) > 1:  # all are reduced in one copy, which is there for a moment
            self._empty(sum(numbers for _, numbers in runs))
        for parameter in self._waiting:
            if self._rank not in self._shares_of[id(parameter)]:
                parameter.grad = None
            elif self._offloads:
                self._send(parameter)
            else:
                self._keep(parameter)
        self._waiting.clear()
        self._filled = 0

    def _keep(self, parameter: nn.Parameter) -> None:
        """A gradient of the share moves from the bucket to where those of this backward are."""
        if self._kept is None:
            mine = (p for p in self._trained if self._rank in self._shares_of[id(p)])
            self._kept, self._kept_numbers = self._empty(sum(p.numel() for p in mine)), 0
        parameter.grad = self._kept.narrow(0, self._kept_numbers, parameter.numel()).view(parameter.shape)
        self._kept_numbers += parameter.numel()

    def _send(self, parameter: nn.Parameter) -> None:
        """To host memory goes the whole gradient to be added up, and at the last of a step what is of the share.

        Before the last it stays until the end of the backward too.
        """
        gradient = parameter.grad
        if gradient is None:
            raise RuntimeError("a weight's gradient was taken away before its bucket was emptied")
        if self._adds_up and id(parameter) not in self._sums:
            with host():
                self._sums[id(parameter)] = torch.empty_like(gradient)
        if self._is_last:
            part = gradient.view(-1)[: self._shares_of[id(parameter)][self._rank]]
            self._norms.append(part.to(torch.float64).norm(2))
            part.to(torch.float32)
            parameter.grad = None

    def _empty(self, numbers: int) -> torch.Tensor:
        return torch.empty(numbers, dtype=self._dtype, device="meta")


def _cut(start: int, numbers: int, share: int) -> dict[int, int]:
    """How many of a weight's numbers lie in the share of each rank."""
    found: dict[int, int] = {}
    end = start + numbers
    while start < end:
        rank = start // share
        stop = min(end, (rank + 1) * share)
        found[rank] = stop - start
        start = stop
    return found
