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


# -- the package's own, and others that are not to be written


@pytest.fixture
def packaged(monkeypatch, tmp_path, no_checkout):
    """labkit as installed from its wheel, in an empty folder, with an empty home."""
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return make(tmp_path / "site-packages" / "labkit" / "workspace")


def test_without_any_other_the_packages_own_is_found_and_nothing_is_written_there(packaged, tmp_path):
    found = Workspace.find()
    assert (found.root, found.configs) == (packaged, packaged / "configs")
    data, cache = tmp_path / "home" / ".local" / "share" / "labkit", tmp_path / "home" / ".cache" / "labkit"
    assert (found.home, found.runs, found.data) == (data, data / "runs", data / "data")
    assert found.predictions == cache / "predictions"
    assert not (tmp_path / "home").exists()


def test_a_workspace_of_ones_own_comes_before_the_packages(packaged, tmp_path):
    root = make(tmp_path / "here" / "workspace")
    assert Workspace.find().root == root
    assert Workspace.find().predictions == root / "runs" / ".predictions"


def test_the_folders_of_xdg_are_where_their_variables_say(packaged, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert Workspace.find().runs == tmp_path / "d" / "labkit" / "runs"
    assert Workspace.find().predictions == tmp_path / "c" / "labkit" / "predictions"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # which the specification has ignored
    assert Workspace.find().runs == tmp_path / "home" / ".local" / "share" / "labkit" / "runs"


def test_the_packages_own_is_not_written_to_when_it_is_named_either(packaged, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_WORKSPACE", str(packaged))
    assert Workspace.find().runs.is_relative_to(tmp_path / "home")
    with pytest.raises(ConfigError, match="cp -r .* workspace"):
        Workspace.find().check_writable()


def test_labkit_runs_takes_the_predictions_with_it(packaged, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "ledger"))
    assert Workspace.find().runs == tmp_path / "ledger"
    assert Workspace.find().predictions == tmp_path / "ledger" / ".predictions"


def test_a_workspace_of_ones_own_without_the_right_to_write_is_not_left_for_another(packaged, tmp_path, monkeypatch):
    root = make(tmp_path / "here" / "workspace")
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    assert Workspace.find().runs == root / "runs"  # a run says that it cannot be written, and what to set


def test_a_user_without_a_home_is_told_what_to_set(packaged, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module.Path, "home", nowhere)
    assert error_of() == "this user has no home folder; set XDG_DATA_HOME or LABKIT_RUNS."
