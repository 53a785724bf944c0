"""Layers: which value wins, where it came from, and what a broken experiment file says."""

from pathlib import Path

import pytest
import yaml
from errors_of import error_of
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.config.errors import ConfigError
from labkit.config.layers import BASE, course, load_experiment, resolve
from labkit.config.profiles import Expected, load_profile
from labkit.config.schema import RunConfig, keys
from labkit.config.workspace import Workspace
from labkit.config.yaml_files import read_yaml

WORKSPACE = Workspace(Path(__file__).parents[2] / "workspace")
CONFIGS = sorted(path.stem for path in WORKSPACE.configs.glob("*.yaml"))
PROFILES = sorted(path.stem for path in WORKSPACE.profiles.glob("*.yaml"))
BESIDE_THE_COURSE = {"food_lora"}
"""Experiments that are in no table of the source."""
WITHOUT_ANOTHER = {BASE, "food_lora"}
"""Experiments that are compared with none; the second is on the small base that ships with labkit."""
SEVERAL_GPUS = {
    *(f"multi_{name}" for name in ("single", "ddp", "fsdp")),
    *(f"six_{name}" for name in ("lora", "qlora", "lora_ddp", "full", "full_split", "full_fsdp")),
}
"""Experiments on one to four GPUs, beside the course: the multi-GPU lab's, and six approaches that are compared."""
DIFFERENCES = [name for name in CONFIGS if name != BASE]
ABOUT = {"base", "number", "compare_with", "lesson"}

OPT_27B, OPT_67B, XXL = (f"Salesforce/blip2-{size}" for size in ("opt-2.7b", "opt-6.7b", "flan-t5-xxl"))
# The course as its source has it: name, model, batch size and accumulation on the H100 and on the A100, precision,
# optimizer, activation checkpointing, learning rate, how it ends.
COURSE = [
    ("baseline", OPT_27B, (64, 1), (32, 1), "32-true", "adamw", False, 5e-6, "oom"),
    ("reduced_batch", OPT_27B, (16, 1), (16, 1), "32-true", "adamw", False, 5e-6, "ok"),
    ("grad_accumulation", OPT_27B, (16, 4), (16, 4), "32-true", "adamw", False, 5e-6, "ok"),
    ("grad_accumulation_lr4x", OPT_27B, (16, 4), (16, 4), "32-true", "adamw", False, 2e-5, "ok"),
    ("bf16_true", OPT_27B, (16, 4), (16, 4), "bf16-true", "adamw", False, 2e-5, "ok"),
    ("bf16_mixed", OPT_27B, (16, 4), (16, 4), "bf16-mixed", "adamw", False, 2e-5, "ok"),
    ("larger_model", OPT_67B, (32, 2), (16, 4), "bf16-true", "adamw", False, 2e-5, "ok"),
    ("xxl", XXL, (32, 2), (16, 4), "bf16-true", "adamw", False, 2e-5, "oom"),
    ("xxl_smallest_batch", XXL, (1, 1), (1, 1), "bf16-true", "adamw", False, 2e-5, "oom"),
    ("xxl_sgd", XXL, (32, 2), (16, 4), "bf16-true", "sgd", False, 2e-5, "ok"),
    ("xxl_adam8bit", XXL, (2, 2), (2, 2), "bf16-true", "adam_8bit", False, 2e-5, "ok"),
    ("xxl_checkpointing", XXL, (2, 2), (2, 2), "bf16-true", "adam_8bit", True, 2e-5, "ok"),
    ("xxl_cpu_offload", XXL, (32, 2), (16, 4), "bf16-true", "deepspeed_cpu", False, 2e-5, "ok"),
    ("xxl_lora", XXL, (32, 2), (32, 2), "32-true", "adamw", False, 5e-6, "ok"),
    ("xxl_qlora", XXL, (64, 1), (64, 1), "32-true", "adamw", True, 5e-6, "ok"),
]
NAMES = [row[0] for row in COURSE]
NEED_LESS_ON_A100 = {
    "reduced_batch": (4, 1), "xxl_lora": (16, 4),
    **dict.fromkeys(
        ("grad_accumulation", "grad_accumulation_lr4x", "bf16_true", "bf16_mixed", "larger_model"), (4, 16)
    ),
}  # fmt: skip
"""Batch size and accumulation where 80 GB do not hold the source's; the profile says why."""


