"""Learning: what the class page and the rows say of the ten questions before and after."""

import json
from datetime import UTC, datetime

import pytest

from labkit.config.workspace import Workspace
from labkit.grading.class_page import class_page
from labkit.grading.grade import Row, grade
from labkit.grading.learning import Learned, of_class
from labkit.grading.points import Points
from labkit.grading.sheet import as_csv, facts
from labkit.grading.submit import submit
from labkit.lab.journal import Journal
from labkit.lab.quiz import Quiz, drawn


@pytest.fixture
def handed_in(tmp_path, monkeypatch):
    """A function that hands in a journal with these lines, under a name."""

    def hand_in(name, *lines):
        runs = tmp_path / name / "runs"
        runs.mkdir(parents=True)
        monkeypatch.setenv("LABKIT_RUNS", str(runs))
        for line in lines:
            Journal(runs).add("quiz", lab="00_setup", **line)
        return submit(Workspace.find(), name, tmp_path / f"{name}.tar.gz")[0]

    return hand_in


def line(seed, when, right):
    """Answers of which the first so many are right."""
    items = drawn(seed, when)
    return {"seed": seed, "when": when, "answers": [i.truth if at < right else "pass" for at, i in enumerate(items)]}


def test_right_is_computed_from_the_seed_and_never_taken_from_the_journal(handed_in):
    said = line(7, "before", 3) | {"right": 10}
    (row,) = grade(Workspace.find(), [handed_in("Ann", said, line(7, "after", 8))])
    assert row.learned == Learned(seed=7, before=["right"] * 3 + ["passed"] * 7,
                                  after=["right"] * 8 + ["passed"] * 2)  # fmt: skip
    assert (facts(row)["quiz_before"], facts(row)["quiz_after"]) == (3, 8)
    assert "quiz_before" in as_csv([row]).splitlines()[0]
    assert row.total == 0 and not row.signs


def test_one_of_the_two_is_no_difference(handed_in):
    (row,) = grade(Workspace.find(), [handed_in("Ann", line(7, "before", 3))])
    assert (row.learned.after, facts(row)["quiz_after"]) == (None, None)
    assert of_class([row.learned, None]).only_one == 1
    assert "What was learnt" not in class_page([row], Points())


def test_two_students_with_the_same_numbers_are_both_named(handed_in):
    rows = grade(Workspace.find(), [handed_in("Ann", line(7, "before", 3)), handed_in("Bob", line(7, "before", 4))])
    assert all("the numbers of the ten questions are those of" in row.signs[0].text for row in rows)
    (other,) = grade(Workspace.find(), [handed_in("Cid", line(8, "before", 3))])
    assert not other.signs


def of(*counted):
    """Ten marks: so many right, then so many wrong; the others are passed over."""
    right, wrong = counted
    return ["right"] * right + ["wrong"] * wrong + ["passed"] * (10 - right - wrong)


def page_of(*found):
    rows = [
        Row(student=f"S{n}", file="x", created=datetime.now(UTC), learned=one) for n, one in enumerate(found)
    ]  # fmt: skip
    for row in rows:
        row.points = Points().of(row)
    return class_page(rows, Points())


def test_the_class_page_shows_before_after_and_the_difference():
    four = [Learned(seed=n, before=of(2, 8), after=of(7, 3)) for n in range(4)]
    page = page_of(*four, Learned(seed=9, before=of(10, 0), after=None))
    assert "4 students handed in ten questions" in page and "1 other handed in one of the two" in page
    assert "Of 40 pairs of questions that the same student answered both times, 20% were right before" in page
    assert "and 70% after: +50 points of a hundred." in page
    assert "<tr><td>states<td class=n>4<td class=n>0<td class=n>4<td class=n>0" in page
    assert "<tr><td>activations<td class=n>0<td class=n>0<td class=n>4<td class=n>0" in page


def test_what_was_passed_over_is_neither_right_nor_wrong():
    """Who passes everything before and guesses after has not learnt, and one who then passes has not forgotten."""
    found = of_class(
        [Learned(seed=1, before=of(0, 0), after=of(6, 4)), Learned(seed=2, before=of(6, 4), after=of(0, 0))]
    )
    assert found.gained is None and [kind.both for kind in found.kinds] == [0] * 10
    assert [kind.passed_before for kind in found.kinds] == [kind.passed_after for kind in found.kinds] == [1] * 10
    assert "No question was answered both times." in page_of(Learned(seed=1, before=of(0, 0), after=of(6, 4)))
    half = of_class([Learned(seed=1, before=of(2, 3), after=of(4, 6))])
    assert half.gained == pytest.approx(4 / 5 - 2 / 5)


@pytest.mark.parametrize("seed", [-1, 2**40, "7", None, True, 1.5])
def test_a_seed_that_is_none_is_passed_over(seed, handed_in):
    (row,) = grade(Workspace.find(), [handed_in("Eve", {"seed": seed, "when": "before", "answers": [1] * 10})])
    assert row.learned is None and json.dumps(facts(row))


def test_a_quiz_is_in_the_submission(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    quiz = Quiz(Journal(tmp_path), "00_setup")
    quiz.hand_in("before", ["pass"] * 10)
    (row,) = grade(Workspace.find(), [submit(Workspace.find(), "Ann", tmp_path / "a.tar.gz")[0]])
    assert row.learned.seed == quiz.answers().seed and row.learned.before == ["passed"] * 10
