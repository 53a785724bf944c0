"""Students of five kinds, over the whole course: what each of them earns.

Everything is planned, on the profile of a laptop; the thinking one is also each notebook's own test, where it is run.
"""

import os
import re

import pytest
from support.walk import LABS, blank, solve, walk

from labkit.config.workspace import Workspace
from labkit.grading.grade import grade
from labkit.grading.points import Points
from labkit.grading.submit import submit
from labkit.lab.lesson import lesson_of

pytestmark = pytest.mark.slow
NOTEBOOKS = sorted(LABS.glob("*.ipynb"))
POINTS = Points()
MOST = sum(POINTS.most().values())
QUESTIONS = [(path.stem, question) for path in NOTEBOOKS for question in lesson_of(path.stem).questions]
ASK = re.compile(r'lab\.ask\("(\w+)", answer=(.*)\)')


@pytest.fixture(autouse=True)
def planned(tmp_path, monkeypatch):
    """A ledger of its own, in which nothing is run; what other tests have traced is not traced again."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".predictions").symlink_to(os.environ["TESTS_TRACES"])
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LABKIT_MODE", "plan")
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    monkeypatch.setenv("MPLBACKEND", "agg")


def handed_in(tmp_path):
    """The row of what is in the ledger."""
    archive, _ = submit(Workspace.find(), "student", tmp_path / "student.tar.gz")
    (row,) = grade(Workspace.find(), [archive])
    return row


def wrong(lab, id):
    """An answer that is right on no machine of the course, or else another choice than the solution's."""
    question = lesson_of(lab).question(id)
    if question.unit != "choice":
        return 1000
    return next(choice for choice in question.choices if choice != SOLUTIONS[lab][id])


SOLUTIONS = {
    path.stem: {
        found[1]: eval(found[2])
        for cell in solve().solved(path).cells if cell.cell_type == "code"
        for found in [ASK.fullmatch(cell.source.strip())] if found
    }
    for path in NOTEBOOKS
}  # fmt: skip


def test_who_only_executes_cells_earns_nothing_and_sees_no_traceback(tmp_path):
    withheld = 0
    for path in NOTEBOOKS:
        for source, shown in walk(blank(path)):
            assert shown is not None, source
            withheld += "[not yet shown]" in shown.text()
    assert withheld > len(QUESTIONS)
    row = handed_in(tmp_path)
    assert row.total == 0 and not row.given


def test_who_guesses_earns_what_a_commitment_is_worth_and_no_task(tmp_path):
    for path in NOTEBOOKS:

        def guessing(source, lab=path.stem):
            if asked := ASK.fullmatch(source.strip()):
                return [f"lab.ask({asked[1]!r}, answer={wrong(lab, asked[1])!r})"]
            return [source.replace("    return ...", "    return 1").replace("numbers = ...", "numbers = 1")]

        for _ in walk(blank(path), guessing):
            pass
    row = handed_in(tmp_path)
    assert all(one.before for one in row.given) and len(row.given) == len(QUESTIONS)
    assert row.total == len(QUESTIONS) * POINTS.committed
    assert not any(one.outcome == "passed" for one in row.checks if is_task(one))


def is_task(checked):
    return checked.check in {task.id for task in lesson_of(checked.lab).tasks}


def test_who_thinks_earns_all(tmp_path):
    for path in NOTEBOOKS:
        for _ in walk(solve().solved(path)):
            pass
    row = handed_in(tmp_path)
    assert not lost(row)
    assert {f"{one.lab}/{one.check}": one.tries for one in row.checks if is_task(one) and one.tries != 1} == {}


def lost(row):
    return {f"{lab}/{id}" for lab in POINTS.most() for id in POINTS.ids(lab)
            if POINTS.of_one(lab, id, row) != POINTS.of_one(lab, id)}  # fmt: skip


TOLD = {
    question.id for _, question in QUESTIONS if not question.measured and question.told_by.split()[:1] not in (
        ["kill"], ["captions"])
}  # fmt: skip
"""What a plan tells."""


def test_who_explores_loses_nothing(tmp_path):
    """Executes cells blank, then right, then again; and answers once more, otherwise, when it was told."""
    for path in NOTEBOOKS:
        before = {cell.id: cell.source for cell in blank(path).cells}
        again: list[str] = []
        notebook = solve().solved(path)
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.source != before[cell.id]:
                again.append(before[cell.id])

        def exploring(source, lab=path.stem, left=again):
            first = [left.pop(0)] if left and _filled(left[0], source) else []
            if "lab.explain(" in source and (id := re.search(r'explain\("(\w+)"', source)[1]) in TOLD:
                return [source, f"lab.ask({id!r}, answer={wrong(lab, id)!r})", source]
            return [*first, source, source]

        for _ in walk(notebook, exploring):
            pass
    row = handed_in(tmp_path)
    assert not lost(row)
    assert max(one.tries for one in row.checks) > 1
    assert not row.signs


def _filled(left, source):
    return (
        left.split("...")[0].split("= []")[0].split("= {}")[0]
        == source[: len(left.split("...")[0].split("= []")[0].split("= {}")[0])]
    )


def test_who_peeks_earns_no_commitment(tmp_path):
    """Passes every question, reads what is shown, and then answers right: a task is still to be done."""
    for path in NOTEBOOKS:

        def peeking(source):
            if asked := ASK.fullmatch(source.strip()):
                return [f"lab.ask({asked[1]!r}, answer='pass')"]
            return [source]

        for _ in walk(blank(path), peeking):
            pass
        for _ in walk(solve().solved(path), lambda source: [source] * bool(OPENS.search(source))):
            pass
    row = handed_in(tmp_path)
    assert not any(POINTS.of_one(lab, question.id, row) for lab, question in QUESTIONS if question.id in TOLD)
    assert not any(one.before for one in row.given if one.question in TOLD)


OPENS = re.compile(r"lab\.ask\(|Lab\(")
