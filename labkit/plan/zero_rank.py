"""ZeRO's rank: what a device does between the steps of DeepSpeed's optimizer, whichever of its stages that is."""

import contextlib
from collections.abc import Generator
from typing import Any

from torch import nn

from labkit.config.schema import RunConfig
from labkit.memory.tracker import host
from labkit.plan.rank import Rank
from labkit.train.models import dtype_of


class ZeroRank(Rank):
    """A device whose optimizer is one of ours in DeepSpeed's place; ``make`` makes it.

    The optimizer has ``tensors``, and ``begin_backward`` and ``end_backward`` stand around each backward.
    """

    _zero: Any = None

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self._config = config
        self.owned_by = lambda optimizer: optimizer.tensors()

    def make(self, module: nn.Module) -> Any:
        """What stands for DeepSpeed's own optimizer."""
        raise NotImplementedError

    def prepare(self, model: nn.Module) -> None:
        """DeepSpeed casts the model while it is set up: in host memory under offload, and unseen on a simulated GPU."""
        unseen = self._config.placement.offloads or self._config.simulated
        with host() if unseen else contextlib.nullcontext():
            model.to(dtype_of(self._config.precision))

    def optimizer(self, config: RunConfig, module: nn.Module) -> Any:
        """What ``make`` gives, which each backward is told to."""
        self._zero = self.make(module)
        return self._zero

    @contextlib.contextmanager
    def backward(self, last_micro_step: bool) -> Generator[None]:
        """Gradients leave as they come."""
        self._zero.begin_backward(is_last=last_micro_step)
        yield
        self._zero.end_backward()
