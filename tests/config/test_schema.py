"""RunConfig: types, ranges, combinations, the hash, and the documentation of every key."""

import math
import typing

import pytest
from errors_of import error_of
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig, coerce, key_docs, key_type, keys

FIXED = settings(derandomize=True, deadline=None, database=None, max_examples=500)

HINTS = typing.get_type_hints(RunConfig)
NUMBERS = [key for key in keys() if HINTS[key] in (int, float, int | None, float | None)]

# Another value than the default for every key that this version runs, and what it needs beside it.
OTHER = {
    "model_name": "tiny/blip2-t5-small", "dataset": "gourmetgram_caption", "num_train_samples": 64,
    "val_fraction": 0.1, "max_length": 12, "num_workers": 0, "lr": 1e-3, "lr_schedule": "cosine",
    "warmup_steps": 3, "batch_size": 16, "accumulate_grad_batches": 4, "global_batch_size": 64,
    "loss_average": "batches", "precision": "bf16-true", "optim": "sgd", "optim_impl": "fused", "dropout": 0.0,
    "act_ckpt": True, "cudnn_attention": True, "max_epochs": 1, "max_steps": 7, "limit_train_batches": 5, "seed": 43,
    "freeze_vision": True, "freeze_connector": True, "freeze_language": True, "lora_r": 8, "lora_alpha": 16,
    "lora_dropout": 0.1, "lora_targets": ("q", "v"), "device": "simulated", "capacity_gib": 1.5, "report_every": 10,
    "enable_checkpointing": True, "save_every": 5, "keep_checkpoints": 3, "save_model": True,
    "weights": "random", "use_lora": True,
    "use_qlora": True, "double_quant": True, "strategy": "deepspeed_stage_2_offload", "lr_scaling": "linear",
    "devices": 2, "num_nodes": 2, "collective_timeout_s": 60.0, "compute_capability": 8.0,
}  # fmt: skip
NEEDS = {
    "device": {"capacity_gib": 1.0}, "save_every": {"enable_checkpointing": True}, "double_quant": {"use_qlora": True},
}  # fmt: skip
GO_TOGETHER = {
    "strategy": {"optim": "deepspeed_cpu", "loss_average": "batches"}, "devices": {"strategy": "ddp"},
    "num_nodes": {"strategy": "ddp"},
}  # fmt: skip
"""What another value needs beside it, and the default does not go with."""


def cuda(**values):
    return RunConfig(**{"device": "cuda", **values})


def has_type_of(key, value):
    """Whether ``value`` is what the annotation of ``key`` says; written without labkit's own reader."""
    kinds = typing.get_args(HINTS[key]) if type(None) in typing.get_args(HINTS[key]) else (HINTS[key],)
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            fits = value in typing.get_args(kind)
        elif typing.get_origin(kind) is tuple:
            fits = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        elif kind is float:
            fits = type(value) is float and math.isfinite(value)
        else:
            fits = type(value) is kind
        if fits:
            return True
    return False


def test_every_key_has_a_type_in_words_and_a_documentation_string():
    assert tuple(key_docs()) == keys() == tuple(HINTS)
    for key, text in key_docs().items():
        assert len(text) > 10, key
        assert text.endswith((".", ").")), key
        assert "\n" not in text
        assert key_type(key)


def test_the_keys_of_the_original_course_keep_their_names():
    original = {
        "model_name", "lr", "batch_size", "accumulate_grad_batches", "precision", "optim", "act_ckpt", "max_epochs",
        "max_steps", "devices", "strategy", "num_workers", "limit_train_batches", "enable_checkpointing",
        "num_train_samples", "save_model", "use_lora", "use_qlora", "lora_r", "lora_alpha", "lora_dropout",
    }  # fmt: skip
    assert len(original) == 21
    assert original <= set(keys())


# -- keys and types


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("batchsize", "batch_size"), ("learning_rate_schedule", "lr_schedule"), ("precison", "precision"), ("LR", None)],
)
def test_an_unknown_key_is_named_with_the_nearest(typo, meant):
    text = error_of(coerce, typo, "1")
    assert f"'{typo}'" in text
    assert meant is None or f"Did you mean '{meant}'?" in text