# -- the course


def test_the_course_has_fifteen_experiments_in_the_order_of_the_source():
    found = course(WORKSPACE)
    assert [e.name for e in found][:15] == NAMES
    assert [e.number for e in found][:15] == list(range(1, 16))
    assert sorted(e.name for e in found) == CONFIGS
    assert {e.name for e in found[15:]} == BESIDE_THE_COURSE | SEVERAL_GPUS
    assert len({e.number for e in found}) == len(found)
    for profile in PROFILES:
        assert list(load_profile(WORKSPACE, profile).expected) == NAMES


@pytest.mark.parametrize(("profile", "column"), [("h100-94gb", 2), ("a100-80gb", 3)], ids=["h100-94gb", "a100-80gb"])
@pytest.mark.parametrize("row", COURSE, ids=[row[0] for row in COURSE])
def test_the_values_are_those_of_the_source(row, profile, column):
    name, model, _, _, precision, optim, act_ckpt, lr, status = row
    resolved = resolve(WORKSPACE, name, profile_name=profile)
    config = resolved.config
    batches = NEED_LESS_ON_A100.get(name, row[column]) if profile == "a100-80gb" else row[column]
    assert (config.batch_size, config.accumulate_grad_batches) == batches
    assert (config.model_name, config.precision, config.optim) == (model, precision, optim)
    assert (config.act_ckpt, config.lr) == (act_ckpt, lr)
    assert (config.num_train_samples, config.max_epochs, config.max_length) == (512, 2, 50)
    offload = name == "xxl_cpu_offload"
    assert (config.devices, config.num_workers, config.enable_checkpointing) == (1, 0 if offload else 8, False)
    assert config.strategy == ("deepspeed_stage_2_offload" if offload else "auto")
    assert (config.max_steps, config.global_batch_size) == (2 if offload else None, None)
    assert (config.use_lora, config.use_qlora) == (name == "xxl_lora", name == "xxl_qlora")
    assert (config.lora_r, config.lora_alpha, config.lora_dropout, config.lora_targets) == (16, 32, 0.05, None)
    assert (config.weights, config.dataset) == ("pretrained", "gourmetgram_caption")
    assert resolved.expected.status == status


@pytest.mark.parametrize("name", CONFIGS)
def test_the_profile_of_the_h100_only_describes_the_machine(name):
    origins = resolve(WORKSPACE, name, profile_name="h100-94gb").origins
    changed = {key for key, origin in origins.items() if origin.startswith("profile")}
    machine = {"device", "capacity_gib", "compute_capability"}
    assert changed == machine | ({"num_workers"} if name == "xxl_cpu_offload" else set())


OTHER_ON_TINY = {"xxl_lora": (8, 8), "xxl_qlora": (32, 2)}
"""Batch size and accumulation where they are not the source's for the A100; the profile says why."""


@pytest.mark.parametrize("name", CONFIGS)
def test_tiny_has_the_batch_sizes_of_the_a100(name):
    a100, tiny = (resolve(WORKSPACE, name, profile_name=profile).config for profile in ("a100-80gb", "tiny"))
    for key in ("precision", "optim", "act_ckpt", "use_lora", "use_qlora", "strategy"):
        assert getattr(tiny, key) == getattr(a100, key), key
    source = {row[0]: row[3] for row in COURSE}.get(name, (a100.batch_size, a100.accumulate_grad_batches))
    assert (tiny.batch_size, tiny.accumulate_grad_batches) == OTHER_ON_TINY.get(name, source)
    assert tiny.batch_size * tiny.accumulate_grad_batches == source[0] * source[1]


@pytest.mark.parametrize("name", NAMES)
def test_on_tiny_stand_ins_take_the_place_of_models_and_data(name):
    resolved = resolve(WORKSPACE, name)
    assert resolved.config.weights == "random"
    assert resolved.origins["weights"] == "profile tiny, goes with a stand-in"
    assert (resolved.config.max_length, resolved.origins["max_length"]) == (12, "profile tiny, goes with a stand-in")
    assert resolved.config.dataset == "fluent_emoji"
    assert resolved.origins["dataset"] == "profile tiny, stands in for gourmetgram_caption"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_experiment_resolves_on_every_profile(name, profile):
    resolved = resolve(WORKSPACE, name, profile_name=profile)
    assert resolved.experiment.name == name
    assert resolved.profile.name == profile
    assert tuple(resolved.origins) == keys()
    assert resolved.skip_reason is None
    assert isinstance(resolved.expected, Expected) == (name in NAMES)


