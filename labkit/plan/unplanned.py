"""What cannot be planned, and what to plan instead; known before anything heavy is imported."""

from labkit.config.schema import RunConfig
from labkit.config.strategy import PLACEMENTS, Placement


def unplanned(config: RunConfig) -> str | None:
    """Why the strategy is not planned with the other keys, in a line that says what to do next; None if it is."""
    return unplanned_strategy(config.strategy, config.devices, config.world_size)


def unplanned_strategy(strategy: str, devices: int, world_size: int) -> str | None:
    """The same for a strategy by itself, of values that may not make a config; None for what is not a strategy."""
    if (placement := PLACEMENTS.get(strategy)) is None:
        return None
    on_device = placement.uses_zero and not placement.offloads
    never = on_device and placement.zero_stage == 3
    planned = placement.replicates or placement.shards or placement.splits_layers or on_device
    if never or (world_size > 1 and not planned):
        nearest = _nearest(strategy, placement)
        return f"devices={devices} with strategy={strategy} cannot be predicted; nearest: {nearest}."
    return None


def _nearest(strategy: str, placement: Placement) -> str:
    if placement.offloads:
        return f"devices=1 with strategy={strategy}"
    if placement.zero_stage == 3:
        return "strategy=fsdp, which divides weights, gradients and optimizer state alike"
    return "strategy=ddp, strategy=fsdp or strategy=pipeline"
