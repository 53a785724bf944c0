"""What the course teaches, read from the records of one run of the course on the profile tiny."""

import pytest

from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.ledger.compare import compare, missing
from labkit.runs.runner import run
from labkit.train.build import build_model

pytestmark = pytest.mark.slow

MARGIN = 0.05
EXPERIMENTS = list(load_profile(Workspace.find(), "tiny").expected)
OUT_OF_MEMORY = ["baseline", "xxl", "xxl_smallest_batch"]


def test_all_experiments_end_as_expected(course_ledger):
    workspace = Workspace.find()
    rows = compare(workspace, course_ledger, "tiny")
    assert [row["experiment"] for row in rows] == EXPERIMENTS
    assert len(rows) == 15
    assert missing(workspace, "tiny", rows) == []


def test_out_of_memory_comes_where_the_full_size_has_it(course_records):
    died = {name: course_records[name].died_in for name in OUT_OF_MEMORY}
    assert (died["baseline"].step, died["baseline"].phase) == (1, "forward")
    for name in ("xxl", "xxl_smallest_batch"):
        assert (died[name].step, died[name].phase) == (0, "optimizer_step")
    assert died["xxl"].micro_step == 3  # the optimizer steps after the last of four micro batches
    assert {name for name, record in course_records.items() if record.status == "oom"} == set(OUT_OF_MEMORY)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in OUT_OF_MEMORY])
def test_a_run_that_fits_leaves_a_margin(course_records, name):
    record = ran(course_records[name])
    assert record.peak_bytes <= (1 - MARGIN) * record.memory.capacity_bytes


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_a_run_that_does_not_fit_misses_by_a_margin(ledger, course_records, name):
    capacity_gib = resolve(Workspace.find(), name).config.capacity_gib * (1 + MARGIN)
    record = run(name, {"capacity_gib": capacity_gib, "max_steps": 2})
    assert record.status == "oom"
    assert record.died_in == course_records[name].died_in


def test_what_held_the_memory_adds_up(course_records):
    for name in OUT_OF_MEMORY:
        found = course_records[name].out_of_memory
        on_device = sum(n for category, n in found.held.items() if category != "optimizer_cpu")
        assert on_device == found.allocated_bytes
        assert found.allocated_bytes + found.requested_bytes > found.capacity_bytes


def test_activations_fall_with_the_batch(course_records):
    whole = after_forward(course_records["baseline"]).end
    half = after_forward(course_records["reduced_batch"]).end
    assert half["activations"] == pytest.approx(whole["activations"] / 2, rel=0.01)
    assert half["parameters"] == whole["parameters"]


def test_accumulation_leaves_the_peak_where_it_was(course_records):
    small, accumulated = course_records["reduced_batch"], course_records["grad_accumulation"]
    assert accumulated.peak_bytes == pytest.approx(small.peak_bytes, rel=0.02)
    assert accumulated.samples == small.samples
    assert len(accumulated.losses) * 4 == len(small.losses)


def test_a_larger_learning_rate_lowers_the_loss_of_the_accumulated_run(course_records):
    few_steps, large_steps = course_records["grad_accumulation"], course_records["grad_accumulation_lr4x"]
    assert large_steps.losses[0] == few_steps.losses[0]
    assert large_steps.losses[-1] < few_steps.losses[-1]
    # losses that no one has read yet are a block of 512 bytes each, and how many there are is a matter of time
    assert large_steps.peak_bytes == pytest.approx(few_steps.peak_bytes, rel=1e-4)


def test_bf16_true_halves_parameters_gradients_and_state(course_records):
    full, half = course_records["grad_accumulation_lr4x"], course_records["bf16_true"]
    assert half.model.parameter_bytes * 2 == full.model.parameter_bytes
    for category in ("parameters", "gradients", "optimizer_gpu"):
        # allocations are rounded up to 512 bytes, which small tensors feel
        assert half.category_peaks[category] == pytest.approx(full.category_peaks[category] / 2, rel=0.01)
    assert half.peak_bytes < 0.6 * full.peak_bytes


def test_bf16_mixed_keeps_weights_and_state_in_full(course_records):
    full, mixed = course_records["grad_accumulation_lr4x"], course_records["bf16_mixed"]
    for category in ("parameters", "gradients", "optimizer_gpu"):
        assert mixed.category_peaks[category] == full.category_peaks[category]
    assert mixed.losses[-1] == pytest.approx(full.losses[-1], rel=0.02)
    assert mixed.peak_bytes == pytest.approx(full.peak_bytes, rel=0.02)


@pytest.mark.parametrize("name", ["reduced_batch", "grad_accumulation", "bf16_true", "bf16_mixed", "larger_model"])
def test_adamw_state_is_twice_the_parameters(course_records, name):
    record = course_records[name]
    weights = record.memory.at("before_forward", 1).end["parameters"]
    assert record.category_peaks["optimizer_gpu"] == pytest.approx(2 * weights, rel=0.001)


def test_sgd_has_no_state(course_records):
    assert course_records["xxl_sgd"].category_peaks["optimizer_gpu"] == 0
    assert course_records["xxl_sgd"].category_peaks["optimizer_cpu"] == 0


