"""Launchers: what they set is taken, and what none of them sets is refused before a library reads it."""

import pytest
from errors_of import error_of

from labkit.cli import main
from labkit.config.launcher import check_launcher
from labkit.config.workspace import Workspace
from labkit.lab.machine import find_machine
from labkit.runs.ranks.launched import Launched

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1",
            "MASTER_PORT": "29500", "MASTER_ADDR": "a"}  # fmt: skip
SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1",
        "SLURM_NODEID": "1", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"}  # fmt: skip
GARBAGE = ["abc", "", " ", "-1", "1.5", "1e3", "0x1", "nan", "\u0663", "\u00b2", "9" * 400, "1 2", "$RANK", "0;ls"]


@pytest.mark.parametrize("environment", [{}, TORCHRUN, SRUN, {"RANK": "0"}, {"SLURM_PROCID": "0"}, {"WORLD_SIZE": "1"}])
def test_what_launchers_set_is_taken(environment):
    check_launcher(environment)


@pytest.mark.parametrize("name", sorted({*TORCHRUN, *SRUN} - {"MASTER_ADDR", "SLURM_STEP_ID", "SLURM_JOB_ID"}))
@pytest.mark.parametrize("value", GARBAGE)
def test_what_is_no_number_is_named(name, value):
    for others in ({}, TORCHRUN, SRUN):
        text = error_of(check_launcher, others | {name: value})
        assert text.startswith(f"{name}=")
        assert f"unset {name}" in text


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        (TORCHRUN | {"RANK": "4"}, ("RANK=4", "WORLD_SIZE=4")),
        (TORCHRUN | {"WORLD_SIZE": "0", "RANK": "0"}, ("RANK=0", "WORLD_SIZE=0")),
        (TORCHRUN | {"LOCAL_RANK": "2"}, ("LOCAL_RANK=2", "LOCAL_WORLD_SIZE=2")),
        ({"LOCAL_RANK": "9", "WORLD_SIZE": "2"}, ("LOCAL_RANK=9", "WORLD_SIZE=2")),
        (SRUN | {"SLURM_PROCID": "2"}, ("SLURM_PROCID=2", "SLURM_STEP_NUM_TASKS=2")),
    ],
)
def test_a_rank_that_is_not_among_the_ranks_is_named(environment, names):
    text = error_of(check_launcher, environment)
    assert all(name in text for name in names)


@pytest.mark.parametrize(
    "argv", [["run", "reduced_batch", "max_steps=1"], ["plan", "reduced_batch"], ["advise", "baseline"]]
)
@pytest.mark.parametrize("value", ["abc", "", "7"])
def test_the_command_says_it_in_one_line(argv, value, ledger, monkeypatch, capsys):
    monkeypatch.setenv("RANK", value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: RANK={value}" if value == "7" else f"error: RANK={value!r}")
    assert len(error.splitlines()) == 1
    assert ledger.folders() == []


def test_notebooks_and_runs_say_it_too(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "x")
    assert "SLURM_PROCID='x'" in error_of(Launched.find)
    assert "SLURM_PROCID='x'" in error_of(find_machine, Workspace.find())
