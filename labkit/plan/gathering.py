"""Gathering: the weights that ZeRO's stage 3 brings to the device for the modules that are at work.

The rules are those of ``partitioned_param_coordinator.py`` of DeepSpeed 0.19. A module's weights are there from just
before its use to just after, small ones always. From the second pass on the next modules' are fetched ahead, and what
is soon used again is kept. No GPU was at hand to compare this with.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


class Gathering:
    """Hooks on every module with weights of its own, which hold tensors as large as what is gathered.

    ``sizes`` are numbers of ZeRO's configuration: ``stage3_param_persistence_threshold``,
    ``stage3_prefetch_bucket_size`` and ``stage3_max_reuse_distance``.
    """

    def __init__(self, module: nn.Module, sizes: Mapping[str, int]) -> None:
        self._prefetch_numbers = sizes["stage3_prefetch_bucket_size"]
        self._reuse_numbers = sizes["stage3_max_reuse_distance"]
        smallest = sizes["stage3_param_persistence_threshold"]
        self._order: list[nn.Module] = []  # as forward uses them
        self._place: dict[int, int] = {}
        self._recorded = False
        self._backward = False
        self._gathered: dict[int, list[torch.Tensor]] = {}
        self._weights: dict[int, list[nn.Parameter]] = {}
        persistent: list[nn.Parameter] = []
        for part in module.modules():
            own = list(part.parameters(recurse=False))
            persistent += [p for p in own if p.numel() <= smallest]
            if large := [p for p in own if p.numel() > smallest]:
                self._weights[id(part)] = large
                part.register_forward_pre_hook(self._before_forward)
                part.register_forward_hook(self._after_forward)
        self._persistent = [_like(p) for p in persistent]

    def tensors(self) -> list[torch.Tensor]:
        """All that is on the device now."""
        return [t for tensors in self._gathered.values() for t in tensors] + self._persistent

    def begin_backward(self) -> None:
        """Forward is over; its modules come back in reverse."""
        self._recorded = self._backward = True

    def end_backward(self) -> None:
        """Nothing is in use."""
        self._backward = False
        self._gathered.clear()

    def _before_forward(self, part: nn.Module, args: Any) -> None:
        if not self._backward and not self._recorded and id(part) not in self._place:
            self._place[id(part)] = len(self._order)
            self._order.append(part)
        self._gather(part, +1)

    def _after_forward(self, part: nn.Module, args: Any, output: Any) -> None:
        tensor = output if isinstance(output, torch.Tensor) else None
        if not self._backward and tensor is not None and tensor.requires_grad:
            tensor.register_hook(self._hook(part))
        if self._backward or self._numbers_after(part) * 2 > self._reuse_numbers:
            self._gathered.pop(id(part), None)

    def _hook(self, part: nn.Module) -> Callable[[torch.Tensor], None]:
        return lambda gradient: self._before_backward(part)

    def _before_backward(self, part: nn.Module) -> None:
        place = self._place[id(part)]
        for key in [key for key in self._gathered if self._place[key] > place]:  # backward has gone past these
            del self._gathered[key]
        self._gather(part, -1)

    def _gather(self, part: nn.Module, direction: int) -> None:
        place, ahead = self._place.get(id(part)), 0
        self._hold(part)
        while self._recorded and place is not None and ahead <= self._prefetch_numbers:
            place += direction
            if not 0 <= place < len(self._order):
                return
            ahead += sum(p.numel() for p in self._weights[id(self._order[place])])
            if ahead <= self._prefetch_numbers:
                self._hold(self._order[place])

    def _hold(self, part: nn.Module) -> None:
        if id(part) not in self._gathered:
            self._gathered[id(part)] = [_like(p) for p in self._weights[id(part)]]

    def _numbers_after(self, part: nn.Module) -> int:
        if not self._recorded:  # in the first pass it is not known what comes
            return self._reuse_numbers
        later = self._order[self._place[id(part)] + 1 :]
        return sum(p.numel() for one in later for p in self._weights[id(one)])


def _like(parameter: torch.Tensor) -> torch.Tensor:
    return torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
