"""Parallel: one rank of a run on several devices, as a context in which a prediction builds the model and runs the
steps."""

import contextlib
from collections.abc import Generator
from typing import Any, Protocol

from torch import nn

from labkit.config.schema import RunConfig
from labkit.memory.tracker import Tracker
from labkit.plan.ddp import BucketedGradients
from labkit.plan.shapes import ShapeTracker


class Rank(Protocol):
    """What a strategy does around the steps of one rank."""

    @property
    def tracker(self) -> Tracker:
        """Follows the rank's memory; the caller enters it."""

    def building(self) -> contextlib.AbstractContextManager[Any]:
        """A context to build the model in, adapters included."""

    def apply(self, model: nn.Module) -> None:
        """Put the strategy onto the model, before there is an optimizer."""

    def before_forward(self, last_micro_step: bool) -> None:
        """Call ahead of every micro step; the last one of an optimizer step reduces the gradients."""


@contextlib.contextmanager
def rank(config: RunConfig) -> Generator[Rank]:
    """The first rank of ``config.strategy`` and ``config.devices``, on ``meta``."""
    if config.placement.shards:
        from labkit.plan.fsdp import ShardedModel  # takes half a second to import

        with ShardedModel(config) as sharded:
            yield sharded
    elif config.placement.replicates:
        yield BucketedGradients(ShapeTracker())
    else:
        yield _Single(ShapeTracker())


class _Single:
    """One device, with nothing to share."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    @staticmethod
    def building() -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def apply(self, model: nn.Module) -> None:
        return

    def before_forward(self, last_micro_step: bool) -> None:
        return
