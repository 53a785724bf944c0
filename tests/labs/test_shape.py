"""The shape of every lab: short cells, prose first, something shown, checks, no outputs, no numbers in prose."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from support.walk import HERE, of_the_instructor

from labkit.lab.lesson import LABS, lesson_of

FOLDER = Path(__file__).parents[2] / "labs"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECTIONS = (
    "**Question.**", "## Setup", "## Predict", "## Check", "## Your turn", "## The same on real hardware", "## Summary",
    "**Exercises.**",
)  # fmt: skip
MEASURED = re.compile(
    r"\d[\d.,]*\s*(bytes|[KMGT]i?B\b|%|percent|s\b|ms\b|seconds?\b|samples/s|samples a second)|loss of \d"
)
"""A number with a unit that only a measurement gives. Bits, batch sizes and minutes of reading are none."""


def cells(path, kind=None):
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if kind is None or cell.cell_type == kind]


def prose(path):
    return "\n".join(cell.source for cell in cells(path, "markdown"))


def calls(path):
    """Method and first argument of every call on ``lab``."""
    for cell in cells(path, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
                yield node.func.attr, first


each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_every_lab_has_a_notebook_and_a_lesson():
    assert [path.stem for path in NOTEBOOKS] == list(LABS)


@each
def test_it_has_15_to_30_short_cells(path):
    found = cells(path)
    assert 15 <= len(found) <= 30
    for cell in found:
        assert len(cell.source.splitlines()) <= 12, cell.source
        assert len(cell.source.split()) <= 120, cell.source
        assert max(map(len, cell.source.splitlines())) <= 120, cell.source


@each
def test_it_has_the_sections_in_their_order(path):
    text = prose(path)
    places = [text.index(section) for section in SECTIONS]
    assert places == sorted(places)
    assert "**Minutes:**" in text and "**Needs:**" in text and "Open:" in text


@each
def test_prose_comes_before_code(path):
    kinds = [cell.cell_type for cell in cells(path)]
    assert kinds[0] == "markdown"
    for at in range(len(kinds) - 3):
        assert "markdown" in kinds[at : at + 4], f"cells {at} to {at + 3} are all code"


@each
def test_each_cell_shows_something(path):
    for cell in cells(path, "code"):
        assert isinstance(ast.parse(cell.source).body[-1], ast.Expr), cell.source


@each
def test_no_cell_asks_for_the_machine(path):
    for cell in cells(path, "code"):
        tree = ast.parse(cell.source)
        assert not any(isinstance(node, ast.If) for node in ast.walk(tree))
        imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert [node.module for node in imported] == (["labkit.lab"] if imported else [])
        assert "environ" not in cell.source and "profile" not in cell.source


@each
def test_questions_and_checks_are_those_of_the_lesson(path):
    lesson = lesson_of(path.stem)
    found = list(calls(path))
    asked = [first for name, first in found if name == "ask"]
    explained = [first for name, first in found if name == "explain"]
    for id in asked:
        lesson.question(id)
    for question in lesson.questions:
        assert question.id in asked, f"{question.id} is not asked"
        assert question.id in explained, f"{question.id} is not explained"
    for id in explained:
        assert id in asked or lesson.topic(id)
    for topic in lesson.topics:
        assert topic.id in explained, f"{topic.id} is not said"
    checked = [first for name, first in found if name == "check"]
    assert checked
    explained_to = [
        *(q for q in lesson.questions if q.id in explained),
        *(t for t in lesson.topics if t.id in explained),
    ]
    handed = {name for one in explained_to for name in one.about if name.startswith("?")}
    for check in lesson.checks:
        needs_own = {name for name in check.about if name.startswith("?")} - handed
        assert check.id in checked or (None in checked and not needs_own), f"{check.id} is not checked"
    derived = [first for name, first in found if name == "derive"]
    assert sorted(derived) == sorted(one.id for one in lesson.derivations)
    assert len(lesson.tasks) >= 2, "fewer than two tasks need the student"


@each
def test_what_a_task_is_about_is_left_to_the_student(path):
    """A blank cell before it: it cannot be passed by executing what is there."""
    lesson = lesson_of(path.stem)
    tasks = {task.id for task in lesson.tasks}
    empty = False
    for cell in cells(path, "code"):
        tree = ast.parse(cell.source)
        asked = any(isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("ask", "write")
                    for node in ast.walk(tree))  # fmt: skip
        blank = any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(tree))
        empty = (empty or blank or "= []  #" in cell.source or "= {}  #" in cell.source) and not asked
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("check", "derive") and node.args:
                tasks.discard(node.args[0].value)
                assert empty or not lesson_task(lesson, node.args[0].value), cell.source
    assert not tasks


def lesson_task(lesson, id):
    return id in {task.id for task in lesson.tasks}


@each
def test_the_exercises_have_a_place_for_their_answers(path):
    assert prose(path).count("**Exercises.** 1. ") == 1
    text = " ".join(prose(path).split("**Exercises.**")[1].split())
    assert "2. " in text and "3. Open:" in text
    assert sum(cell.source == "lab.write(first=..., second=..., third=...)" for cell in cells(path, "code")) == 1


@each
def test_questions_are_asked_before_the_runs_they_are_about(path):
    found = list(calls(path))
    lesson = lesson_of(path.stem)
    for question in lesson.questions:
        asked = found.index(("ask", question.id))
        assert asked < found.index(("explain", question.id))
        first_runs = [found.index(("run", name)) for name in question.about if ("run", name) in found]
        assert asked < max(first_runs, default=len(found)), f"{question.id} is asked after the runs that answer it"


@each
def test_students_answers_are_left_empty(path):
    for cell in cells(path, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "ask":
                given = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
                assert [one.value for one in given] == [...]


@each
def test_there_are_no_outputs_and_ids_are_stable(path):
    found = cells(path)
    assert [cell["id"] for cell in found] == [f"cell-{at:02d}" for at in range(len(found))]
    for cell in cells(path, "code"):
        assert cell.outputs == [] and cell.execution_count is None


@each
def test_no_measured_number_stands_in_prose(path):
    assert not (found := MEASURED.search(prose(path))), found


@pytest.mark.parametrize("text", ["it takes 14 GiB", "a peak of 84.8 MiB", "30% less", "in 12 s", "loss of 2.6"])
def test_a_measured_number_would_be_seen(text):
    assert MEASURED.search(text)


@each
def test_links_lead_to_notebooks(path):
    for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
        assert (FOLDER / target).exists(), target


@each
def test_the_minutes_are_those_of_what_it_asks_for_and_the_guide_says_the_same(path):
    minutes = of_the_instructor("minutes")
    said = minutes.said(path)
    assert abs(said - minutes.minutes(path)) < 5
    guide = (HERE / "docs" / "instructor" / "README.md").read_text(encoding="utf-8")
    assert re.findall(rf"^\| {path.stem[:2]} [^|]+ \| (\d+) \|", guide, re.MULTILINE) == [str(said)]
