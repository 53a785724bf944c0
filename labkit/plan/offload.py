"""Offload: what DeepSpeed's ZeRO keeps on the device and in host memory, as tensors on ``meta``.

DeepSpeed cannot run on ``meta`` tensors. These are the buffers that its stages 2 and 3 make when everything is
offloaded, allocated and freed in its order (``stage_1_and_2.py`` and ``stage3.py`` of DeepSpeed 0.19), with Lightning's
sizes. On the simulated GPU both stages are compared with DeepSpeed itself (tests/plan/test_offload.py).

Nothing is page-locked, since Lightning leaves ``pin_memory`` off; torch would round a page-locked buffer up to a
power of two.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from labkit.config.schema import RunConfig
from labkit.memory.tracker import host
from labkit.plan.gathering import Gathering
from labkit.plan.zero_rank import ZeroRank
from labkit.train.strategies import zero_sizes

_NORM_NUMBERS = 250_000_000
"""Stage 3 takes the norm of a gradient in pieces of this many numbers."""


class Offloaded(ZeroRank):
    """One device whose optimizer state, and in stage 3 whose weights, are in host memory."""

    def make(self, module: nn.Module) -> "ZeroOffload":
        """Stage 2 or 3."""
        return ZeroOffload(self._config, module)


class ZeroOffload(torch.optim.Optimizer):
    """The optimizer of a run with offload, on one device; stage 2 or 3 by ``config.placement``.

    Makes its buffers when it is made, and a flat one of all trained weights. ``begin_backward`` and ``end_backward``
    stand around each backward, gradients are taken as they arrive, ``step`` happens in host memory. ``tensors`` says
    what is what, as ``labkit.train.strategies.zero_tensors`` does for DeepSpeed's own.
    """

    def __init__(self, config: RunConfig, module: nn.Module) -> None:
        self._stage = config.placement.zero_stage
        self._bucket_numbers = zero_sizes(config)["reduce_bucket_size"]
        self._trained = [p for p in module.parameters() if p.requires_grad]
        super().__init__(self._trained, {})
        self._dtype = self._trained[0].dtype
        # in stage 2 sums of gradients have buffers of their own; in stage 3 they are brought back to be added to,
        # which moves nothing on the simulated GPU
        self._keeps_sums = self._stage == 2 and config.accumulate_grad_batches > 1
        self._brings_sums = self._stage == 3 and config.on_cuda
        self._summed: set[int] = set()
        self._norms: list[torch.Tensor] = []  # each in a block of the allocator's
        self._is_last = True
        self._stepped = False
        self._bucket: list[torch.Tensor] = []
        self._bucket_filled = 0
        self._waiting: list[torch.Tensor] = []
        self._weights: list[nn.Parameter] = []
        self._gathering: Gathering | None = None
        numbers = sum(p.numel() for p in self._trained)
        largest = max(p.numel() for p in self._trained)
        with host():
            # master weights, the gradients that they are stepped with, and weights or gradients on their way
            self._host = [_empty(numbers, dtype) for dtype in (torch.float32, torch.float32, self._dtype)]
        if self._stage == 2:
            with host():
                self._host.append(_empty(largest, self._dtype))
            self._gradients = [_empty(largest, self._dtype)]
            flat, start = _empty(numbers, self._dtype), 0
            for parameter in self._trained:
                parameter.data = flat.narrow(0, start, parameter.numel()).view(parameter.shape)
                start += parameter.numel()
        else:
            self._gradients = self._bucket = [_empty(self._bucket_numbers, self._dtype)]
            self._weights = list(module.parameters())
            with host():
                for parameter in self._weights:
                    parameter.data = torch.empty_like(parameter)
            if config.on_cuda:  # on the simulated GPU weights in host memory are used where they are
                self._gathering = Gathering(module, zero_sizes(config))
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(self._take)

    def tensors(self, optimizer: Any = None) -> dict[str, Iterable[torch.Tensor]]:
        """What ZeRO keeps, by category of memory. There is one optimizer, and the argument is not read."""
        return {
            "optimizer_cpu": self._host,
            "parameters_cpu": self._weights,
            "gradients": self._gradients,
            "parameters": self._gathering.tensors() if self._gathering else (),
        }

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients leave as they come, and none is left to be zeroed."""

    def begin_backward(self, is_last: bool) -> None:
        """A backward begins; ``is_last`` of this optimizer step."""
        self._is_last = is_last
        if self._gathering:
            self._gathering.begin_backward()

    def end_backward(self) -> None:
        """A backward is over: what is in the bucket goes to host memory."""
        self._empty_bucket()
        if self._stage == 2:
            self._bucket = []
        if self._gathering:
            self._gathering.end_backward()

    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]  # Lightning always has one
        """Forward and backward by the ``closure``, then the optimizer step, in host memory; the first makes Adam's
        state."""
        closure()
        if not self._stepped:
            with host():
                self._host += [torch.empty_like(self._host[0]) for _ in range(2)]
            self._stepped = True
        self._norms.clear()

    def _take(self, parameter: torch.Tensor) -> None:
        if not self._bucket:  # stage 2, at the first gradient; overlap_comm: one is filled while the other is reduced
            self._bucket = [_empty(self._bucket_numbers, self._dtype) for _ in range(2)]
        if self._bucket_filled + parameter.numel() > self._bucket_numbers:
            self._empty_bucket()
        if parameter.numel() <= self._bucket_numbers:  # a larger one waits as it is
            parameter.grad = self._bucket[0].narrow(0, self._bucket_filled, parameter.numel()).view(parameter.shape)
            self._bucket.reverse()
        self._bucket_filled += parameter.numel()
        self._waiting.append(parameter)

    def _empty_bucket(self) -> None:
        # stage 3 scatters a bucket of several gradients from a copy
        scattered = None
        if self._stage == 3 and len(self._waiting) > 1:
            scattered = torch.cat([_gradient(p).view(-1) for p in self._waiting])
        for parameter in self._waiting:
            gradient = _gradient(parameter)
            if self._keeps_sums and id(parameter) not in self._summed:
                with host():
                    self._host.append(torch.empty_like(gradient))
                self._summed.add(id(parameter))
            if self._brings_sums:
                gradient = torch.empty_like(gradient)
            if self._is_last:  # what the norm is of, then what goes to the master weights' gradients
                for part in gradient.view(-1).split(_NORM_NUMBERS) if self._stage == 3 else [gradient]:
                    self._norms.append(part.to(torch.float64).norm(2))
                gradient.to(torch.float32)
            parameter.grad = None
        del scattered
        self._waiting = []
        self._bucket_filled = 0


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    """The gradient of a weight that is waiting: it had arrived when torch called the hook."""
    if parameter.grad is None:
        raise RuntimeError("a weight's gradient was taken away before its bucket was emptied")
    return parameter.grad


def _empty(numbers: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(numbers, dtype=dtype, device="meta")
