"""For tests and labs: runs go to a ledger that is thrown away, never to the student's."""

import os
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Set the ledger, unless somebody has. Notebooks are executed, so that ``pytest`` alone tests them too."""
    config.thrown_away = tempfile.TemporaryDirectory(prefix="labkit-runs-")
    os.environ.setdefault("LABKIT_RUNS", config.thrown_away.name)
    os.environ["HF_HUB_OFFLINE"] = "1"
    config.option.nbmake = True  # not in addopts: tests/openstack has an environment without nbmake
    config.option.nbmake_timeout = 900


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    config.thrown_away.cleanup()
