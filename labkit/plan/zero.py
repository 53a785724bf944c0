"""ZeRO: what DeepSpeed's stage 2 keeps on each of several devices, without offload, as tensors on ``meta``.

DeepSpeed cannot run on ``meta`` tensors. These are the buffers that its stage 2 makes, allocated and freed in its order
(``stage_1_and_2.py`` of DeepSpeed 0.19), with Lightning's sizes: all weights in one flat buffer, a share of master
weights and optimizer state, and of the gradients those of the share. On the simulated GPU it is compared with DeepSpeed
itself (tests/runs/ranks). Not here: what NCCL holds for itself.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from labkit.config.schema import RunConfig
from labkit.memory.owners import optimizer_state
from labkit.plan.zero_rank import ZeroRank
from labkit.train.optimizers import build_optimizer
from labkit.train.strategies import zero_sizes

_ALIGNED_NUMBERS = 2
"""The flat buffer is padded to a multiple of this for each rank (``nccl_start_alignment_factor``)."""


class Divided(ZeroRank):
    """One device of several, ``index``, each with a share of gradients and optimizer state."""

    def __init__(self, config: RunConfig, index: int) -> None:
        super().__init__(config)
        self._index = index

    def make(self, module: nn.Module) -> "ZeroDivided":
        """Stage 2."""
        return ZeroDivided(self._config, module, self._index)


class ZeroDivided(torch.optim.Optimizer):
    """The optimizer of a rank. Use it as ``labkit.plan.offload.ZeroOffload``."""

    def __init__(self, config: RunConfig, module: nn.Module, rank: int) -> None:
        self._rank = rank
        self._trained = [p for p in module.parameters() if p.requires_grad]
        super().__init__(self._trained, {})
        self._dtype = self._trained[0].dtype
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
        self._master = nn.Parameter(torch.empty(self._share, dtype=torch.float32, device="meta"))
        self._inner = build_optimizer(config, [self._master])
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
            if parameter.grad is None:
                continue
            if id(parameter) in self._sums:
                self._sums[id(parameter)].add_(parameter.grad)
            else:
                self._sums[id(parameter)] = parameter.grad
            parameter.grad = None
        self._buckets.clear()
        self._kept = None

    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]  # Lightning always has one
        """Forward and backward by the ``closure``, then the step of the share."""
        closure()
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
        if parameter.numel() <= self._bucket_numbers:  # a larger one waits as it is
            parameter.grad = self._buckets[0].narrow(0, self._filled, parameter.numel()).view(parameter.shape)
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
                continue
            if self._kept is None:
                mine = (p for p in self._trained if self._rank in self._shares_of[id(p)])
                self._kept, self._kept_numbers = self._empty(sum(p.numel() for p in mine)), 0
            parameter.grad = self._kept.narrow(0, self._kept_numbers, parameter.numel()).view(parameter.shape)
            self._kept_numbers += parameter.numel()
        self._waiting.clear()
        self._filled = 0

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
