"""Partitioned: what DeepSpeed's ZeRO stage 3 keeps, on one device or several, with offload or without, on ``meta``.

DeepSpeed cannot run on ``meta`` tensors. These are the buffers that its stage 3 makes, allocated and freed in its order
(``stage3.py``, ``partition_parameters.py`` and ``comm/coalesced_collectives.py`` of DeepSpeed 0.19), with Lightning's
sizes: of each weight, its gradient and its state a share. Which weights are whole, and when, is ``gathering``'s. On the
simulated GPU it is compared with DeepSpeed itself (tests/plan/test_offload.py, tests/runs/ranks).

Not here: what NCCL holds for itself, and the streams of CUDA, on which memory is used again a moment later. Nothing in
host memory is page-locked, since Lightning leaves ``pin_memory`` off; torch would round such a buffer up to a power of
two.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from labkit.config.schema import RunConfig
from labkit.memory.owners import optimizer_state
from labkit.memory.tracker import host
from labkit.plan.gathering import Gathering, empty
from labkit.plan.zero_rank import ZeroRank
from labkit.train.optimizers import build_optimizer
from labkit.train.strategies import zero_sizes

_NORM_NUMBERS = 250_000_000
"""Under offload the norm of a gradient is taken in pieces of this many numbers."""


class Partitioned(ZeroRank):
    """A device that has a share of every weight. All ranks hold the same, but for what fills up the last one's."""

    def make(self, module: nn.Module) -> "ZeroPartitioned":
        """Stage 3."""
        return ZeroPartitioned(self._config, module)

    def before_forward(self, last_micro_step: bool) -> None:
        """Each forward is a pass through the weights."""
        self._zero.gathering.begin_forward()