def test_no_two_experiments_of_the_course_are_the_same_run():
    hashes = [resolve(WORKSPACE, name).config.hash for name in CONFIGS]
    assert len(set(hashes)) == len(CONFIGS)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_an_experiment_restates_nothing_of_the_baseline(name):
    baseline, values = load_experiment(WORKSPACE, BASE).values, load_experiment(WORKSPACE, name).values
    assert values
    assert [key for key, value in values.items() if baseline.get(key, getattr(RunConfig, key)) == value] == []


@pytest.mark.parametrize("name", DIFFERENCES)
def test_an_experiment_is_its_difference_to_the_baseline(name):
    plain = {"profile_name": "h100-94gb"}
    one = resolve(WORKSPACE, name, **plain).config.to_dict()
    base = resolve(WORKSPACE, BASE, **plain).config.to_dict()
    values = load_experiment(WORKSPACE, name).values
    as_plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    if name == "xxl_cpu_offload":
        as_plain["num_workers"] = 0  # the profile's: host memory is full
    assert {key: one[key] for key in one if one[key] != base[key]} == as_plain


@pytest.mark.parametrize("name", CONFIGS)
def test_an_experiment_says_what_it_shows_and_against_what(name):
    numbers = {e.name: e.number for e in course(WORKSPACE)}
    experiment = load_experiment(WORKSPACE, name)
    assert experiment.lesson.endswith(".")
    if name in WITHOUT_ANOTHER:
        assert experiment.compare_with is None
    else:
        assert numbers[experiment.compare_with] < experiment.number


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_of_the_course_starts_with_its_base_and_place(name):
    data = yaml.safe_load((WORKSPACE.configs / f"{name}.yaml").read_text())
    about = [key for key in data if key in ABOUT]
    expected = ["base", "number", "compare_with", "lesson"]
    for key in [*(["base"] if name == BASE else []), *(["compare_with"] if name in WITHOUT_ANOTHER else [])]:
        expected.remove(key)
    assert about == expected
    assert list(data)[: len(about)] == about


@pytest.mark.parametrize("name", sorted(SEVERAL_GPUS))
def test_what_has_four_gpus_has_two_on_tiny(name):
    several = "devices" in load_experiment(WORKSPACE, name).values
    for profile, devices in (("h100-94gb", 4), ("a100-80gb", 4), ("tiny", 2)):
        config = resolve(WORKSPACE, name, profile_name=profile).config
        assert config.devices == (devices if several else 1)
        assert (config.strategy == "auto") == (config.devices == 1)


# -- which layer wins


def write(workspace, name, **data):
    folder = workspace.profiles if name.startswith("machine") else workspace.configs
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(data))


LAYERS = ["baseline", "experiment trial", "profile machine", "profile machine, trial", "command line"]


@pytest.mark.parametrize("depth", range(1, 6))
def test_a_later_layer_wins_and_is_named_as_the_origin(scratch, depth):
    on = [{"max_epochs": 10 + n} if n < depth else {} for n in range(5)]
    write(scratch, BASE, **on[0])
    write(scratch, "trial", base=BASE, **on[1])
    write(scratch, "machine", values={"device": "cuda", **on[2]}, experiments={"trial": on[3]})
    resolved = resolve(scratch, "trial", on[4], "machine")
    assert resolved.config.max_epochs == 9 + depth
    assert resolved.origins["max_epochs"] == LAYERS[depth - 1]


def test_a_key_that_no_layer_sets_comes_from_the_default(scratch):
    write(scratch, "machine", values={"device": "cuda"})
    resolved = resolve(scratch, "reduced_batch", profile_name="machine")
    assert resolved.origins["report_every"] == "default"
    assert resolved.config.report_every == RunConfig.report_every
    assert resolved.origins["batch_size"] == "experiment reduced_batch"
    assert resolved.origins["max_epochs"] == "baseline"


def test_a_value_for_one_experiment_leaves_the_others_alone(scratch):
    write(scratch, "machine", values={"device": "cuda"}, experiments={"xxl": {"batch_size": 3}})
    assert resolve(scratch, "xxl", profile_name="machine").config.batch_size == 3
    assert resolve(scratch, "larger_model", profile_name="machine").config.batch_size == 32


