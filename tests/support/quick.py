"""Quick: what ``make quick`` runs. Tests that are not marked ``slow``, those of changed modules first.

A test without the mark that starts a process fails here, so that the mark is never forgotten.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTS = ("subprocess.Popen", "os.fork", "os.posix_spawn")
"""What Python tells of before a process is started."""

_running: list[str] = []


def refuse(event: str, _arguments: object) -> None:
    """An audit hook: no test may start a process."""
    if event in STARTS and _running:
        raise RuntimeError(f"{_running[-1]} starts a process: mark it with @pytest.mark.slow")


def changed() -> set[str]:
    """The files that differ from the last commit, and those that git does not know yet."""
    said = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    return {entry[3:] for entry in said.stdout.split("\0") if entry[2:3] == " "}


def first(test: Path, files: set[str]) -> bool:
    """Whether a test file is of a changed module: its own name, or a module whose name it has."""
    here = test.relative_to(ROOT)
    modules = {Path(name).stem for name in files if name.startswith("labkit/")}
    return str(here) in files or here.stem.removeprefix("test_") in modules


def pytest_configure(config: pytest.Config) -> None:
    """Begin to listen; the files are looked up once, before any test runs."""
    sys.addaudithook(refuse)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, and put what has changed in front."""
    left = [item for item in items if item.get_closest_marker("slow") or item.path.suffix == ".ipynb"]
    config.hook.pytest_deselected(items=left)
    files = changed()
    out = set(left)
    items[:] = sorted((item for item in items if item not in out), key=lambda item: not first(item.path, files))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """From here on a process is the test's."""
    _running.append(item.nodeid)
    try:
        return (yield)
    finally:
        _running.pop()
