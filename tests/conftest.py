"""Shared by all tests: no hub, one thread, and a ledger of their own."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.runs.records import Ledger, Record
from labkit.runs.runner import run


def pytest_configure(config) -> None:
    config.hub_cache = tempfile.TemporaryDirectory()
    os.environ["HF_HOME"] = config.hub_cache.name  # nothing is left in the home folder


def pytest_unconfigure(config) -> None:
    config.hub_cache.cleanup()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items) -> None:
    """Of the processes that ``make test`` starts, one takes a whole file, and one all that needs the course's runs."""
    for item in items:
        needs_course = "course_ledger" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("course" if needs_course else item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def course_ledger(tmp_path_factory) -> Ledger:
    """The whole course, run once on the profile tiny, two experiments at a time."""
    folder = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder))
        names = list(load_profile(Workspace.find(), "tiny").expected)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, names))
    return Ledger(folder)


@pytest.fixture(scope="session")
def course_records(course_ledger) -> dict[str, Record]:
    """Records of the course by experiment."""
    return {record.experiment: record for record in course_ledger.records("tiny")}


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Ledger:
    """An empty ledger that runs of this test go to."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    return Ledger(tmp_path / "runs")