def test_text_from_a_command_line_is_read_in_the_type_of_its_key():
    config = resolve(WORKSPACE, "reduced_batch", {"max_steps": "3", "act_ckpt": "true", "lr": "1e-3"}).config
    assert (config.max_steps, config.act_ckpt, config.lr) == (3, True, 1e-3)


def test_a_stand_in_takes_the_place_of_the_model_and_says_so():
    resolved = resolve(WORKSPACE, "xxl")
    assert resolved.config.model_name == "tiny/blip2-t5-large"
    assert resolved.origins["model_name"] == f"profile tiny, stands in for {XXL}"


def test_a_typed_model_gets_its_stand_in_too_and_a_typed_stand_in_is_taken():
    assert resolve(WORKSPACE, "reduced_batch", {"model_name": XXL}).config.model_name == "tiny/blip2-t5-large"
    resolved = resolve(WORKSPACE, "reduced_batch", {"model_name": "tiny/blip2-t5-small"})
    assert resolved.config.model_name == "tiny/blip2-t5-small"
    assert resolved.origins["model_name"] == "command line"


def test_a_cap_cuts_a_value_that_no_one_typed_and_says_what_it_was():
    resolved = resolve(WORKSPACE, "reduced_batch")
    assert resolved.config.num_train_samples == 128
    assert resolved.origins["num_train_samples"] == "profile tiny, cap (was 512)"


def test_a_cap_cuts_a_value_without_limit(scratch):
    write(scratch, "machine", values={"device": "cuda"}, caps={"max_steps": 20})
    resolved = resolve(scratch, "reduced_batch", profile_name="machine")
    assert resolved.config.max_steps == 20
    assert resolved.origins["max_steps"] == "profile machine, cap (was no limit)"


def test_a_cap_leaves_smaller_values_alone(scratch):
    write(scratch, "machine", values={"device": "cuda"}, caps={"max_epochs": 2, "max_steps": 20},
          experiments={"reduced_batch": {"max_steps": 5}})  # fmt: skip
    resolved = resolve(scratch, "reduced_batch", profile_name="machine")
    assert (resolved.config.max_epochs, resolved.origins["max_epochs"]) == (2, "baseline")
    assert (resolved.config.max_steps, resolved.origins["max_steps"]) == (5, "profile machine, reduced_batch")


@pytest.mark.parametrize(("typed", "value"), [("300", 300), ("", None)])
def test_a_typed_value_is_never_capped(typed, value):
    resolved = resolve(WORKSPACE, "reduced_batch", {"num_train_samples": typed})
    assert resolved.config.num_train_samples == value
    assert resolved.origins["num_train_samples"] == "command line"


@pytest.mark.parametrize(("name", "lr"), [("reduced_batch", 5e-4), ("bf16_true", 2e-3)])
def test_the_learning_rate_of_a_file_is_multiplied_exactly_once(name, lr):
    resolved = resolve(WORKSPACE, name)
    assert resolved.config.lr == lr
    assert resolved.origins["lr"] == f"profile tiny, 100 x {lr / 100:g}"


def test_only_a_stand_in_is_random_and_takes_larger_steps():
    resolved = resolve(WORKSPACE, "reduced_batch", {"model_name": "tiny/blip2-opt-base"})
    assert (resolved.config.weights, resolved.origins["weights"]) == ("pretrained", "default")
    assert (resolved.config.lr, resolved.config.max_length) == (5e-6, 50)
    text = error_of(resolve, WORKSPACE, "reduced_batch", {"weights": "pretrained"})
    assert "weights=pretrained" in text
    assert "model_name=tiny/blip2-opt-small" in text


def test_a_typed_learning_rate_is_never_multiplied():
    resolved = resolve(WORKSPACE, "reduced_batch", {"lr": "5e-6"})
    assert resolved.config.lr == 5e-6
    assert resolved.origins["lr"] == "command line"


def test_nothing_is_expected_of_a_run_in_which_something_was_typed():
    assert resolve(WORKSPACE, BASE).expected == Expected(status="oom", step=1, phase="forward")
    assert resolve(WORKSPACE, BASE, {}).expected is not None
    assert resolve(WORKSPACE, BASE, {"batch_size": 2}).expected is None


