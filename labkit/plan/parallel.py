"""Parallel: which rank a prediction follows, by the strategy of the run."""

import contextlib
from collections.abc import Generator

from labkit.config.schema import RunConfig
from labkit.plan.ddp import BucketedGradients
from labkit.plan.offload import Offloaded
from labkit.plan.rank import Rank


@contextlib.contextmanager
def rank(config: RunConfig) -> Generator[Rank]:
    """The first rank of ``config.strategy`` and ``config.devices``, on ``meta``."""
    if config.placement.shards:
        from labkit.plan.fsdp import ShardedModel  # takes half a second to import

        with ShardedModel(config) as sharded:
            yield sharded
    elif config.placement.replicates:
        yield BucketedGradients()
    elif config.placement.offloads:
        yield Offloaded(config)
    else:
        yield Rank()
