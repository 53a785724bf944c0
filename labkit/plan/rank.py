"""Rank: one device of a run, as a prediction follows it."""

import contextlib
from typing import Any

from torch import nn

from labkit.config.schema import RunConfig
from labkit.memory.owners import OwnedBy
from labkit.plan.paged import build_paged
from labkit.plan.shapes import ShapeTracker
from labkit.train.disk_room import checkpoint_bytes
from labkit.train.module import CaptionModule
from labkit.train.optimizers import build_optimizer


class PlannedModule(CaptionModule):
    """The module of a run with the optimizer that its rank has, and without a schedule, which takes no memory."""

    rank: "Rank"
    on_disk_bytes = 0

    def configure_optimizers(self) -> Any:
        """The optimizer, when the parameters have their dtype."""
        self.rank.apply(self.model)
        self.on_disk_bytes = self.on_disk_bytes or checkpoint_bytes(self.config, self.parameters())
        return self.rank.optimizer(self.config, self)


class Rank:
    """All of a run on one device. A strategy that changes what a device holds is a class of its own.

    ``tracker`` follows the device's memory; the caller enters it. ``owned_by`` gives the tensors of an optimizer that
    is not torch's, by category.
    """

    owned_by: OwnedBy | None = None

    def __init__(self, tracker: ShapeTracker | None = None) -> None:
        self.tracker = tracker or ShapeTracker()

    def building(self) -> contextlib.AbstractContextManager[Any]:
        """A context to build the model in, adapters included."""
        return contextlib.nullcontext()

    def prepare(self, model: nn.Module) -> None:
        """What the strategy does to a model that was built, before Lightning takes it."""

    def module(self, config: RunConfig, model: Any) -> PlannedModule:
        """What trains the model."""
        return PlannedModule(config, model)

    def apply(self, model: nn.Module) -> None:
        """What it does to the model on its device and in the run's dtype, before there is an optimizer."""

    def optimizer(self, config: RunConfig, module: nn.Module) -> Any:
        """The optimizer of the run, over what is trained of ``module``."""
        build = build_paged if config.optim == "paged_adam_8bit" else build_optimizer
        return build(config, module.parameters())

    def before_forward(self, last_micro_step: bool) -> None:
        """Called ahead of every micro step; the last one of an optimizer step reduces the gradients."""

    def backward(self, last_micro_step: bool) -> contextlib.AbstractContextManager[Any]:
        """A context around every backward."""
        return contextlib.nullcontext()
