"""Names and files that no one means: refused on one line, and no one waits."""

import os
import shutil

import pytest
from errors_of import error_of

from labkit.cli import main
from labkit.config.layers import course, load_experiment
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    """A copy of the course's configs and profiles."""
    for name in ("configs", "profiles"):
        shutil.copytree(getattr(Workspace.find(), name), tmp_path / "workspace" / name)
    return Workspace(tmp_path / "workspace")


def spoil(path, kind):
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "over 1 MiB":
            with path.open("wb") as file:
                file.truncate(2**31)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "over 1 MiB"])
def test_a_file_of_a_workspace_that_is_none_is_named(workspace, kind):
    spoil(workspace.configs / "odd.yaml", kind)
    spoil(workspace.profiles / "odd.yaml", kind)
    for text in (
        error_of(load_experiment, workspace, "odd"), error_of(load_experiment, workspace, "configs/odd.yaml"),
        error_of(course, workspace), error_of(load_profile, workspace, "odd"),
    ):  # fmt: skip
        assert "odd.yaml" in text
        assert kind in text


@pytest.mark.parametrize("length", [300, 5000])
@pytest.mark.parametrize(
    "verb", [["run"], ["plan"], ["advise"], ["slurm"], ["show"], ["diagnose"], ["run", "--resume"]]
)
def test_a_long_name_is_one_line_and_no_trace(verb, length, ledger, capsys):
    for name in ("x" * length, "x" * length + ".yaml"):
        assert main([*verb, name]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
    assert ledger.folders() == []


@pytest.mark.parametrize("place", ["/" + "x" * 5000, "/dev/null", "/nowhere"])
def test_a_workspace_that_is_none_is_named(place, monkeypatch):
    monkeypatch.setenv("LABKIT_WORKSPACE", place)
    assert error_of(Workspace.find).startswith("no workspace in LABKIT_WORKSPACE=/")
