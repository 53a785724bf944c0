"""The report answers where the peak was, phase by phase, and survives JSON."""

import json

import pytest

from labkit.memory.categories import CATEGORIES, on_device
from labkit.memory.report import PHASES, MemoryReport, PhaseMemory


def phase(name: str, step: int = 0, micro_step: int = 0, end: int = 0, peak: int = 0, **highest: int) -> PhaseMemory:
    """A phase that holds ``end`` and at most ``peak`` bytes of parameters."""
    none = dict.fromkeys(CATEGORIES, 0)
    return PhaseMemory(
        phase=name,
        step=step,
        micro_step=micro_step,
        end=none | {"parameters": end},
        peak=none | {"parameters": peak},
        highest=none | {"parameters": peak} | highest,
    )


def test_host_memory_takes_nothing_from_the_device():
    assert on_device({"parameters": 3, "optimizer_gpu": 4, "optimizer_cpu": 100}) == 7


def test_end_and_peak_are_device_bytes():
    found = phase("after_forward", end=10, peak=30)
    found.end["optimizer_cpu"] = found.peak["optimizer_cpu"] = 1000
    assert (found.end_bytes, found.peak_bytes) == (10, 30)


def test_the_peak_phase_is_the_highest_and_the_first_of_equals():
    first, second = phase("after_forward", peak=30), phase("after_backward", peak=30)
    report = MemoryReport(source="predicted", phases=[phase("before_forward", peak=10), first, second])
    assert report.peak_phase is first
    assert report.peak_bytes == 30


def test_by_phase_keeps_the_highest_occurrence_in_the_order_of_a_step():
    higher = phase("after_forward", step=1, peak=30)
    phases = [phase("after_optimizer_step", peak=5), phase("after_forward", peak=20), higher]
    by_phase = MemoryReport(source="predicted", phases=phases).by_phase
    assert list(by_phase) == ["after_forward", "after_optimizer_step"]
    assert by_phase["after_forward"] is higher
    assert set(by_phase) <= set(PHASES)


def test_category_peaks_need_not_happen_together():
    phases = [phase("after_forward", peak=30, activations=7), phase("after_backward", peak=40, gradients=9)]
    peaks = MemoryReport(source="predicted", phases=phases).category_peaks
    assert list(peaks) == list(CATEGORIES)
    assert (peaks["parameters"], peaks["activations"], peaks["gradients"], peaks["inputs"]) == (40, 7, 9, 0)


def test_a_phase_is_found_by_step_and_micro_step_and_a_missing_one_is_named():
    wanted = phase("after_forward", step=1, micro_step=3)
    report = MemoryReport(source="predicted", phases=[phase("after_forward", step=1), wanted])
    assert report.at("after_forward", 1, 3) is wanted
    with pytest.raises(KeyError, match="after_backward in step 1, micro step 3"):
        report.at("after_backward", 1, 3)


def test_an_empty_report_has_no_peak():
    report = MemoryReport(source="predicted")
    assert report.peak_phase is None
    assert report.peak_bytes == 0
    assert report.by_phase == {}
    assert set(report.category_peaks.values()) == {0}


def test_a_report_survives_json():
    report = MemoryReport(source="simulated GPU", capacity_bytes=100, phases=[phase("after_forward", end=10, peak=30)])
    again = MemoryReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert again.at("after_forward", 0).peak_bytes == 30
