"""Predictions stand beside what the virtual GPU measures, phase by phase and category by category."""

import dataclasses

import pytest
import torch

from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.memory.report import CATEGORIES, PHASES
from labkit.plan.predict import PredictionError, predict

WORKSPACE = Workspace.find()
PLANNED = [name for name in load_profile(WORKSPACE, "tiny").expected if name != "xxl_cpu_offload"]
PEAK, SHARE = 0.01, 0.02
"""What is claimed: a run's peak within 1%, every category within 2%. Measured: 0.05%, but where captions vary."""


def phases_of(report, steps=2, micro_steps=2):
    return {(p.step, p.micro_step, p.phase): p for p in report.phases if p.step < steps and p.micro_step < micro_steps}


@pytest.fixture(scope="module")
def predicted():
    return {name: predict(resolve(WORKSPACE, name).config).report for name in PLANNED}


@pytest.mark.parametrize("name", PLANNED)
def test_the_peak_is_the_measured_one(name, predicted, course_records):
    record, report = course_records[name], predicted[name]
    if record.status == "ok":
        assert report.peak_bytes == pytest.approx(record.report.peak_bytes, rel=PEAK)
        assert report.peak_phase.phase == record.report.peak_phase.phase
    else:
        assert report.peak_bytes > record.report.capacity_bytes


@pytest.mark.parametrize("name", PLANNED)
def test_every_category_of_every_phase_is_the_measured_one(name, predicted, course_records):
    found, measured = phases_of(predicted[name]), phases_of(course_records[name].report)
    compared = 0
    for key, phase in measured.items():
        if key not in found:  # the last of more than two micro steps is planned as the second
            continue
        for category in set(CATEGORIES) - {"temporaries", "unattributed"}:
            slack = SHARE * phase.end[category] + 0.001 * phase.peak_bytes  # numbers of 512 bytes here and there
            assert abs(found[key].end[category] - phase.end[category]) <= slack, (key, category)
            compared += 1
        assert found[key].peak_bytes == pytest.approx(phase.peak_bytes, rel=SHARE), key
    assert compared >= 2 * 7


def test_a_prediction_has_the_phases_of_a_run_and_says_what_it_is(predicted):
    report = predicted["reduced_batch"]
    assert report.source == "predicted"
    assert report.capacity_bytes == resolve(WORKSPACE, "reduced_batch").config.capacity_bytes
    assert [(p.step, p.phase) for p in report.phases] == [(step, name) for step in (0, 1) for name in PHASES]


def test_nothing_is_allocated_and_no_mode_is_left(predicted):
    before = torch.get_default_dtype()
    predict(resolve(WORKSPACE, "bf16_true").config)
    assert torch.get_default_dtype() == before
    assert torch.zeros(1).device.type == "cpu"
    assert bool(torch.ones(1))


def test_double_quantization_saves_its_share():
    config = resolve(WORKSPACE, "xxl_qlora").config
    plain, double = (predict(RunConfig(**(config.to_dict() | {"double_quant": on}))).report for on in (False, True))
    saved = plain.at("before_forward", 0).end["parameters"] - double.at("before_forward", 0).end["parameters"]
    assert saved > 0


@pytest.mark.parametrize(
    ("capacity", "verdict"),
    [(2.0, "fits"), (1.06, "fits"), (1.04, "borderline"), (0.96, "borderline"), (0.94, "out of memory")],
)
def test_the_verdict_goes_by_the_capacity_and_near_it_says_so(capacity, verdict):
    config = resolve(WORKSPACE, "bf16_true").config
    peak_bytes = predict(config).report.peak_bytes
    found = predict(dataclasses.replace(config, capacity_gib=capacity * peak_bytes / 2**30))
    assert found.margin == pytest.approx(1 - 1 / capacity, abs=1e-6)
    if found.verdict != verdict:  # what the allocator reserves may not fit where what is allocated does
        assert (capacity, found.verdict) == (1.06, "borderline")
        assert found.reserved_bytes > capacity * peak_bytes
    assert found.reserved_bytes >= found.report.peak_bytes
    assert found.operation.startswith("aten.")


def test_without_a_capacity_there_is_no_verdict():
    config = RunConfig(**(resolve(WORKSPACE, "bf16_true").config.to_dict() | {"device": "cuda", "capacity_gib": None}))
    found = predict(config)
    assert (found.verdict, found.margin) == ("no capacity given", None)
    assert found.reserved_bytes >= found.report.peak_bytes > 0


def test_what_cannot_be_planned_says_so():
    config = resolve(WORKSPACE, "xxl_cpu_offload").config
    with pytest.raises(PredictionError) as caught:
        predict(config)
    assert "strategy=deepspeed_stage_2_offload" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
