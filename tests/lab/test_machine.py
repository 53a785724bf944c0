"""Machine: the environment says on what a notebook executes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import smi
import torch

from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.lab import machine
from labkit.lab.machine import find_machine, profile_for
from labkit.memory import obstacle


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    monkeypatch.delenv("LABKIT_MODE", raising=False)
    monkeypatch.delenv("LABKIT_PROFILE", raising=False)


def found(profile=None):
    return find_machine(Workspace.find(), profile)


def test_without_a_gpu_it_is_the_simulated_one(monkeypatch):
    monkeypatch.setattr(obstacle, "list_devices", lambda: ([], "there is no nvidia-smi"))
    monkeypatch.setattr(obstacle, "DRIVER_LISTS", Path("/none"))
    assert (found().mode, found().profile) == ("run", "tiny")
    assert found().note == "PyTorch sees no CUDA GPU here"


@pytest.fixture
def old_driver(tmp_path, monkeypatch):
    """A GPU that NVML shows and whose driver torch cannot use."""

    def refuse():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12080). Please update it.")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    smi.install(tmp_path, monkeypatch, smi.H100)


@pytest.mark.slow
def test_a_gpu_that_torch_cannot_use_is_an_error_with_its_reason_and_the_way_out(old_driver, monkeypatch):
    with pytest.raises(ConfigError) as told:
        found()
    for words in ("NVIDIA H100 NVL", "too old (found version 12080)", "'labkit doctor'", "LABKIT_PROFILE=tiny"):
        assert words in str(told.value)
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    assert found().profile == "tiny"


@pytest.mark.slow
def test_a_torch_for_cpus_beside_a_gpu_has_the_simulated_one_and_a_note(old_driver, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert found().profile == "tiny"
    assert found().note.endswith("is a build without CUDA, which cannot use NVIDIA H100 NVL")


@pytest.mark.slow
def test_a_gpu_that_is_hidden_is_none(old_driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (found().profile, found().note) == ("tiny", "CUDA_VISIBLE_DEVICES='' hides every GPU")


def test_the_profile_is_that_of_what_cuda_shows(monkeypatch):
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    part = SimpleNamespace(total_memory=80 * 2**30)  # CUDA counts what is shown, a part of a GPU too
    monkeypatch.setattr(torch.cuda, "get_device_properties", {0: part}.get)
    assert found().profile == "a100-80gb"


@pytest.mark.parametrize(
    ("gib", "profile"), [(93.1, "h100-94gb"), (139.8, "h100-94gb"), (79.15, "a100-80gb"), (23.7, "tiny")]
)
def test_a_gpu_gets_the_largest_profile_that_fits_it(monkeypatch, gib, profile):
    monkeypatch.setattr(machine, "cuda_bytes", lambda: (int(gib * 2**30), ""))
    assert found().profile == profile
    assert profile_for(Workspace.find(), int(gib * 2**30)) == (None if profile == "tiny" else profile)


def test_a_gpu_that_no_profile_fits_is_told_how_to_get_one(monkeypatch):
    monkeypatch.setattr(machine, "cuda_bytes", lambda: (24 * 2**30, ""))
    assert "labkit profiles make --gpu 24GiB" in found().note


def test_the_environment_wins_over_the_machine_and_the_notebook_over_both(monkeypatch):
    monkeypatch.setattr(machine, "cuda_bytes", lambda: pytest.fail("no one needs to look"))
    monkeypatch.setenv("LABKIT_PROFILE", "a100-80gb")
    monkeypatch.setenv("LABKIT_MODE", "plan")
    assert (found().mode, found().profile) == ("plan", "a100-80gb")
    assert found("tiny").profile == "tiny"


@pytest.mark.parametrize(("name", "value"), [("LABKIT_MODE", "paln"), ("LABKIT_PROFILE", "tinny")])
def test_a_mode_or_profile_that_is_none_is_refused_with_the_nearest(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{value}.*(plan|tiny)"):
        found()
