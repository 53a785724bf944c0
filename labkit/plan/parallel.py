"""Parallel: which rank a prediction follows, by the strategy of the run."""

import contextlib
from collections.abc import Generator

from labkit.config.schema import RunConfig
from labkit.plan.ddp import BucketedGradients
from labkit.plan.linear import keeping_inputs
from labkit.plan.partitioned import Partitioned
from labkit.plan.rank import Rank
from labkit.plan.workspaces import workspace_bytes
from labkit.plan.zero import Divided


@contextlib.contextmanager
def rank(config: RunConfig, index: int = 0) -> Generator[Rank]:
    """A rank of ``config.strategy`` and ``config.devices`` by its number, on ``meta``."""
    with contextlib.ExitStack() as ends:
        if config.placement.shards:
            from labkit.plan.fsdp import ShardedModel  # takes half a second to import

            found: Rank = ends.enter_context(ShardedModel(config))
        elif config.placement.splits_layers:
            from labkit.plan.pipeline import SomeLayers  # and this another half

            found = ends.enter_context(SomeLayers(config, index))
        elif config.placement.replicates:
            found = BucketedGradients()
        elif config.placement.zero_stage == 3:
            found = Partitioned(config)
            ends.enter_context(keeping_inputs())
        elif config.placement.uses_zero:
            found = Divided(config, index)
        else:
            found = Rank()
        found.tracker.workspace_bytes = workspace_bytes(config)
        found.tracker.on_cuda = config.on_cuda
        yield found
