"""On the GPUs of the course every lesson holds: each experiment ends as the original's table has it."""

import pytest

from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict

WORKSPACE = Workspace.find()
OUT_OF_MEMORY = {"baseline", "xxl", "xxl_smallest_batch"}
"""The experiments that run out of memory in the original's table; the others fit."""
ROWS = [(profile, name) for profile in ("h100-94gb", "a100-80gb") for name in load_profile(WORKSPACE, "tiny").expected]


@pytest.fixture(scope="module")
def predictions(traces):
    cache = TraceCache(traces)
    runs = {row: resolve(WORKSPACE, row[1], {}, row[0]) for row in ROWS}
    cache.fill(resolved.config for resolved in runs.values())
    return {row: (resolved, predict(resolved.config, cache=cache)) for row, resolved in runs.items()}


def test_there_are_fifteen_rows_a_gpu():
    assert len(ROWS) == 30


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "name"), ROWS)
def test_the_verdict_is_the_lesson_and_5_percent_do_not_change_it(profile, name, predictions):
    resolved, found = predictions[profile, name]
    assert found.verdict == ("out of memory" if name in OUT_OF_MEMORY else "fits")
    died = found.died_in or {}
    assert resolved.expected.matches("oom" if died else "ok", died.get("step"), died.get("phase"))
    if name not in OUT_OF_MEMORY:
        assert found.margin >= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["h100-94gb", "a100-80gb"])
def test_the_story_of_the_course_holds_in_bytes(profile, predictions):
    def peaks(name):
        return predictions[profile, name][1].category_peaks

    assert peaks("reduced_batch")["activations"] < 0.55 * peaks("baseline")["activations"]
    assert predictions[profile, "grad_accumulation"][1].peak_bytes == pytest.approx(
        predictions[profile, "reduced_batch"][1].peak_bytes, rel=0.02
    )
    for category in ("parameters", "gradients", "optimizer_gpu"):
        assert peaks("bf16_true")[category] == pytest.approx(peaks("grad_accumulation")[category] / 2, rel=0.01)
    assert peaks("xxl_sgd")["optimizer_gpu"] == 0
    assert peaks("xxl_adam8bit")["optimizer_gpu"] == pytest.approx(peaks("xxl")["optimizer_gpu"] / 2, rel=0.03)
    assert peaks("xxl_checkpointing")["activations"] < 0.1 * peaks("xxl_adam8bit")["activations"]
    assert peaks("xxl_cpu_offload")["optimizer_gpu"] == 0
    assert peaks("xxl_lora")["gradients"] < 0.01 * peaks("xxl")["gradients"]
    assert peaks("xxl_qlora")["parameters"] < 0.35 * peaks("xxl_lora")["parameters"]
