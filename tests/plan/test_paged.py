"""Paged optimizer state is in host memory, except for small weights."""

import pytest

from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict

CACHE = TraceCache(None)


def peaks(optim):
    # a tiny model on CUDA's terms: its layers have more numbers than a page needs, its norms fewer
    typed = {"optim": optim, "device": "cuda", "capacity_gib": "1"}
    return predict(resolve(Workspace.find(), "xxl_adam8bit", typed).config, cache=CACHE)


@pytest.mark.slow
def test_state_moves_to_the_host_and_nothing_else_changes():
    plain, paged = peaks("adam_8bit"), peaks("paged_adam_8bit")
    before, after = plain.category_peaks, paged.category_peaks
    moved = before["optimizer_gpu"] - after["optimizer_gpu"]
    assert moved > 0.9 * before["optimizer_gpu"]
    assert after["optimizer_cpu"] - before["optimizer_cpu"] == moved
    assert (after["parameters"], after["gradients"]) == (before["parameters"], before["gradients"])
    assert paged.peak_bytes < plain.peak_bytes
    assert paged.host_bytes == after["optimizer_cpu"]


def test_the_simulated_gpu_has_none():
    with pytest.raises(ConfigError, match="optim=paged_adam_8bit does not go with device=simulated"):
        resolve(Workspace.find(), "xxl_adam8bit", {"optim": "paged_adam_8bit"})
