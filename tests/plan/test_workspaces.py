"""Workspaces of cuBLAS: one for forward and one for backward, as large as the GPU's architecture has them."""

import pytest
import torch

from labkit.config.gpus import GPUS
from labkit.config.layers import resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.plan.shapes import ShapeTracker
from labkit.plan.steps import trace
from labkit.plan.workspaces import workspace_bytes

MIB = 2**20
SIZES = {"a100-80gb": 8.125, "l40s-48gb": 8.125, "h100-80gb": 32, "b200-180gb": 32, "rtx5090-32gb": 32}


@pytest.mark.parametrize("name", SIZES)
def test_hopper_and_blackwell_have_larger_ones(name, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert workspace_bytes(RunConfig(**GPUS[name].values)) == SIZES[name] * MIB


def test_the_environment_sets_another_and_a_cpu_has_none(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    assert workspace_bytes(RunConfig(device="cuda", compute_capability=9.0)) == 8.125 * MIB
    assert workspace_bytes(RunConfig(device="simulated", capacity_gib=1)) == 0
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "nonsense")
    assert workspace_bytes(RunConfig(device="cuda")) == 32 * MIB  # as torch, which warns of it


def test_forward_and_backward_allocate_one_each_and_keep_it():
    with ShapeTracker() as tracker:
        tracker.workspace_bytes = MIB
        weight, x = torch.empty(8, 8, device="meta", requires_grad=True), torch.empty(8, 8, device="meta")
        _ = x + x
        assert tracker.breakdown()["unattributed"] < MIB
        loss = (x @ weight).sum()
        forward = tracker.allocated_bytes
        assert forward > MIB
        loss.backward()
        assert 2 * MIB < tracker.allocated_bytes < 2 * MIB + forward - MIB + 1024
        (x @ weight).sum().backward()
        assert tracker.allocated_bytes < 3 * MIB
        assert [name for _, size, name in tracker.events if size == MIB] == ["workspace of cuBLAS"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "size_mib"), [("a100-80gb", 16.25), ("h100-94gb", 64)])
def test_a_plan_holds_both_from_the_first_backward_on(profile, size_mib):
    report = trace(resolve(Workspace.find(), "reduced_batch", {}, profile).config).report
    ends = [phase.end["unattributed"] / MIB for phase in report.phases]
    assert ends[:3] == pytest.approx([0, size_mib / 2, size_mib], abs=0.01)
    assert ends[3:] == pytest.approx([size_mib] * len(ends[3:]), abs=0.01)