@pytest.mark.parametrize("key", ["a\nb", "a\u2028b", "\x1b[31m", ""])
def test_an_unknown_key_stays_on_one_line_whatever_it_holds(key):
    assert error_of(coerce, key, "1").isprintable()


@pytest.mark.parametrize(
    ("key", "typed", "read"),
    [
        ("lr", "5e-6", 5e-6), ("lr", 1, 1.0), ("batch_size", "16", 16), ("batch_size", 16.0, 16),
        ("batch_size", "1e2", 100), ("act_ckpt", "true", True), ("act_ckpt", "False", False), ("max_steps", "", None),
        ("max_steps", "null", None), ("max_steps", None, None), ("max_steps", "3", 3),
        ("precision", "bf16-true", "bf16-true"),
        ("lora_targets", "q,v", ("q", "v")), ("lora_targets", "[q, v]", ("q", "v")), ("lora_targets", ["q"], ("q",)),
        ("lora_targets", "", None), ("dataset", "my/folder", "my/folder"), ("dropout", "0", 0.0),
    ],
)  # fmt: skip
def test_text_and_yaml_values_are_read_in_the_type_of_the_key(key, typed, read):
    value = coerce(key, typed)
    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", "many"), ("batch_size", 1.5), ("batch_size", "1.5"), ("batch_size", True), ("batch_size", None),
        ("batch_size", ""), ("batch_size", [16]), ("batch_size", {"a": 1}), ("lr", "fast"), ("lr", False), ("lr", None),
        ("act_ckpt", 1), ("act_ckpt", "yes"), ("act_ckpt", None), ("model_name", 7), ("model_name", ""),
        ("dataset", None), ("lora_targets", 5), ("lora_targets", [1]), ("lora_targets", {"q": 1}),
        ("precision", "fp32"), ("precision", 32), ("precision", ["32-true"]), ("optim", None), ("optim", "AdamW"),
        ("device", "cpu"), ("lr_schedule", True), ("max_steps", "x"), ("max_steps", "1.5"), ("max_steps", 1.5),
        ("save_every", "0.5"), ("capacity_gib", "80GB"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_with_key_value_and_type(key, value):
    text = error_of(coerce, key, value)
    assert text.startswith(f"{key}={value!r} ")
    assert key_type(key) in text
    assert error_of(cuda, **{key: value}) == text


@pytest.mark.parametrize("key", ["dataset", "model_name", "lora_targets"])
@pytest.mark.parametrize("value", ["a\x1b[2J", "a\nb", "a\x00", "a\x9b31m", "a\ud800"])
def test_a_name_that_would_move_a_terminal_is_refused(key, value):
    with pytest.raises(ConfigError, match=f"^{key}=") as error:
        coerce(key, value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_finite(key, value):
    assert error_of(coerce, key, value).startswith(f"{key}=")


@pytest.mark.parametrize("key", ["batch_size", "lr", "max_steps"])
def test_a_number_beyond_every_float_is_refused(key):
    assert error_of(coerce, key, 10**400).startswith(f"{key}=")


@pytest.mark.parametrize("value", [2**53 + 1, str(2**53 + 1)])
def test_a_whole_number_keeps_all_its_digits(value):
    assert coerce("seed", value) == 2**53 + 1


def test_a_value_that_is_nearly_right_gets_a_hint():
    assert "Did you mean 'adam_8bit'?" in error_of(coerce, "optim", "adam8bit")
    assert "Did you mean 'bf16-mixed'?" in error_of(coerce, "precision", "bf16_mixed")


NUMERALS = st.floats().map(repr) | st.integers().map(str) | st.decimals(places=1, min_value=-9, max_value=9).map(str)
LISTS = st.from_regex(r"[\[(]?[a-z, ]{0,6}[\])]?", fullmatch=True)


@pytest.mark.slow
@FIXED
@given(key=st.sampled_from(keys()), text=st.text() | NUMERALS | LISTS)
def test_any_text_is_read_or_refused_on_one_line_with_the_key(key, text):
    check_read_or_refused(key, text)


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@FIXED
@given(key=st.sampled_from(keys()), value=YAML_VALUES)
def test_any_yaml_value_is_read_or_refused_on_one_line_with_the_key(key, value):
    check_read_or_refused(key, value)


def check_read_or_refused(key, given_value):
    try:
        value = coerce(key, given_value)
    except ConfigError as error:
        assert key in str(error)
        assert len(str(error).splitlines()) == 1
    else:
        assert has_type_of(key, value)
        assert coerce(key, value) == value


# -- ranges and combinations

AT_LEAST_ONE = [
    "num_train_samples", "max_length", "batch_size", "accumulate_grad_batches", "global_batch_size", "max_epochs",
    "max_steps", "limit_train_batches", "lora_r", "lora_alpha", "devices", "num_nodes", "report_every", "save_every",
    "keep_checkpoints",
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in AT_LEAST_ONE for value in (0, -1)]
    + [(key, -1) for key in ("num_workers", "warmup_steps", "seed")]
    + [(key, value) for key in ("lr", "capacity_gib", "collective_timeout_s") for value in (0, -0.5)]
    + [(key, value) for key in ("val_fraction", "dropout", "lora_dropout") for value in (-0.1, 1, 1.5)],
)
def test_a_value_out_of_range_is_refused(key, value):
    text = error_of(cuda, **{key: value, "enable_checkpointing": True})
    assert text.startswith(f"{key}={value}")


@pytest.mark.parametrize("key", [key for key in NUMBERS if type(getattr(RunConfig, key)) is int or key in AT_LEAST_ONE])
@pytest.mark.parametrize("value", ["1e99", 10**19])
def test_every_count_has_an_upper_limit(key, value):
    text = error_of(cuda, **{key: value, "enable_checkpointing": True})
    assert text.startswith(f"{key}=1e+{99 if value == '1e99' else 19} is not valid: {key} must be at most ") or (
        key == "seed" and "2**32" in text
    )


@pytest.mark.parametrize(
    ("key", "most"),
    [("num_workers", 1024), ("devices", 100_000), ("num_nodes", 100_000), ("max_length", 10**6), ("lora_r", 2**16),
     ("batch_size", 10**9), ("collective_timeout_s", 10**8), ("max_steps", 10**18)],
)  # fmt: skip
def test_what_costs_as_much_as_it_counts_has_a_limit_of_its_own(key, most):
    with_strategy = {"strategy": "ddp"} if key in ("devices", "num_nodes") else {}
    cuda(**{key: most}, **with_strategy)
    assert f"{key} must be at most {most:,}" in error_of(cuda, **{key: most + 1}, **with_strategy)


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_a_lower_limit(key):
    assert f"{key}=-7" in error_of(cuda, **{key: -7})


def test_a_seed_fits_the_generators_that_take_it():
    assert cuda(seed=2**32 - 1).seed == 2**32 - 1
    assert f"seed={2**32}" in error_of(cuda, seed=2**32)


OFFLOAD = {"strategy": "deepspeed_stage_2_offload", "optim": "deepspeed_cpu", "loss_average": "batches"}
FROZEN = {"freeze_vision": True, "freeze_connector": True, "freeze_language": True}


@pytest.mark.parametrize(
    ("values", "one", "other"),
    [
        ({"optim": "deepspeed_cpu"}, "optim", "strategy"),
        ({"strategy": "deepspeed_stage_2_offload"}, "optim", "strategy"),
        ({"strategy": "deepspeed_stage_3_offload", "optim": "adam_8bit"}, "optim", "strategy"),
        (OFFLOAD | {"loss_average": "tokens"}, "loss_average", "strategy"),
        (OFFLOAD | {"device": "simulated", "capacity_gib": 1}, "precision", "strategy"),
        (OFFLOAD | {"optim_impl": "fused"}, "optim_impl", "optim"),
        ({"use_lora": True, "use_qlora": True}, "use_lora", "use_qlora"),
        ({"double_quant": True}, "double_quant", "use_qlora"),
        ({"double_quant": True, "use_lora": True}, "double_quant", "use_qlora"),
        ({"freeze_language": True, "use_lora": True}, "freeze_language", "lora_targets"),
        ({"freeze_language": True, "use_qlora": True}, "freeze_language", "lora_targets"),
        ({"precision": "16-true", "optim": "sgd", "device": "simulated", "capacity_gib": 1}, "precision", "device"),
        ({"precision": "16-mixed", "device": "simulated", "capacity_gib": 1}, "precision", "device"),
        ({"precision": "16-true"}, "precision", "optim"),
        ({"optim_impl": "fused", "optim": "adam_8bit"}, "optim_impl", "optim"),
        ({"device": "simulated"}, "capacity_gib", "device"),
        ({"save_every": 5}, "save_every", "enable_checkpointing"),
        (FROZEN, "freeze_language", "freeze_vision"),
        ({"global_batch_size": 50, "batch_size": 16}, "global_batch_size", "batch_size"),
        ({"global_batch_size": 50, "batch_size": 16, "strategy": "ddp", "devices": 4}, "global_batch_size", "devices"),
        ({"global_batch_size": 48, "batch_size": 16, "strategy": "ddp", "devices": 2}, "global_batch_size",
         "batch_size"),
        ({"devices": 2}, "devices", "strategy"),
        ({"num_nodes": 2}, "num_nodes", "strategy"),
        ({"strategy": "fsdp"}, "strategy", "devices"),
        ({"strategy": "pipeline"}, "strategy", "devices"),
        ({"strategy": "fsdp", "devices": 2, "optim": "adam_8bit"}, "optim", "strategy"),
        *(({"strategy": "pipeline", "devices": 2, key: value}, key, "strategy") for key, value in (
            ("precision", "16-mixed"), ("val_fraction", 0.1), ("save_model", True),
        )),
        ({"strategy": "pipeline", "devices": 3, "batch_size": 2}, "batch_size", "devices"),
    ],
)  # fmt: skip
def test_an_impossible_combination_names_both_keys_with_their_values(values, one, other):
    default = cuda()
    text = error_of(cuda, **values)
    for key in (one, other):
        assert f"{key}={values.get(key, getattr(default, key))}" in text


@pytest.mark.parametrize(
    "values",
    [
        {"precision": "16-mixed"}, {"precision": "16-true", "optim": "sgd"}, {"optim": "adam_8bit"},
        {"optim": "adam_8bit", "optim_impl": "for-loop"}, {"optim_impl": "fused"},
        {"save_every": 1, "enable_checkpointing": True}, OFFLOAD, OFFLOAD | {"strategy": "deepspeed_stage_3_offload"},
        OFFLOAD | {"device": "simulated", "capacity_gib": 0.1, "precision": "bf16-true"}, OFFLOAD | {"use_lora": True},
        {"use_lora": True}, {"use_qlora": True, "double_quant": True},
        FROZEN | {"use_lora": True, "lora_targets": ("q",)},
        {"device": "simulated", "capacity_gib": 0.1}, {"freeze_vision": True, "freeze_connector": True},
        {"freeze_vision": True, "freeze_language": True}, {"freeze_connector": True, "freeze_language": True},
        {"strategy": "ddp"}, {"strategy": "ddp", "devices": 2, "use_qlora": True},
        {"strategy": "fsdp", "devices": 2, "use_qlora": True}, {"strategy": "fsdp", "num_nodes": 2},
        {"strategy": "ddp", "devices": 2, "optim": "adam_8bit"},
        *({"strategy": "pipeline", "devices": 2} | keys for keys in (
            {"use_lora": True, "save_model": True}, {"use_qlora": True, "save_model": True},
            {"freeze_vision": True, "freeze_connector": True}, {"freeze_language": True},
        )),
    ],
)  # fmt: skip
def test_a_combination_that_works_is_taken(values):
    config = cuda(**values)
    assert {key: getattr(config, key) for key in values} == values


def test_global_batch_size_sets_the_accumulation():
    config = cuda(batch_size=16, global_batch_size=64)
    assert config.accumulate_grad_batches == 4
    assert cuda(batch_size=16, global_batch_size=16).accumulate_grad_batches == 1


@pytest.mark.parametrize(
    ("devices", "batch_size", "global_batch_size", "found"),
    [(4, 16, 64, (16, 1)), (2, 16, 64, (16, 2)), (4, 16, 32, (8, 1)), (2, 3, 12, (3, 2)), (1, 16, 8, (8, 1))],
)
def test_the_global_batch_is_divided_among_devices_and_micro_batches(devices, batch_size, global_batch_size, found):
    strategy = "auto" if devices == 1 else "ddp"
    config = cuda(devices=devices, strategy=strategy, batch_size=batch_size, global_batch_size=global_batch_size)
    assert (config.batch_size, config.accumulate_grad_batches) == found
    assert RunConfig(**config.to_dict()) == config


@pytest.mark.parametrize(("rule", "scaled"), [("none", 1e-3), ("linear", 4e-3), ("sqrt", 2e-3)])
def test_the_learning_rate_follows_the_number_of_devices_as_one_says(rule, scaled):
    config = cuda(lr=1e-3, lr_scaling=rule, strategy="ddp", devices=2, num_nodes=2)
    assert config.scaled_lr == pytest.approx(scaled)
    assert cuda(lr=1e-3, lr_scaling=rule).scaled_lr == 1e-3


def test_a_batch_that_cannot_be_is_named_before_it_divides_anything():
    assert error_of(cuda, batch_size=0, global_batch_size=4).startswith("batch_size=0 ")


@pytest.mark.parametrize(("capacity_gib", "capacity_bytes"), [(None, None), (1, 2**30), (0.5, 2**29)])
def test_capacity_in_bytes(capacity_gib, capacity_bytes):
    assert cuda(capacity_gib=capacity_gib).capacity_bytes == capacity_bytes


# -- the hash

PRINTABLE = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1)
CONFIGS = st.fixed_dictionaries(
    {"device": st.just("cuda"), "enable_checkpointing": st.just(True), "batch_size": st.integers(1, 4)},
    optional={
        "model_name": PRINTABLE.filter(lambda s: s not in ("null", "none", "None")),
        "num_train_samples": st.none() | st.integers(1, 10**18),
        "lr": st.floats(min_value=0, exclude_min=True, max_value=1e99),
        "precision": st.sampled_from(["32-true", "bf16-true", "16-mixed"]),
        "optim": st.sampled_from(["adamw", "sgd", "adam_8bit"]),
        "dropout": st.none() | st.floats(-0.0, 0.5),
        "save_every": st.none() | st.integers(1, 3),
        "lora_targets": st.none() | st.lists(PRINTABLE, max_size=3),
        "global_batch_size": st.none() | st.sampled_from([12, 24]),
    },
).map(lambda values: RunConfig(**values))


