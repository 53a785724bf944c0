"""For pytest alone: the notebooks are tests, as a student hands them in who has thought about everything.

Each is executed with the answers of docs/instructor/solutions, and must then earn every point that its lab has. What
they run goes to a ledger that is thrown away.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbmake.pytest_items import NotebookFile, NotebookItem
from support.kernel import specify
from support.walk import solve

from labkit.config.workspace import Workspace
from labkit.grading.grade import grade
from labkit.grading.points import Points
from labkit.grading.submit import submit

HERE = Path(__file__).parent
_ledgers = pytest.StashKey[dict[Path, tempfile.TemporaryDirectory]]()
_kernels = pytest.StashKey[tempfile.TemporaryDirectory]()


class Solved(NotebookItem):
    """One notebook, filled in."""

    def runtest(self) -> None:
        """Execute it in a folder that has what lies beside it, and count its points."""
        lab = Path(self.filename).stem
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "labs"
            place.mkdir()
            for beside in HERE.iterdir():
                if beside.is_dir() and not beside.name.startswith("_"):
                    (place / beside.name).symlink_to(beside)
            nbformat.write(solve().solved(Path(self.filename)), place / f"{lab}.ipynb")
            self.filename = str(place / f"{lab}.ipynb")
            super().runtest()
            archive, _ = submit(Workspace.find(), "solved", Path(folder) / "solved.tar.gz")
            (row,) = grade(Workspace.find(), [archive])
        points = Points()
        lost = {
            id: f"{points.of_one(lab, id, row):g} of {points.of_one(lab, id):g}"
            for id in points.ids(lab)
            if points.of_one(lab, id, row) != points.of_one(lab, id)
        }
        assert not lost, f"{lab} does not earn all of its points: {lost}"

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Points that are lacking are said as any assertion."""
        return str(excinfo.value) if isinstance(excinfo.value, AssertionError) else super().repr_failure(excinfo, style)


class Notebook(NotebookFile):
    """A notebook of the course."""

    def collect(self) -> Iterator[Solved]:
        """The one test that it is."""
        yield Solved.from_parent(self, filename=str(self.path))


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: Any) -> Iterator[None]:
    """Notebooks of the course are filled in; those of the first version are nbmake's own."""
    found = yield
    if file_path.suffix != ".ipynb":
        return found
    return [Notebook.from_parent(parent, path=file_path)]


def pytest_configure(config: pytest.Config) -> None:
    """Execute notebooks also without ``--nbmake``; ledgers and a kernel for all of them.

    It is not in addopts, since tests/openstack has no nbmake.
    """
    config.option.nbmake = True
    config.option.nbmake_timeout = 900
    config.stash[_ledgers] = {}
    config.stash[_kernels] = tempfile.TemporaryDirectory()
    specify(Path(config.stash[_kernels].name))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the ledgers and the kernel."""
    for ledger in config.stash[_ledgers].values():
        ledger.cleanup()
    config.stash[_kernels].cleanup()


def _ledger(ledgers: dict[Path, tempfile.TemporaryDirectory], notebooks: Path) -> Path:
    if notebooks not in ledgers:
        ledgers[notebooks] = tempfile.TemporaryDirectory(prefix="labkit-runs-")
        if traces := os.environ.get("TESTS_TRACES"):  # a step that a test has executed is not executed here
            (Path(ledgers[notebooks].name) / ".predictions").symlink_to(traces)
    return Path(ledgers[notebooks].name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """One ledger for all notebooks of a folder, as a student has; the mode and the profile are the default ones."""
    if item.path.suffix != ".ipynb":  # in a process of xdist every test comes by here
        return (yield)
    runs = _ledger(item.config.stash[_ledgers], item.path.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(runs))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("JUPYTER_PATH", item.config.stash[_kernels].name)
        patch.setenv("LABKIT_PROFILE", "tiny")
        patch.delenv("LABKIT_MODE", raising=False)
        return (yield)
