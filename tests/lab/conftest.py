"""A lab with a ledger of its own, and records that nobody had to run."""

import dataclasses
import itertools

import pytest

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.lab.lab import Lab
from labkit.lab.result import Result
from labkit.memory.report import CATEGORIES, PHASES, MemoryReport, PhaseMemory

MIB = 2**20


def breakdown(**mib):
    return {category: int(mib.get(category, 0) * MIB) for category in CATEGORIES}


def phase(name, step, **mib):
    found = breakdown(**mib)
    return PhaseMemory(phase=name, step=step, micro_step=0, end=found, peak=found, highest=found)


def report(source="virtual GPU", activations=20.0, optimizer=30.0):
    """Two steps of a model of 15 MiB."""
    phases = []
    for step in (0, 1):
        state = {"optimizer_gpu": optimizer if step else 0, "gradients": 15 if step else 0}
        for name in PHASES:
            held = {"parameters": 15.0, **state}
            if name == "after_forward":
                held["activations"] = activations
            if name == "after_optimizer_step":
                held |= {"optimizer_gpu": optimizer, "gradients": 15, "temporaries": 15}
            phases.append(phase(name, step, **held))
    return MemoryReport(source=source, capacity_bytes=95 * MIB, phases=phases)


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
    monkeypatch.setattr("labkit.runs.records.secrets.token_hex", lambda size: f"{next(numbers):04x}")

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
