"""What each value of ``precision`` means, for every value that the schema allows."""

import dataclasses

import pytest

from labkit.config.precision import DTYPES, Dtypes
from labkit.config.schema import RunConfig, key_choices, keys

FACTS = (
    "weights", "compute", "mixed", "autocast", "full", "bf16", "half", "weights_in_16_bits", "weight_bytes",
    "loss_scaled",
)  # fmt: skip
MEANS = {
    "32-true": ("float32", "float32", False, None, True, False, False, False, 4, False),
    "bf16-true": ("bfloat16", "bfloat16", False, None, False, True, False, True, 2, False),
    "bf16-mixed": ("float32", "bfloat16", True, "bfloat16", False, True, False, False, 4, False),
    "16-mixed": ("float32", "float16", True, "float16", False, False, True, False, 4, True),
    "16-true": ("float16", "float16", False, None, False, False, True, True, 2, False),
}


def test_every_value_of_the_key_has_its_dtypes_and_no_other_has():
    assert tuple(MEANS) == key_choices("precision") == tuple(DTYPES)


@pytest.mark.parametrize("precision", MEANS)
def test_what_a_precision_means(precision):
    dtypes = DTYPES[precision]
    assert tuple(getattr(dtypes, fact) for fact in FACTS) == MEANS[precision]


def test_the_table_here_leaves_no_fact_out():
    fields = [field.name for field in dataclasses.fields(Dtypes)]
    derived = [name for name, value in vars(Dtypes).items() if isinstance(value, property)]
    assert tuple(fields + derived) == FACTS


@pytest.mark.parametrize("precision", MEANS)
def test_the_dtypes_say_what_the_name_says(precision):
    dtypes = DTYPES[precision]
    number, kind = precision.split("-")
    assert dtypes.compute == {"32": "float32", "bf16": "bfloat16", "16": "float16"}[number]
    assert dtypes.mixed == (kind == "mixed")
    assert dtypes.weights == (dtypes.compute if kind == "true" else "float32")
    assert [dtypes.full, dtypes.bf16, dtypes.half] == [number == one for one in ("32", "bf16", "16")]


@pytest.mark.parametrize("precision", MEANS)
def test_a_config_keeps_the_name_and_gives_the_dtypes(precision):
    config = RunConfig(device="cuda", optim="sgd", precision=precision)
    assert config.precision == precision == config.to_dict()["precision"]
    assert config.dtypes is DTYPES[precision]
    assert tuple(config.to_dict()) == keys()  # nothing derived is in records or hashes


def test_two_precisions_differ_and_none_can_be_changed():
    assert len(set(DTYPES.values())) == len(DTYPES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DTYPES["32-true"].weights = "float16"
