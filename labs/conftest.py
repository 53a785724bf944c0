"""For pytest alone: the notebooks are tests, and what they run goes to a ledger that is thrown away."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kernel import specify

_ledger = pytest.StashKey[tempfile.TemporaryDirectory]()
_kernels = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config: pytest.Config) -> None:
    """Execute notebooks also without ``--nbmake``. It is not in addopts, since tests/openstack has no nbmake."""
    config.option.nbmake = True
    config.option.nbmake_timeout = 900
    config.stash[_ledger] = tempfile.TemporaryDirectory(prefix="labkit-runs-")
    config.stash[_kernels] = tempfile.TemporaryDirectory()
    specify(Path(config.stash[_kernels].name))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the ledger and the kernel."""
    config.stash[_ledger].cleanup()
    config.stash[_kernels].cleanup()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """One ledger for all notebooks, as a student has; the mode and the profile are the default ones."""
    if item.path.suffix != ".ipynb":  # in a process of xdist every test comes by here
        return (yield)
    runs = Path(item.config.stash[_ledger].name)
    if (traces := os.environ.get("TESTS_TRACES")) and not (runs / ".predictions").is_symlink():
        (runs / ".predictions").symlink_to(traces)  # a step that a test has executed is not executed here
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(runs))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("JUPYTER_PATH", item.config.stash[_kernels].name)
        patch.setenv("LABKIT_PROFILE", "tiny")
        patch.delenv("LABKIT_MODE", raising=False)
        return (yield)