class ZeroPartitioned(torch.optim.Optimizer):
    """The optimizer of a rank. Use it as ``labkit.plan.zero.ZeroDivided``; ``gathering`` makes weights whole."""

    def __init__(self, config: RunConfig, module: nn.Module) -> None:
        self._trained = [p for p in module.parameters() if p.requires_grad]
        super().__init__(self._trained, {})
        self._ranks = config.world_size
        self._offloads = config.placement.offloads
        # sums of gradients are brought back to be added to, which moves nothing on the simulated GPU
        self._brings_sums = self._offloads and config.on_cuda
        self._dtype = self._trained[0].dtype
        sizes = zero_sizes(config)
        where = host if self._offloads else contextlib.nullcontext
        # a weight has no size while it is empty
        self._shapes = {p: p.shape for p in module.parameters()}
        self._shares: dict[nn.Parameter, torch.Tensor] = {}
        for parameter in self._shapes:
            with where():
                self._shares[parameter] = torch.empty(self._share(parameter), dtype=parameter.dtype, device="meta")
            empty(parameter)
        numbers, start = sum(self._share(p) for p in self._trained), 0
        for parameter in self._trained:  # they go to host memory, and come back as one
            self._shares[parameter] = self._empty(0)
        with where():
            flat = self._empty(numbers)
        for parameter in self._trained:
            self._shares[parameter] = flat.narrow(0, start, self._share(parameter))
            start += self._share(parameter)
        with where():
            self._master = nn.Parameter(self._master_of(flat, unseen=config.simulated))
            # host memory has the gradients that these are stepped with all the time
            self._stepped = [torch.empty_like(self._master)] if self._offloads else []
            self._sums = self._empty(numbers)
        self.gathering = Gathering(module, self._shapes, self._shares, self._ranks, config.on_cuda, sizes)
        self._inner = None if self._offloads else build_optimizer(config, [self._master])
        self._gloo = config.simulated and self._ranks > 1
        self._bucket_numbers = sizes["reduce_bucket_size"]
        self._bucket = self._empty(self._bucket_numbers)
        self._filled = 0
        self._waiting: list[nn.Parameter] = []
        self._norms: list[torch.Tensor] = []  # each in a block of the allocator's
        self._is_last = True
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(self._take)

    def tensors(self, optimizer: Any = None) -> dict[str, Iterable[torch.Tensor]]:
        """What ZeRO keeps, by category of memory. There is one optimizer, and the argument is not read."""
        shares = self._shares.values()
        if self._inner is None:
            in_host = [self._master, self._sums, *self._stepped]
            return {"optimizer_cpu": in_host, "parameters_cpu": shares, "gradients": [self._bucket]}
        state = optimizer_state(self._inner)
        grads = [] if self._master.grad is None else [self._master.grad]
        stepped = [self._master, *state["optimizer_gpu"], *state["optimizer_cpu"], *grads]
        return {"optimizer_gpu": stepped, "parameters": shares, "gradients": [self._bucket, self._sums]}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients leave as they come, and none is left to be zeroed."""

    def begin_backward(self, is_last: bool) -> None:
        """A backward begins; ``is_last`` of this optimizer step."""
        self._is_last = is_last
        self.gathering.begin_backward()

    def end_backward(self) -> None:
        """A backward is over: what is in the bucket is reduced."""
        self._reduce()
        self.gathering.end_backward()

    def step(self, closure: Callable[[], Any]) -> None:  # type: ignore[override]  # Lightning always has one
        """Forward and backward by the ``closure``, then the step of the share: of all its numbers at once."""
        closure()
        self.gathering.release_all()
        if self._inner is None:
            if len(self._stepped) == 1:  # the first step makes Adam's state
                with host():
                    self._stepped += [torch.empty_like(self._master) for _ in range(2)]
        else:
            self._take_norms(self._sums.split([self._share(p) for p in self._trained]))
            self._norms.clear()
            flat = torch.empty_like(self._sums)
            self._master.grad = flat.to(torch.float32)
            del flat
            self._inner.step()
            self._master.grad = None
        self._norms.clear()
        self.gathering.gather_small()

    def _take(self, parameter: nn.Parameter) -> None:
        numbers = self._shapes[parameter].numel()
        if self._filled + numbers > self._bucket_numbers and self._waiting:
            self._reduce()
        if self._filled + numbers <= self._bucket_numbers:  # a larger one waits as it is
            parameter.grad = self._bucket.narrow(0, self._filled, numbers).view(parameter.shape)
        self._filled += numbers
        self._waiting.append(parameter)

    def _reduce(self) -> None:
        # a bucket is scattered from a copy in the order of the ranks, unless it is one gradient that they divide
        scattered = None
        numbers = self._ranks * sum(self._share(p) for p in self._waiting)
        if len(self._waiting) > 1 or any(self._shapes[p].numel() % self._ranks for p in self._waiting):
            scattered = self._empty(numbers)
        if self._gloo:
            self._empty(numbers)  # it reduces a copy, which is there for a moment
        for parameter in self._waiting:
            if self._offloads:
                self._send(parameter)
            parameter.grad = None
        del scattered
        self._waiting.clear()
        self._filled = 0

    def _send(self, parameter: nn.Parameter) -> None:
        """To host memory goes the share of a gradient, at the last of a step to the master weights' gradients too."""
        share = self._sums.narrow(0, 0, self._share(parameter))
        if self._brings_sums:
            share = torch.empty_like(share)
        if self._is_last:
            self._take_norms(share.split(_NORM_NUMBERS))
            share.to(torch.float32)

    def _take_norms(self, parts: Iterable[torch.Tensor]) -> None:
        self._norms += [part.to(torch.float64).norm(2) for part in parts]

    def _master_of(self, flat: torch.Tensor, *, unseen: bool) -> torch.Tensor:
        if self._dtype == torch.float32 and not self._offloads:
            return flat
        with host() if unseen else contextlib.nullcontext():
            copied = flat.to(torch.float32)  # twice, and gone when there is room for a gradient to begin with
        master = torch.empty_like(copied)
        del copied
        with host() if unseen else contextlib.nullcontext():
            torch.empty_like(master)
        return master

    def _share(self, parameter: nn.Parameter) -> int:
        return -(-self._shapes[parameter].numel() // self._ranks)

    def _empty(self, numbers: int) -> torch.Tensor:
        return torch.empty(numbers, dtype=self._dtype, device="meta")
