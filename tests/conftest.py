"""Shared by all tests: no hub, one thread, and a ledger of their own."""

import contextlib
import fcntl
import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ |= {"MKL_CBWR": "AVX2,STRICT", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}  # as runs have it
os.environ.pop("COLUMNS", None)  # the processes of xdist have one, and tables would be as narrow

from linked import Linked, source, wheel
from made import report
from support import quick
from support.kernel import specify

from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.lab.lab import Lab
from labkit.lab.result import Result
from labkit.ledger.ledger import Ledger
from labkit.ledger.records import Record
from labkit.runs.fork_server import share
from labkit.runs.runner import run


def pytest_addoption(parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out what is slow, and begin with what has changed")


def pytest_configure(config) -> None:
    config.ends = contextlib.ExitStack()
    if config.option.quick:
        config.pluginmanager.register(quick)
    if "PYTEST_XDIST_WORKER" not in os.environ:  # one for all processes of xdist
        folder = Path(config.ends.enter_context(tempfile.TemporaryDirectory()))
        os.environ["HF_HOME"] = str(folder / "hub")  # nothing is left in the home folder
        # steps that were executed for one test, or notebook, are not executed for the next
        os.environ.setdefault("TESTS_TRACES", str(folder / "traces"))
        Path(os.environ["TESTS_TRACES"]).mkdir(parents=True, exist_ok=True)
        if not config.option.quick:
            config.ends.enter_context(share(folder))  # libraries are imported once for all that the tests start


def pytest_unconfigure(config) -> None:
    config.ends.close()


def pytest_collection_modifyitems(config, items) -> None:
    """Notebooks first, then files with slow tests: a process that is given a long one last works on alone."""
    if not config.option.quick:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path.suffix != ".ipynb", item.path not in slow))


def pytest_collection_finish(session) -> None:
    session.config.environment = dict(os.environ)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """What a file of tests or a library in it has set in this process is gone after the file: with it the shared server
    would fit no later process."""
    yield
    if nextitem is None or nextitem.path != item.path:
        mine = {name: value for name, value in os.environ.items() if name.startswith("PYTEST_")}
        os.environ.clear()
        os.environ.update(item.config.environment | mine)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[], object]], Path]:
    """A function that gives a ledger's folder, filled by ``make`` with the profile tiny.

    ``make test`` starts several processes; the first that needs the folder fills it, the others wait and read it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def give(name: str, make: Callable[[], object]) -> Path:
        folder = shared / name
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = folder / ".done"
            if not done.exists():
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("LABKIT_RUNS", str(folder))
                    patch.setenv("LABKIT_PROFILE", "tiny")
                    patch.delenv("LABKIT_MODE", raising=False)
                    make()
                done.touch()
        return folder

    return give


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The wheel."""
    folder = tmp_path_factory.mktemp("dist")
    return wheel(source(folder / "source"), folder)


@pytest.fixture(scope="session")
def installed(built, tmp_path_factory) -> Linked:
    """The wheel in an environment that has what it declares and nothing else."""
    return Linked(tmp_path_factory.mktemp("installed"), built)


@pytest.fixture(scope="session")
def course_ledger(made_once) -> Ledger:
    """The whole course, run once on the profile tiny, two experiments at a time.

    ``TESTS_COURSE`` names a ledger that has it already: ``.ci/run`` has just run it, by ``make demo``.
    """

    def make() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, load_profile(Workspace.find(), "tiny").expected))

    there = os.environ.get("TESTS_COURSE")
    return Ledger(Path(there) if there else made_once("course", make))


@pytest.fixture(scope="session")
def traces() -> Path:
    """A folder of steps that were executed at full size: ``TESTS_TRACES``, which tests in several calls of pytest read
    and fill, or one for this call alone."""
    return Path(os.environ["TESTS_TRACES"])


@pytest.fixture(scope="session")
def course_records(course_ledger) -> dict[str, Record]:
    """Records of the course by experiment."""
    return {record.experiment: record for record in course_ledger.records("tiny")}


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Ledger:
    """An empty ledger that runs of this test go to."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    return Ledger(tmp_path / "runs")


@pytest.fixture
def in_time() -> Iterator[None]:
    """What waits for somebody to write into a pipe waits for ever; here it fails."""

    def too_late(*args: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def warm_kernels(tmp_path_factory, monkeypatch) -> None:
    """Notebooks that this test executes have a kernel that is forked."""
    folder = tmp_path_factory.mktemp("kernels")
    specify(folder)
    monkeypatch.setenv("JUPYTER_PATH", str(folder))


@pytest.fixture
def lab(ledger, monkeypatch):
    """A function that gives a lab on the profile tiny."""
    monkeypatch.delenv("LABKIT_MODE", raising=False)
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    return Lab


@pytest.fixture
def add_run(ledger, monkeypatch):
    """A function that puts a run into the ledger, as if it had ended like this."""
    numbers = itertools.count()  # runs of one second are in the order of these
    monkeypatch.setattr("labkit.ledger.ledger.secrets.token_hex", lambda size: f"{next(numbers):04x}")

    def add(experiment, overrides=None, memory=None, **values):
        resolved = resolve(Workspace.find(), experiment, overrides, "tiny")
        with ledger.open_run(resolved, overrides or {}, {}) as folder:
            found = memory or report()
            record = Record.from_dict(
                folder.read().to_dict()
                | {"status": "ok", "memory": found.to_dict(), "peak_bytes": found.peak_bytes} | values
            )  # fmt: skip
            folder.write(record)
        return Result(record)

    return add