def test_nothing_is_expected_of_an_experiment_that_the_profile_does_not_name(scratch):
    write(scratch, "trial", base=BASE, batch_size=4)
    assert resolve(scratch, "trial").expected is None


def test_the_profile_says_what_cannot_run_and_why(scratch):
    write(scratch, "machine", values={"device": "cuda"}, skip={"xxl": "too large"})
    assert resolve(scratch, "xxl", profile_name="machine").skip_reason == "too large"
    assert resolve(scratch, "larger_model", profile_name="machine").skip_reason is None


def test_accumulation_says_when_it_comes_from_the_global_batch_size():
    resolved = resolve(WORKSPACE, "reduced_batch", {"global_batch_size": 32})
    assert resolved.config.accumulate_grad_batches == 2
    assert resolved.origins["accumulate_grad_batches"] == "from global_batch_size"


def test_typing_both_accumulation_and_another_global_batch_size_is_refused():
    text = error_of(resolve, WORKSPACE, "reduced_batch", {"global_batch_size": 32, "accumulate_grad_batches": 8})
    assert "global_batch_size=32" in text
    assert "accumulate_grad_batches=8" in text


def test_resolving_leaves_no_trace(scratch):
    before = sorted(scratch.root.rglob("*"))
    one, other = resolve(scratch, "xxl"), resolve(scratch, "xxl")
    assert one == other
    assert load_profile(scratch, "tiny") == one.profile
    assert sorted(scratch.root.rglob("*")) == before


# -- what cannot be resolved


@pytest.mark.parametrize(
    ("name", "overrides", "parts"),
    [
        ("bf16_tru", {}, ["'bf16_tru'", "Did you mean 'bf16_true'?"]),
        ("xxl", {"batchsize": "1"}, ["'batchsize'", "Did you mean 'batch_size'?"]),
        ("xxl", {"batch_size": "0"}, ["batch_size=0"]),
        ("xxl", {"batch_size": "x"}, ["batch_size='x'"]),
        ("xxl", {"model_name": "blip2-opt-2.7b"}, ["model_name='blip2-opt-2.7b'", f"Did you mean '{OPT_27B}'?"]),
        ("xxl", {"precision": "16-mixed"}, ["precision=16-mixed", "device=simulated"]),
        ("xxl", {"capacity_gib": ""}, ["capacity_gib=None", "device=simulated"]),
        ("nowhere.yaml", {}, ["nowhere.yaml"]),
        ("", {}, ["''"]),
    ],
)  # fmt: skip
def test_what_cannot_be_resolved_is_said_with_the_nearest_name(name, overrides, parts):
    text = error_of(resolve, WORKSPACE, name, overrides)
    for part in parts:
        assert part in text


def test_an_unknown_model_in_a_file_is_named(scratch):
    write(scratch, "trial", base=BASE, model_name="blip3")
    text = error_of(resolve, scratch, "trial")
    assert "model_name='blip3'" in text


# -- experiment files


def test_an_experiment_can_be_a_file_anywhere(scratch, tmp_path):
    path = tmp_path / "elsewhere" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("base: baseline\nbatch_size: 3\n")
    resolved = resolve(scratch, str(path))
    assert resolved.experiment.name == "mine"
    assert resolved.config.batch_size == 3
    assert resolved.origins["batch_size"] == "experiment mine"
    assert load_experiment(scratch, "configs/xxl.yaml").name == "xxl"


def test_an_experiment_without_a_number_comes_last(scratch):
    for name in ("b_trial", "a_trial"):
        write(scratch, name, base=BASE, batch_size=4)
    assert [(e.number, e.name) for e in course(scratch)[-2:]] == [(None, "a_trial"), (None, "b_trial")]


