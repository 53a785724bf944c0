"""Predictions are compared with what the simulated GPU measures, phase by phase and category by category."""

import dataclasses

import pytest
import torch

from labkit.config.errors import ConfigError
from labkit.config.gpus import GPUS
from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.memory.categories import CATEGORIES
from labkit.memory.report import PHASES
from labkit.plan.allocator import SimulatedAllocator
from labkit.plan.cache import TraceCache
from labkit.plan.errors import PredictionError
from labkit.plan.predict import judge, predict

WORKSPACE = Workspace.find()
COURSE = list(load_profile(WORKSPACE, "tiny").expected)
PEAK, SHARE = 0.01, 0.02
"""What is claimed: a run's peak within 1%, every category within 2%. Measured: 0.05%, but where captions vary."""
CACHE = TraceCache(None)


def config_of(name, **overrides):
    return resolve(WORKSPACE, name, {key: str(value) for key, value in overrides.items()}).config


def predicted(name, **overrides):
    return predict(config_of(name, **overrides), cache=CACHE)


def phases_of(report, steps=2):
    return {(p.step, p.micro_step, p.phase): p for p in report.phases if p.step < steps}


def pairs(name, record):
    """Phases of a prediction and of the run. Of more than two micro steps the last is planned as the second."""
    last = record.config["accumulate_grad_batches"] - 1
    measured = phases_of(record.memory)
    for (step, micro_step, phase), found in phases_of(predicted(name)).items():
        key = (step, last if micro_step else 0, phase)
        if key in measured:  # a run that died has not come to all
            yield key, found, measured[key]


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSE)
def test_the_peak_and_the_end_are_the_measured_ones(name, course_records):
    record, found = course_records[name], predicted(name)
    if record.status == "ok":
        assert found.verdict == "fits"
        assert found.peak_bytes == pytest.approx(record.memory.peak_bytes, rel=PEAK)
        assert found.peak_phase.phase == record.memory.peak_phase.phase
    else:
        assert found.verdict == "out of memory"
        assert (found.died_in["step"], found.died_in["phase"]) == (record.died_in.step, record.died_in.phase)
        last = record.config["accumulate_grad_batches"] - 1
        assert (last if found.died_in["micro_step"] else 0) == record.died_in.micro_step
        assert found.requested_bytes == pytest.approx(record.out_of_memory.requested_bytes, rel=SHARE)


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSE)
def test_every_category_of_every_phase_is_the_measured_one(name, course_records):
    compared = 0
    for key, found, phase in pairs(name, course_records[name]):
        for category in set(CATEGORIES) - {"temporaries", "unattributed"}:
            slack = SHARE * phase.end[category] + 0.001 * phase.peak_bytes  # numbers of 512 bytes here and there
            assert abs(found.end[category] - phase.end[category]) <= slack, (key, category)
            compared += 1
        assert found.peak_bytes == pytest.approx(phase.peak_bytes, rel=SHARE), key
    assert compared >= 2 * 7


@pytest.mark.slow
def test_a_prediction_has_the_phases_of_a_run_and_says_what_it_is():
    found = predicted("reduced_batch")
    assert found.source == "predicted"
    assert found.capacity_bytes == config_of("reduced_batch").capacity_bytes
    assert [(p.step, p.phase) for p in found.phases] == [(step, name) for step in (0, 1) for name in PHASES]
    assert found.reserved_bytes is None  # there is no allocator on the simulated GPU
    assert found.host_bytes == found.category_peaks["optimizer_cpu"] > 0  # adamw's step counters


@pytest.mark.slow
def test_nothing_is_allocated_and_torch_is_as_before():
    functions = torch.nn.functional
    before = torch.get_default_dtype(), functions.scaled_dot_product_attention, functions.linear, torch.Tensor.__bool__
    predict(config_of("bf16_mixed"), cache=TraceCache(None))
    after = torch.get_default_dtype(), functions.scaled_dot_product_attention, functions.linear, torch.Tensor.__bool__
    assert after == before
    assert torch.zeros(1).device.type == "cpu"
    assert bool(torch.ones(1))


@pytest.mark.slow
def test_double_quantization_saves_its_share():
    plain, double = (predicted("xxl_qlora", double_quant=on) for on in ("false", "true"))
    saved = plain.at("before_forward", 0).end["parameters"] - double.at("before_forward", 0).end["parameters"]
    assert saved > 0