def test_adam_8bit_state_is_two_bytes_a_parameter(course_records):
    record = course_records["xxl_adam8bit"]
    parameters = record.model.parameters
    # two bytes, and two fp32 maxima for each block of 256 numbers (0.03 bytes); small tensors stay fp32
    assert record.category_peaks["optimizer_gpu"] / parameters == pytest.approx(2.03, rel=0.02)
    adamw_bf16 = 2 * record.model.parameter_bytes
    assert record.category_peaks["optimizer_gpu"] == pytest.approx(adamw_bf16 / 2, rel=0.03)


def test_checkpointing_cuts_activations_by_more_than_half_at_equal_loss(course_records):
    plain, checkpointed = course_records["xxl_adam8bit"], course_records["xxl_checkpointing"]
    assert after_forward(checkpointed).end["activations"] < after_forward(plain).end["activations"] / 2
    assert checkpointed.losses == plain.losses
    assert checkpointed.peak_bytes < plain.peak_bytes


def test_unattributed_is_under_two_percent_of_the_peak(course_records):
    for name, record in course_records.items():
        for phase in record.memory.phases if record.status != "skipped" else ():
            assert phase.peak["unattributed"] < 0.02 * phase.peak_bytes, (name, phase)
            assert phase.end["unattributed"] < 0.02 * phase.peak_bytes, (name, phase)


def test_the_second_forward_is_the_peak_where_state_and_activations_meet(course_records):
    peak = course_records["reduced_batch"].memory.peak_phase
    assert (peak.phase, peak.step) == ("after_forward", 1)
    assert min(peak.peak[c] for c in ("parameters", "gradients", "optimizer_gpu", "activations")) > 0


@pytest.mark.parametrize("name", ["xxl_lora", "xxl_qlora"])
def test_adapters_alone_are_trained_and_take_what_their_shapes_say(course_records, name):
    record, adapters = course_records[name], adapter_shapes(course_records[name].config)
    assert record.status == "ok"
    assert record.model.trainable == sum(rows * columns for rows, columns in adapters)
    # each tensor is in fp32, and takes whole blocks of 512 bytes
    rounded = sum(-(-rows * columns * 4 // 512) * 512 for rows, columns in adapters)
    assert record.category_peaks["gradients"] == rounded
    assert record.category_peaks["optimizer_gpu"] == 2 * rounded
    assert record.category_peaks["optimizer_cpu"] == 512 * len(adapters)  # one step counter each
    assert rounded < 0.05 * record.category_peaks["parameters"]


def test_adapters_make_fp32_weights_fit_where_sgd_needs_bf16(course_records):
    lora, sgd = course_records["xxl_lora"], course_records["xxl_sgd"]
    assert (lora.config["precision"], sgd.config["precision"]) == ("32-true", "bf16-true")
    base_bytes = lora.model.parameter_bytes - 4 * lora.model.trainable
    assert base_bytes == 2 * sgd.model.parameter_bytes
    assert lora.losses[-1] < lora.losses[0]


def test_4_bits_make_the_parameters_smaller_and_leave_the_adapters_as_they_are(course_records):
    lora, qlora = course_records["xxl_lora"], course_records["xxl_qlora"]
    assert qlora.category_peaks["parameters"] < lora.category_peaks["parameters"] / 2
    for category in ("gradients", "optimizer_gpu", "optimizer_cpu"):
        assert qlora.category_peaks[category] == lora.category_peaks[category]
    for count in ("parameters", "trainable"):
        assert getattr(qlora.model, count) == getattr(lora.model, count)
    found = qlora.model
    parts = found.quantized_bytes + sum(found.unquantized_bytes.values()) + 4 * found.trainable
    assert found.parameter_bytes == parts
    # allocations are rounded up to 512 bytes, which scales and code books feel
    assert qlora.category_peaks["parameters"] == pytest.approx(parts, rel=0.01)
    assert qlora.losses[-1] < qlora.losses[0]


def test_offload_keeps_the_optimizer_out_of_the_device(course_records):
    record = ran(course_records["xxl_cpu_offload"])
    assert record.category_peaks["optimizer_gpu"] == 0
    # fp32 master weights, their gradients and two states; xxl has nearly as many bytes in its two bf16 states alone
    assert record.category_peaks["optimizer_cpu"] > 16 * record.model.parameters
    assert record.peak_bytes < course_records["xxl"].out_of_memory.allocated_bytes
    assert record.category_peaks["gradients"] < 0.1 * record.category_peaks["parameters"]


def test_one_seed_gives_identical_losses(ledger, course_records):
    again = run("bf16_mixed")
    assert again.config_hash == course_records["bf16_mixed"].config_hash
    assert again.losses == course_records["bf16_mixed"].losses
    assert len(again.losses) == 4


def after_forward(record):
    return record.memory.at("after_forward", 0)


def ran(record):
    """The record, if there is what its experiment needs: offload is skipped where there is no compiler."""
    if record.status == "skipped":
        pytest.skip(record.reason)
    return record


def adapter_shapes(config):
    """Shapes of the adapters' tensors, from the query and value projections of the plain model."""
    plain = RunConfig(model_name=config["model_name"], weights="random", capacity_gib=1)
    shapes = []
    for name, layer in build_model(plain, "meta").language_model.named_modules():
        if name.rpartition(".")[2] in ("q", "v"):
            shapes += [(config["lora_r"], layer.in_features), (layer.out_features, config["lora_r"])]
    assert len(shapes) == 2 * 2 * 3 * 2  # query and value, of three attentions in each of two layers
    return shapes
