"""For pytest alone: the notebooks are tests, and what they run goes to a ledger that is thrown away."""

import tempfile
from collections.abc import Iterator

import pytest

_ledger = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config: pytest.Config) -> None:
    """Execute notebooks also without ``--nbmake``. It is not in addopts, since tests/openstack has no nbmake."""
    config.option.nbmake = True
    config.option.nbmake_timeout = 900
    config.stash[_ledger] = tempfile.TemporaryDirectory(prefix="labkit-runs-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the ledger."""
    config.stash[_ledger].cleanup()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """One ledger for all notebooks, as a student has; the mode and the profile are the default ones."""
    if item.path.suffix != ".ipynb":  # in a process of xdist every test comes by here
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", item.config.stash[_ledger].name)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("LABKIT_PROFILE", "tiny")
        patch.delenv("LABKIT_MODE", raising=False)
        return (yield)
