"""Walk: notebooks as tests read them, and executed cell by cell in this process, by students of several kinds."""

import ast
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

from labkit.lab.lesson import lesson_of

HERE = Path(__file__).parents[2]
LABS = HERE / "labs"

ONLY_RUN = {"forgets", "kernel_says", "missing_bytes"}
"""What nothing tells where nothing is run, besides the questions that only a run answers."""

Source = str
Student = Callable[[Source], list[Source]]
"""What a student executes in place of a cell."""


def solve() -> Any:
    """The module that fills notebooks in."""
    return of_the_instructor("solve")


def of_the_instructor(name: str) -> Any:
    """A module of docs/instructor."""
    spec = importlib.util.spec_from_file_location(name, HERE / "docs" / "instructor" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def untold(lab: str) -> set[str]:
    """Ids of a lab that a student who only plans cannot earn."""
    lesson = lesson_of(lab)
    measured = {question.id for question in lesson.questions if question.measured}
    return measured | {one.id for one in lesson.all if one.id in ONLY_RUN}


def blank(path: Path) -> nbformat.NotebookNode:
    """The notebook as it is."""
    return nbformat.read(path, as_version=4)


def code_of(path: Path) -> list[str]:
    """The cells of code, in their order; none of a file that is not there."""
    return [cell.source for cell in blank(path).cells if cell.cell_type == "code"] if path.exists() else []


def walk(notebook: nbformat.NotebookNode, student: Student = lambda source: [source]) -> Iterator[tuple[Source, Any]]:
    """Every code cell with what it shows."""
    names: dict[str, Any] = {}
    with _beside_the_notebooks():
        for cell in notebook.cells:
            if cell.cell_type == "code":
                for source in student(cell.source):
                    yield source, _executed(source, names)


def _executed(source: Source, names: dict[str, Any]) -> Any:
    tree = ast.parse(source)
    last = tree.body.pop()
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@contextmanager
def _beside_the_notebooks() -> Iterator[None]:
    was = Path.cwd()
    os.chdir(LABS)
    try:
        yield
    finally:
        os.chdir(was)