@pytest.mark.slow
def test_4_bit_weights_are_never_there_in_full():
    """While they are loaded there are the packed weights and one layer, which is less than any step needs."""
    weights = predicted("xxl_qlora").at("before_forward", 0).end["parameters"]
    found = judge(CACHE.trace(config_of("xxl_qlora")), int(1.3 * weights), SimulatedAllocator)
    assert found.died_in["phase"] == "forward"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capacity", "verdict"),
    [(2.0, "fits"), (1.06, "fits"), (1.04, "borderline"), (0.96, "borderline"), (0.94, "out of memory")],
)
def test_the_verdict_goes_by_the_capacity_and_near_it_says_so(capacity, verdict):
    trace = CACHE.trace(config_of("bf16_true"))
    peak_bytes = trace.report.peak_bytes
    found = judge(trace, int(capacity * peak_bytes), SimulatedAllocator)
    assert found.margin == pytest.approx(1 - 1 / capacity, abs=1e-6)
    assert found.verdict == verdict
    assert (found.died_in is None) == (capacity > 1)
    cached = judge(trace, int(capacity * peak_bytes))
    if cached.verdict != verdict:  # what the allocator reserves may not fit where what is allocated does
        assert cached.reserved_bytes > 0.95 * capacity * peak_bytes
    assert found.operation.startswith("aten.")


def test_what_does_not_fit_says_where_it_dies():
    trace = CACHE.trace(config_of("bf16_true"))
    for capacity, phase in ((6 * 2**20, "load_model"), (12 * 2**20, "forward")):
        found = judge(trace, capacity, SimulatedAllocator)
        assert (found.died_in["step"], found.died_in["phase"]) == (0, phase)
        assert found.died_in["operation"].startswith("aten.")
        assert 0 < found.requested_bytes < capacity
    assert len(found.phases) == len(trace.report.phases)  # what there would be with more memory


@pytest.mark.slow
def test_without_a_capacity_there_is_no_verdict():
    config = RunConfig(**(config_of("bf16_true").to_dict() | {"device": "cuda", "capacity_gib": None}))
    found = predict(config, cache=CACHE)
    assert (found.verdict, found.margin) == ("no capacity given", None)
    assert found.reserved_bytes >= found.peak_bytes > 0


@pytest.mark.slow
def test_reserved_is_told_phase_by_phase_and_never_above_the_capacity():
    found = predict(config_of("grad_accumulation"), "24GiB", CACHE)
    assert all(phase.reserved_bytes >= phase.end_bytes for phase in found.phases)
    assert max(phase.reserved_bytes for phase in found.phases) <= found.reserved_bytes <= found.capacity_bytes


@pytest.mark.slow
def test_a_gpu_is_given_by_name_or_size():
    config = config_of("bf16_true")
    assert predict(config, "a100-80gb", CACHE).capacity_bytes == pytest.approx(GPUS["a100-80gb"].usable_bytes, abs=1)
    assert predict(config, "24GiB", CACHE).verdict == "fits"
    with pytest.raises(ConfigError, match="a100-80gb"):
        predict(config, "a100-81gb", CACHE)


@pytest.mark.slow
def test_a_gpu_without_bf16_is_told_by_name():
    with pytest.raises(PredictionError, match="precision=bf16-true needs bf16, which v100-16gb does not have"):
        predict(config_of("bf16_true"), "v100-16gb", CACHE)
    half = dataclasses.replace(config_of("bf16_true"), device="cuda", precision="16-mixed")
    assert predict(half, "v100-16gb", CACHE).verdict == "fits"


def test_a_run_of_one_step_is_judged_by_that_step():
    one, two = (predicted("reduced_batch", max_steps=n) for n in (1, 2))
    assert {p.step for p in one.phases} == {0}
    assert one.peak_bytes < two.peak_bytes
    assert predicted("reduced_batch", num_train_samples=16, max_epochs=1).phases == one.phases
    tight = one.peak_bytes / 0.94 / 2**30
    assert predicted("reduced_batch", max_steps=1, capacity_gib=tight).verdict == "fits"
    assert one.operation.startswith("aten._foreach")


@pytest.mark.slow
def test_expandable_segments_are_taken_from_the_environment(monkeypatch):
    config = dataclasses.replace(config_of("xxl_qlora"), device="cuda")
    plain = predict(config, cache=CACHE)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    assert predict(config, cache=CACHE).reserved_bytes != plain.reserved_bytes


@pytest.mark.slow
def test_qlora_in_bf16_is_predicted():
    assert predicted("xxl_qlora", precision="bf16-true").verdict == "fits"


@pytest.mark.slow
def test_host_memory_is_told_apart():
    found = predicted("xxl_cpu_offload")
    numbers = found.at("before_forward", 0).end["parameters"] / 2
    assert found.host_bytes == pytest.approx(20 * numbers, rel=0.02)
    assert dataclasses.replace(found, phases=[]).host_bytes == 0
