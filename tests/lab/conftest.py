"""A lab with a ledger of its own, and records that no one had to run."""

import dataclasses
import itertools

import pytest
from made import report

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.lab.lab import Lab
from labkit.lab.result import Result


@pytest.fixture
def lab(ledger, monkeypatch):
    """A function that gives a lab on the profile tiny."""
    monkeypatch.delenv("LABKIT_MODE", raising=False)
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    return Lab


@pytest.fixture
def add_run(ledger, monkeypatch):
    """A function that puts a run into the ledger, as if it had ended like this."""
    numbers = itertools.count()  # runs of one second are in the order of these
    monkeypatch.setattr("labkit.ledger.ledger.secrets.token_hex", lambda size: f"{next(numbers):04x}")

    def add(experiment, overrides=None, memory=None, **values):
        resolved = resolve(Workspace.find(), experiment, overrides, "tiny")
        with ledger.open_run(resolved, overrides or {}, {}) as folder:
            found = memory or report()
            record = dataclasses.replace(
                folder.read(), **{"status": "ok", "memory": found.to_dict(), "peak_bytes": found.peak_bytes} | values
            )
            folder.write(record)
        return Result(record)

    return add