@pytest.mark.slow
@FIXED
@given(CONFIGS)
def test_a_config_survives_the_way_through_a_dictionary(config):
    again = RunConfig(**config.to_dict())
    assert again == config
    assert again.hash == config.hash
    assert again.to_dict() == config.to_dict()


@pytest.mark.slow
@FIXED
@given(CONFIGS, CONFIGS)
def test_configs_are_equal_exactly_if_their_hashes_are(one, other):
    assert (one == other) == (one.hash == other.hash)


@pytest.mark.parametrize("key", OTHER)
def test_another_value_gives_another_hash(key):
    default = cuda(**NEEDS.get(key, {}))
    assert OTHER[key] != getattr(default, key)
    assert cuda(**NEEDS.get(key, {}), **GO_TOGETHER.get(key, {}), **{key: OTHER[key]}).hash != default.hash


def test_the_table_of_other_values_has_every_key():
    assert set(OTHER) == set(keys())


@pytest.mark.parametrize(
    ("key", "spellings"),
    [("lr", ["5e-6", 5e-6, "0.000005"]), ("batch_size", [16, 16.0, "16"]), ("val_fraction", [0, 0.0, -0.0, "-0"]),
     ("act_ckpt", [True, "true", "True"]), ("lora_targets", ["q,v", ["q", "v"], ("q", "v"), "[q, v]"]),
     ("max_steps", [None, "", "null"]), ("lora_targets", [None, "", "[]", []])],
)  # fmt: skip
def test_one_value_in_several_spellings_has_one_hash(key, spellings):
    assert len({cuda(**{key: spelling}).hash for spelling in spellings}) == 1


def test_a_hash_is_twelve_hexadecimal_digits():
    assert len(cuda().hash) == 12
    assert set(cuda().hash) <= set("0123456789abcdef")


def test_a_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        cuda().batch_size = 3
