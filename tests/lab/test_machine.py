"""Machine: the environment says on what a notebook executes."""

import pytest

from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.lab import machine
from labkit.lab.machine import find_machine, profile_for


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    monkeypatch.delenv("LABKIT_MODE", raising=False)
    monkeypatch.delenv("LABKIT_PROFILE", raising=False)


def found(profile=None):
    return find_machine(Workspace.find(), profile)


def test_without_a_gpu_it_is_the_virtual_one(monkeypatch):
    monkeypatch.setattr(machine, "cuda_bytes", lambda: None)
    assert (found().mode, found().profile) == ("run", "tiny")
    assert "no CUDA GPU" in found().note


@pytest.mark.parametrize(
    ("gib", "profile"), [(93.1, "h100-94gb"), (139.8, "h100-94gb"), (79.15, "a100-80gb"), (23.7, "tiny")]
)
def test_a_gpu_gets_the_largest_profile_that_fits_it(monkeypatch, gib, profile):
    monkeypatch.setattr(machine, "cuda_bytes", lambda: int(gib * 2**30))
    assert found().profile == profile
    assert profile_for(Workspace.find(), int(gib * 2**30)) == (None if profile == "tiny" else profile)


def test_a_gpu_that_no_profile_fits_is_told_how_to_get_one(monkeypatch):
    monkeypatch.setattr(machine, "cuda_bytes", lambda: 24 * 2**30)
    assert "labkit profiles make --gpu 24GiB" in found().note


def test_the_environment_wins_over_the_machine_and_the_notebook_over_both(monkeypatch):
    monkeypatch.setattr(machine, "cuda_bytes", lambda: pytest.fail("nobody needs to look"))
    monkeypatch.setenv("LABKIT_PROFILE", "a100-80gb")
    monkeypatch.setenv("LABKIT_MODE", "plan")
    assert (found().mode, found().profile) == ("plan", "a100-80gb")
    assert found("tiny").profile == "tiny"


@pytest.mark.parametrize(("name", "value"), [("LABKIT_MODE", "paln"), ("LABKIT_PROFILE", "tinny")])
def test_a_mode_or_profile_that_is_none_is_refused_with_the_nearest(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{value}.*(plan|tiny)"):
        found()
