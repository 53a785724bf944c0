"""One control plane for all system tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from rig.plane import ControlPlane


@pytest.fixture(scope="session")
def plane():
    with ControlPlane() as plane:
        yield plane
