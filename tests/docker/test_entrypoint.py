"""A workspace gets what it lacks and keeps what it has; the token is its user's alone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripts import loaded

SCRIPT = Path(__file__).parents[2] / "docker" / "entrypoint.py"


@pytest.fixture
def entrypoint(monkeypatch, tmp_path):
    module = loaded(SCRIPT)
    shipped, workspace = tmp_path / "shipped", tmp_path / "workspace"
    (shipped / "labs").mkdir(parents=True)
    (shipped / "labs" / "01.ipynb").write_text("lab 1")
    (shipped / "labs" / "02.ipynb").write_text("lab 2")
    (shipped / "finetune.py").write_text("script")
    workspace.mkdir()
    monkeypatch.setattr(module, "SHIPPED", shipped)
    return module


def files(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_empty_workspace_gets_everything_and_nothing_twice(entrypoint, tmp_path):
    workspace = tmp_path / "workspace"
    assert len(entrypoint.copy_missing(entrypoint.SHIPPED, workspace)) == 3
    assert files(workspace) == files(entrypoint.SHIPPED)
    assert entrypoint.copy_missing(entrypoint.SHIPPED, workspace) == []


def test_an_edited_file_stays_and_a_new_lab_comes(entrypoint, tmp_path):
    workspace = tmp_path / "workspace"
    entrypoint.copy_missing(entrypoint.SHIPPED, workspace)
    (workspace / "labs" / "01.ipynb").write_text("my answer")
    (workspace / "finetune.py").unlink()
    (workspace / "finetune.py").symlink_to("elsewhere")  # a student's link counts, whatever it leads to
    (entrypoint.SHIPPED / "labs" / "01.ipynb").write_text("lab 1, second edition")
    (entrypoint.SHIPPED / "labs" / "03.ipynb").write_text("lab 3")
    assert entrypoint.copy_missing(entrypoint.SHIPPED, workspace) == [workspace / "labs" / "03.ipynb"]
    assert (workspace / "labs" / "01.ipynb").read_text() == "my answer"
    assert (workspace / "finetune.py").readlink() == Path("elsewhere")


def test_a_copy_that_breaks_off_leaves_no_half_file(entrypoint, tmp_path, monkeypatch):
    workspace = tmp_path / "workspace"

    def full(source, target):
        Path(target).write_text("la")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(entrypoint.shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            entrypoint.copy_missing(entrypoint.SHIPPED, workspace)
    entrypoint.copy_missing(entrypoint.SHIPPED, workspace)
    assert files(workspace) == files(entrypoint.SHIPPED)


def test_each_start_has_a_token_of_its_own_that_only_its_user_reads(entrypoint, tmp_path):
    first = entrypoint.make_token(tmp_path / "runtime")
    stale = first.with_name("jpserver-1.json")
    stale.write_text("{}")
    token = first.read_text()
    second = entrypoint.make_token(tmp_path / "runtime")
    assert len(token) == 48
    assert second.read_text() != token
    assert not stale.exists()
    assert stat.S_IMODE(second.stat().st_mode) == 0o600
    assert stat.S_IMODE(second.parent.stat().st_mode) == 0o700


def started(tmp_path, command, **settings):
    """The entrypoint as a process of its own, with its settings in the environment."""
    workspace = tmp_path / "workspace"
    workspace.mkdir(exist_ok=True)
    env = os.environ | {
        "LABKIT_WORKSPACE": str(workspace), "HOME": str(workspace / ".home"),
        "XDG_CACHE_HOME": str(workspace / "cache"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }  # fmt: skip
    for name in ("JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE", "LABKIT_FETCH"):
        env.pop(name, None)
    command = [sys.executable, str(SCRIPT), *command]
    return subprocess.run(command, env=env | settings, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_runs_with_the_token_in_a_file_and_nowhere_else(tmp_path):
    done = started(tmp_path, ["sh", "-c", 'env; echo "found: $(cat "$JUPYTER_TOKEN_FILE")"'])
    token = (tmp_path / "runtime" / "token").read_text()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(token) == 1
    assert f"found: {token}" in done.stdout
    assert (tmp_path / "workspace" / ".home").is_dir()


@pytest.mark.slow
def test_a_token_that_is_given_is_left_alone(tmp_path):
    done = started(tmp_path, ["sh", "-c", 'echo "file: ${JUPYTER_TOKEN_FILE:-none}"'], JUPYTER_TOKEN="given")
    assert "file: none" in done.stdout
    assert not (tmp_path / "runtime").exists()


@pytest.mark.slow
def test_a_workspace_that_cannot_be_written_is_said_with_the_next_step(tmp_path):
    (tmp_path / "workspace").write_text("not a folder")
    env = os.environ | dict.fromkeys(("LABKIT_WORKSPACE", "HOME", "XDG_CACHE_HOME"), str(tmp_path / "workspace" / "x"))
    done = subprocess.run([sys.executable, str(SCRIPT), "true"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("problem: the workspace is not ready")
    assert "must be able to write" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_weights_are_fetched_beside_the_command_and_their_log_is_kept(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "labkit").write_text('#!/bin/sh\necho "called: $*"\n')
    (programs / "labkit").chmod(0o755)
    log = tmp_path / "workspace" / "cache" / "fetch.log"
    wait = f"until grep -q called {log}; do sleep 0.05; done"
    path = f"{programs}:{os.environ['PATH']}"
    done = started(tmp_path, ["sh", "-c", wait], LABKIT_FETCH="--profile h100-94gb", PATH=path)
    assert done.returncode == 0, done.stderr
    assert log.read_text() == "called: fetch --profile h100-94gb\n"
