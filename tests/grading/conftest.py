"""One real ledger for all tests of handing in, and a student a call."""

import fcntl
import itertools
import os

import pytest
from students import another, do_labs, hand_in


@pytest.fixture(scope="session")
def real_ledger(tmp_path_factory):
    """Three real runs with the answers and checks of two labs; made once, also where tests run in several processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "handed-in"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / ".done"
        if not done.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LABKIT_RUNS", str(folder))
                patch.setenv("LABKIT_PROFILE", "tiny")
                patch.delenv("LABKIT_MODE", raising=False)
                do_labs()
            done.touch()
    return folder


@pytest.fixture
def student(real_ledger, tmp_path, monkeypatch):
    """A function that gives a new student's ledger, of whom nothing is another's."""
    numbers = itertools.count(-30)  # hours: no one works in the future
    return lambda: another(real_ledger, tmp_path / f"ledger{(n := next(numbers))}", n)


@pytest.fixture
def handed(tmp_path, monkeypatch):
    """A function that hands in a ledger under a name; the archives lie in one folder."""
    folder = tmp_path / "handed"
    folder.mkdir()

    def give(ledger, name="Ann", file=None):
        return hand_in(ledger, name, folder / f"{file or name}.tar.gz", monkeypatch)

    return give
