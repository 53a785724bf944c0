"""What tests of several ranks share."""

import fcntl

import pytest

from labkit.ledger.run_folder import RunFolder


@pytest.fixture
def watched(tmp_path):
    """A run's folder that somebody watches."""
    folder = RunFolder(tmp_path / "tiny" / "reduced_batch" / "x")
    folder.path.mkdir(parents=True)
    with (folder.path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
