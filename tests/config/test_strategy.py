"""What each value of ``strategy`` means, for every value that the schema allows."""

import dataclasses

import pytest

from labkit.config.schema import RunConfig, coerce, key_choices, keys
from labkit.config.strategy import OLD_NAMES, PLACEMENTS, Placement

FACTS = (
    "replicates", "shards", "splits_layers", "zero_stage", "offloads",
    "uses_zero", "offloads_weights", "divides_model", "ranks_differ", "takes_several_ranks",
)  # fmt: skip
MEANS = {
    "auto": (False, False, False, None, False, False, False, False, False, False),
    "ddp": (True, False, False, None, False, False, False, False, False, True),
    "fsdp": (False, True, False, None, False, False, False, True, False, True),
    "pipeline": (False, False, True, None, False, False, False, True, True, True),
    "deepspeed_stage_2": (False, False, False, 2, False, True, False, False, True, True),
    "deepspeed_stage_3": (False, False, False, 3, False, True, False, False, False, True),
    "deepspeed_stage_2_offload": (False, False, False, 2, True, True, False, False, True, True),
    "deepspeed_stage_3_offload": (False, False, False, 3, True, True, True, False, False, True),
}


def runs(strategy):
    """A run with this strategy, and what goes with it."""
    beside = {"loss_average": "batches", "precision": "bf16-true"} if "deepspeed" in strategy else {}
    beside |= {"optim": "deepspeed_cpu"} if "offload" in strategy else {}
    return RunConfig(capacity_gib=1.0, strategy=strategy, devices=1 if strategy == "auto" else 2, **beside)


def test_every_value_of_the_key_has_a_placement_and_no_other_has():
    assert tuple(MEANS) == key_choices("strategy") == tuple(PLACEMENTS)


@pytest.mark.parametrize("strategy", MEANS)
def test_what_a_strategy_means(strategy):
    placement = PLACEMENTS[strategy]
    assert tuple(getattr(placement, fact) for fact in FACTS) == MEANS[strategy]


def test_the_table_here_leaves_no_fact_out():
    fields = [field.name for field in dataclasses.fields(Placement)]
    derived = [name for name, value in vars(Placement).items() if isinstance(value, property)]
    assert tuple(fields + derived) == FACTS


@pytest.mark.parametrize("strategy", MEANS)
def test_the_placement_says_what_the_name_says(strategy):
    placement = PLACEMENTS[strategy]
    assert placement.uses_zero == strategy.startswith("deepspeed")
    assert placement.offloads == strategy.endswith("offload")
    assert placement.zero_stage == (int(strategy.split("_")[2]) if placement.uses_zero else None)
    ways = [placement.replicates, placement.shards, placement.splits_layers, placement.uses_zero]
    assert sum(ways) == (strategy != "auto")
    assert not placement.offloads or placement.uses_zero


@pytest.mark.parametrize("strategy", MEANS)
def test_a_config_keeps_the_name_and_gives_the_placement(strategy):
    config = runs(strategy)
    assert config.strategy == strategy == config.to_dict()["strategy"]
    assert config.placement is PLACEMENTS[strategy]
    assert config.shares == (1 if strategy == "pipeline" else config.world_size)
    assert tuple(config.to_dict()) == keys()  # nothing derived is in records or hashes


def test_two_placements_differ_and_none_can_be_changed():
    assert len(set(PLACEMENTS.values())) == len(PLACEMENTS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLACEMENTS["ddp"].shards = True


def test_the_old_name_of_pipeline_is_read_and_never_written():
    assert OLD_NAMES == {"layer_split": "pipeline"}
    assert coerce("strategy", "layer_split") == "pipeline"
    then, today = runs("layer_split"), runs("pipeline")
    assert then == today
    assert (then.hash, then.to_dict()["strategy"]) == (today.hash, "pipeline")
