"""Shared by the tests of the config room."""

import shutil
from pathlib import Path

import pytest

from labkit.config.workspace import Workspace

COMMITTED = Workspace(Path(__file__).parents[2] / "workspace")


@pytest.fixture
def scratch(tmp_path) -> Workspace:
    """A workspace to break: the committed configs and profiles, copied."""
    for folder in (COMMITTED.configs, COMMITTED.profiles):
        shutil.copytree(folder, tmp_path / folder.name)
    return Workspace(tmp_path)