BROKEN = {
    "empty": (b"", "key: value"),
    "only a comment": (b"# nothing\n", "key: value"),
    "a list": (b"- base: baseline\n", "key: value"),
    "text": (b"batch size is four\n", "key: value"),
    "a key that is not text": (b"base: baseline\n3: 4\n", "key: value"),
    "not YAML": (b"base: [baseline\n", "line 2"),
    "a tab": (b"base: baseline\n\tlr: 3\n", "line 2"),
    "latin-1": ("base: baseline\nlesson: caf\u00e9\n".encode("latin-1"), "not a text file"),
    "binary": (bytes(range(256)), "not"),
    "control characters": (b"base: baseline\nlesson: \x00\x01\n", "not YAML"),
    "a Python object": (b"base: !!python/object/apply:os.getcwd []\n", "not YAML"),
    "a date that is none": (b"base: baseline\nlesson: 2024-13-45\n", "not YAML"),
    "a number that is none": (b"base: baseline\nbatch_size: 0x_\n", "not YAML"),
    "a number of 5000 digits": (b"base: baseline\nbatch_size: " + b"1" * 5000 + b"\n", "not YAML"),
    "a number of 400 digits": (b"base: baseline\nbatch_size: " + b"1" * 400 + b"\n", "batch_size="),
    "a number of 5000 digits in another base": (b"base: baseline\nbatch_size: 0x" + b"f" * 5000 + b"\n", "line 2"),
    "a key twice": (b"base: baseline\nbatch_size: 4\nbatch_size: 8\n", "'batch_size' is there twice"),
    "a key twice further down": (b"base: baseline\nlr: {a: 1, a: 2}\n", "'a' is there twice"),
    "an alias": (b"base: baseline\nlr: &a [1]\nbatch_size: *a\n", "alias *a"),
    "nested deeply": (b"base: " + b"[" * 10**4, "nested too deeply"),
    "a book": (b"# " + b"long " * 10**6, "KiB"),
    "unknown key": (b"base: baseline\nbatch_sise: 4\n", "Did you mean 'batch_size'?"),
    "unknown key about it": (b"base: baseline\ncompare_width: xxl\n", "Did you mean 'compare_with'?"),
    "wrong type": (b"base: baseline\nbatch_size: four\n", "batch_size='four'"),
    "no base": (b"batch_size: 4\n", "base=None"),
    "base of something else": (b"base: nothing\nbatch_size: 4\n", "base='nothing'"),
    "two levels": (b"base: reduced_batch\nlr: 2e-5\n", "base='reduced_batch'"),
    "base is a list": (b"base: [baseline]\n", "base=['baseline']"),
    "number is text": (b"base: baseline\nnumber: first\n", "number='first'"),
    "number is a truth": (b"base: baseline\nnumber: true\n", "number=True"),
    "compare_with is a list": (b"base: baseline\ncompare_with: [xxl]\n", "compare_with=['xxl']"),
    "lesson is a mapping": (b"base: baseline\nlesson: {a: b}\n", "lesson={'a': 'b'}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_experiment_file_is_named_on_one_line_with_what_is_wrong(scratch, what):
    content, part = BROKEN[what]
    path = scratch.configs / "broken.yaml"
    path.write_bytes(content)
    for text in (error_of(load_experiment, scratch, "broken"), error_of(resolve, scratch, str(path))):
        assert str(path) in text
        assert part in text


@pytest.mark.parametrize("what", ["empty", "a list", "binary", "control characters", "not YAML", "wrong type"])
def test_a_broken_baseline_is_named_though_another_experiment_was_asked_for(scratch, what):
    path = scratch.configs / "baseline.yaml"
    path.write_bytes(BROKEN[what][0])
    assert str(path) in error_of(resolve, scratch, "xxl")


@pytest.mark.parametrize("base", ["xxl", "baseline", "[a]"])
def test_the_baseline_has_no_base(scratch, base):
    path = scratch.configs / "baseline.yaml"
    path.write_text(f"base: {base}\nbatch_size: 64\n")
    text = error_of(resolve, scratch, "xxl")
    assert str(path) in text
    assert "base=" in text


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere.yaml"
    assert str(path) in error_of(read_yaml, path)
    assert str(tmp_path) in error_of(read_yaml, tmp_path)


SIGNS = [*"a:-[]{}#&*!|>%@\"'\\,?\t\n \x00\x07\u0085\ufeff", "2024-99-99", "0x_", "1e5", ".inf", "<<", "~"]
FRAGMENTS = st.lists(st.sampled_from(SIGNS), max_size=12).map(lambda parts: "".join(parts).encode())


@pytest.mark.slow
@settings(derandomize=True, deadline=None, database=None, max_examples=200)
@given(content=st.binary(max_size=20) | FRAGMENTS)
def test_any_file_is_a_mapping_or_refused_on_one_line_with_its_name(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        data = read_yaml(path)
    except ConfigError as error:
        assert str(path) in str(error)
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(data, dict)
        assert all(isinstance(key, str) for key in data)
