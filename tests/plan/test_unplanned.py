"""What is not planned: for every strategy, on one device and on several, and for what is not a strategy."""

import pytest

from labkit.config.schema import RunConfig, key_choices
from labkit.plan.unplanned import unplanned, unplanned_strategy

NEAREST = {
    "auto": "strategy=ddp, strategy=fsdp or strategy=pipeline",
    "ddp": None,
    "fsdp": None,
    "pipeline": None,
    "deepspeed_stage_2": None,
    "deepspeed_stage_3": "strategy=fsdp, which divides weights, gradients and optimizer state alike",
    "deepspeed_stage_2_offload": "devices=1 with strategy=deepspeed_stage_2_offload",
    "deepspeed_stage_3_offload": "devices=1 with strategy=deepspeed_stage_3_offload",
}
"""On two devices; None where it is planned."""
NEVER = {"deepspeed_stage_3"}
"""Not planned on one device either."""


@pytest.mark.parametrize("strategy", NEAREST)
@pytest.mark.parametrize(("devices", "nodes"), [(1, 1), (2, 1), (1, 2)])
def test_what_is_said_of_a_strategy(strategy, devices, nodes):
    nearest = NEAREST[strategy] if devices * nodes > 1 or strategy in NEVER else None
    said = f"devices={devices} with strategy={strategy} cannot be predicted; nearest: {nearest}."
    assert unplanned_strategy(strategy, devices, devices * nodes) == (said if nearest else None)


def test_every_strategy_of_the_schema_is_in_the_table():
    assert tuple(NEAREST) == key_choices("strategy")


@pytest.mark.parametrize("strategy", ["", "fspd", "deepspeed", "offload"])
def test_what_is_no_strategy_is_left_to_the_schema_which_knows_what_was_meant(strategy):
    assert unplanned_strategy(strategy, 1, 1) is None
    assert unplanned_strategy(strategy, 2, 2) is None


def test_a_config_is_asked_for_its_strategy():
    keys = {"capacity_gib": 1.0, "devices": 2, "precision": "bf16-true", "loss_average": "batches"}
    assert unplanned(RunConfig(**keys, strategy="fsdp", use_qlora=True)) is None
    assert NEAREST["deepspeed_stage_3"] in unplanned(RunConfig(**keys, strategy="deepspeed_stage_3"))
