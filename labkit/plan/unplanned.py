"""What is not planned, known before anything heavy is imported, and the nearest that is."""

from labkit.config.schema import RunConfig

_NEAREST = {
    "layer_split": "strategy=fsdp, which divides the weights too",
    "deepspeed_stage_2": "strategy=ddp, which holds more, and strategy=fsdp, which holds less",
    "deepspeed_stage_2_offload": "devices=1 with strategy=deepspeed_stage_2_offload",
    "deepspeed_stage_3": "strategy=fsdp, which divides weights, gradients and optimizer state alike",
    "deepspeed_stage_3_offload": "devices=1 with strategy=deepspeed_stage_3_offload",
}


def unplanned(config: RunConfig) -> str | None:
    """Why the strategy is not planned with the other keys, in a line that says what to do next; None if it is."""
    if (why := unplanned_strategy(config.strategy, config.devices, config.world_size)) is not None:
        return why
    if config.strategy == "fsdp" and config.use_qlora:
        return "use_qlora with strategy=fsdp cannot be predicted yet; nearest: strategy=ddp."
    return None


def unplanned_strategy(strategy: str, devices: int, world_size: int) -> str | None:
    """The same for a strategy by itself, of values that may not make a config."""
    if strategy in ("layer_split", "deepspeed_stage_2", "deepspeed_stage_3") or (
        world_size > 1 and strategy not in ("ddp", "fsdp")
    ):
        nearest = _NEAREST.get(strategy, "strategy=ddp or strategy=fsdp")
        return f"devices={devices} with strategy={strategy} cannot be predicted; nearest: {nearest}."
    return None
