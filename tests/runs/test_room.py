"""More processes than a machine carries are refused before one starts."""

import os

import pytest

from labkit.cli import main
from labkit.config.errors import ConfigError
from labkit.runs.runner import run


def test_99_devices_on_two_cores_are_refused_before_anything_starts(ledger, monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    with pytest.raises(ConfigError, match=r"devices=99 .* 2 cores: set devices=4 or less, or add --oversubscribe"):
        run("reduced_batch", {"devices": 99, "strategy": "ddp", "batch_size": 1})
    assert main(["run", "reduced_batch", "devices=99", "strategy=ddp", "batch_size=1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert ledger.folders() == []


@pytest.mark.slow
def test_what_the_cores_carry_and_what_is_asked_for_twice_is_started(ledger, monkeypatch):
    """One core carries the course's four devices; a fifth process needs a word more."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    five = {"devices": 5, "strategy": "ddp", "batch_size": 1, "max_steps": 1, "num_train_samples": 64}
    with pytest.raises(ConfigError, match="devices=4 or less"):
        run("reduced_batch", five, timeout_s=0.1)
    record = run("reduced_batch", five, timeout_s=0.1, oversubscribe=True)  # it begins, and that is enough
    assert record.status == "timeout"
