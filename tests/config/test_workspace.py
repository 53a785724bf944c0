"""The workspace: where it is found, and what lies in it."""

from pathlib import Path

import pytest

from labkit.config import workspace as module
from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    """The reader's own settings stay out of these tests."""
    monkeypatch.delenv("LABKIT_WORKSPACE", raising=False)
    monkeypatch.delenv("LABKIT_RUNS", raising=False)


@pytest.fixture
def no_checkout(monkeypatch, tmp_path):
    """labkit as installed without a checkout around it."""
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "labkit" / "config" / "workspace.py"))


def make(root):
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "baseline.yaml").write_text("number: 1\n")
    return root


def test_the_checkouts_workspace_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Workspace.find().root == CHECKOUT / "workspace"


def test_labkit_workspace_names_it(tmp_path, monkeypatch):
    root = make(tmp_path / "mine")
    make(tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(root))
    assert Workspace.find().root == root


def test_a_relative_name_becomes_an_absolute_path(tmp_path, monkeypatch):
    root = make(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_WORKSPACE", "mine")
    assert Workspace.find().root == root
    assert Workspace.find().root.is_absolute()


def test_a_name_that_holds_no_workspace_is_refused_though_there_is_another(tmp_path, monkeypatch):
    make(tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_WORKSPACE", str(tmp_path / "nowhere"))
    text = error_of()
    assert f"LABKIT_WORKSPACE={tmp_path / 'nowhere'}" in text
    assert "configs/baseline.yaml" in text


def test_an_empty_name_is_none(tmp_path, monkeypatch):
    root = make(tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_WORKSPACE", "")
    assert Workspace.find().root == root


@pytest.mark.parametrize("here", [".", "workspace", "labs", "labs/deep/er"])
def test_the_workspace_is_found_from_above_within_and_beside(tmp_path, monkeypatch, no_checkout, here):
    root = make(tmp_path / "workspace")
    folder = tmp_path / here
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    assert Workspace.find().root == root


@pytest.mark.parametrize("here", ["configs", "runs/tiny/xxl"])
def test_the_workspace_is_found_from_a_folder_of_its_own(tmp_path, monkeypatch, no_checkout, here):
    root = make(tmp_path / "workspace")
    (root / here).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(root / here)
    assert Workspace.find().root == root


def test_the_nearest_workspace_wins(tmp_path, monkeypatch):
    make(tmp_path / "workspace")
    inner = make(tmp_path / "course" / "workspace")
    monkeypatch.chdir(tmp_path / "course")
    assert Workspace.find().root == inner


def test_no_workspace_at_all_is_said_with_the_way_out(tmp_path, monkeypatch, no_checkout):
    monkeypatch.chdir(tmp_path)
    text = error_of()
    assert str(tmp_path) in text
    assert "LABKIT_WORKSPACE" in text
    assert "configs/baseline.yaml" in text


def test_a_folder_without_a_baseline_is_no_workspace(tmp_path, monkeypatch, no_checkout):
    (tmp_path / "workspace" / "configs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path) in error_of()


def test_what_lies_in_a_workspace(tmp_path):
    workspace = Workspace(tmp_path)
    folders = (workspace.configs, workspace.profiles, workspace.data, workspace.runs)
    assert folders == tuple(tmp_path / name for name in ("configs", "profiles", "data", "runs"))


def test_labkit_runs_puts_the_ledger_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_RUNS", "ledger")
    assert Workspace(tmp_path / "w").runs == tmp_path / "ledger"


def error_of():
    """The text of the ConfigError, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        Workspace.find()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text
