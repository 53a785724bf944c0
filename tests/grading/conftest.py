"""One real ledger for all tests of handing in, and a student a call."""

import itertools

import pytest
from students import another, do_labs, hand_in


@pytest.fixture(scope="session")
def real_ledger(made_once):
    """Three real runs with the answers and checks of two labs."""
    return made_once("handed-in", do_labs)


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
