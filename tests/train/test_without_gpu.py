"""A run that gets no GPU, or a full one, ends with a status and a reason: never a trace, never without a record."""

import pytest
import smi
import torch

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.memory import obstacle
from labkit.runs.runner import run
from labkit.train import fit as fitting
from labkit.train.events import EventWriter
from labkit.train.fit import fit

REASON = "The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver."


def started(folder):
    config = resolve(Workspace.find(), "reduced_batch", {"device": "cuda"}, "tiny").config
    with EventWriter(folder / "events.jsonl") as events:
        return fit(folder, config, folder, events)


@pytest.fixture
def torch_says(tmp_path, monkeypatch):
    """A torch for CUDA that refuses, on a machine whose NVML sees a GPU; what it was asked, in order."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asked = []

    def make(said, at="init", kind=RuntimeError):
        def refuse(*_):
            asked.append(at)
            raise kind(said)

        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        for name in ("init", "set_device"):
            monkeypatch.setattr(torch.cuda, name, refuse if at == name else lambda *_: asked.append("works"))
        monkeypatch.setattr(fitting, "used_by_others_bytes", lambda index: asked.append(f"others on {index}"))
        smi.install(tmp_path, monkeypatch, smi.H100)
        return asked

    return make


@pytest.mark.slow
def test_a_driver_that_torch_cannot_use_is_a_failure_with_torchs_reason(torch_says, tmp_path):
    torch_says(REASON)
    result = started(tmp_path)
    assert result["status"] == "failed"
    for words in ("NVIDIA H100 NVL", "is too old (found version 12080)", "'labkit doctor'", "--profile tiny"):
        assert words in result["reason"]


@pytest.mark.slow
def test_what_others_hold_is_asked_before_this_process_is_one_of_them(torch_says, tmp_path):
    asked = torch_says(REASON)
    started(tmp_path)
    assert asked == ["others on 0", "init"]


def test_without_any_gpu_it_is_skipped(torch_says, tmp_path, monkeypatch):
    torch_says("No CUDA GPUs are available")
    monkeypatch.setattr(obstacle, "list_devices", lambda: ([], ""))
    monkeypatch.setattr(obstacle, "DRIVER_LISTS", tmp_path / "none")
    result = started(tmp_path)
    assert result["status"] == "skipped"
    assert (
        result["reason"] == "device=cuda, but PyTorch sees no CUDA GPU here; use --profile tiny for the simulated GPU"
    )


@pytest.mark.slow
def test_a_gpu_that_has_no_room_for_a_context_is_out_of_memory(torch_says, tmp_path):
    torch_says("CUDA error: out of memory\nCUDA kernel errors might ...", at="set_device", kind=torch.AcceleratorError)
    result = started(tmp_path)
    assert result["status"] == "oom"
    assert result["died_in"] == {"step": 0, "micro_step": 0, "phase": "load_model"}
    torch_says("CUDA error: CUDA-capable device(s) is/are busy or unavailable", at="set_device")
    assert started(tmp_path)["status"] == "failed"


@pytest.mark.slow
def test_the_record_of_a_torch_for_cpus_beside_a_gpu(tmp_path, monkeypatch):
    if torch.version.cuda is not None:
        pytest.skip("needs a torch without CUDA")
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    smi.install(tmp_path, monkeypatch, smi.H100)
    record = run("reduced_batch", {"device": "cuda", "capacity_gib": None, "dataset": "fluent_emoji"}, "tiny")
    assert record.status == "failed"
    assert "is a build without CUDA, which cannot use NVIDIA H100 NVL" in record.reason
    assert "'pip install --force-reinstall torch'" in record.reason
    assert record.exit_code == 0
    assert record.diagnosis.kind != "unknown"
