"""Points: what a file of weights makes of answers and tasks, and what lateness takes."""

from datetime import UTC, datetime, timedelta

import pytest
from support.walk import HERE, untold

from labkit.config.errors import ConfigError
from labkit.grading.grade import Row
from labkit.grading.judge import Answered, Checked
from labkit.grading.points import Points, lateness, read_deadline
from labkit.lab.lesson import LABS, lesson_of

PRECISION, ACCUMULATION, TASK = "03_precision", "02_batch_and_accumulation", "yours_fits_and_uses_more"
NOON = datetime(2026, 12, 24, 12, tzinfo=UTC)


def row(**more):
    """A student who answered two questions of lab 03, saw a check of it pass, and passed a task of lab 02."""
    answers = [
        Answered(lab=PRECISION, question="bf16_peak", given=0.5, truth=0.5, before=True, right=True, source="runs"),
        Answered(lab=PRECISION, question="mixed_weights", given="16 bits", before=False, right=False, source="runs"),
        Answered(lab=PRECISION, question="lost_updates", given=90.0, before=True, right=None),
    ]
    checks = [
        Checked(lab=PRECISION, check="true_halves_the_states", said="passed", outcome="passed", source="runs"),
        Checked(lab=ACCUMULATION, check=TASK, said="passed", outcome="passed", source="runs", tries=3),
    ]
    return Row(student="Ann", file="ann.tar.gz", answers=answers, checks=checks, **more)


@pytest.fixture
def points(tmp_path):
    """A function that reads weights of this text."""

    def read(text):
        (tmp_path / "points.yaml").write_text(text)
        return Points.read(tmp_path / "points.yaml")

    return read


def test_without_a_file_an_answer_counts_for_two_a_task_for_two_and_a_check_that_is_only_seen_for_nothing():
    found = Points().of(row())
    assert found.pop(PRECISION) == 1 + 1 + 0 + 1
    assert found.pop(ACCUMULATION) == 2
    assert set(found) == {*LABS} - {PRECISION, ACCUMULATION} and not any(found.values())
    for lab, most in Points().most().items():
        lesson = lesson_of(lab)
        assert most == 2 * len(lesson.questions) + 2 * len(lesson.tasks)


def test_a_file_sets_what_it_names(points):
    found = points(
        f"task: 3\nlabs: {{03_precision: 2}}\nsingle: {{03_precision/bf16_peak: 5, {ACCUMULATION}/{TASK}: 7}}\n"
    )
    assert found.of(row())[PRECISION] == 2 * (5 + 1)
    assert found.of_one(PRECISION, "bf16_peak") == 10
    assert found.of_one(PRECISION, "bf16_peak", row()) == 10
    assert found.of_one(PRECISION, "mixed_weights", row()) == 0
    assert found.of_one(ACCUMULATION, TASK, row()) == found.of_one(ACCUMULATION, TASK) == 7
    assert points("task: 3\n").of(row())[ACCUMULATION] == 3
    left_out = points("labs: {03_precision: 0}\n")
    assert left_out.most()[PRECISION] == left_out.of(row())[PRECISION] == 0


def test_only_what_is_right_may_count_or_only_what_was_committed(points):
    assert points("committed: 0\n").of(row())[PRECISION] == 1
    assert points("right: 0\n").of(row())[PRECISION] == 1 + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tsak: 3\n", "no 'tsak'. Did you mean 'task'?"),
        ("task: -1\n", "task=-1 must be a number from 0 up"),
        ("task: true\n", "task=True must be a number from 0 up"),
        ("task: .inf\n", "task=inf must be a number"),
        ("late_a_day: 2\n", "late_a_day=2 must be a number from 0 to 1"),
        ("labs: {03_precison: 1}\n", "labs has no '03_precison'. Did you mean '03_precision'?"),
        ("labs: 3\n", "labs must be a mapping"),
        ("single: {03_precision/bf16_pek: 1}\n", "Did you mean '03_precision/bf16_peak'?"),
        ("single: {03_precision/bf16_peak: many}\n", "03_precision/bf16_peak='many' must be a number"),
        ("committed: 0\nright: 0\n", "no answer counts"),
    ],
)
def test_a_wrong_file_says_which_key_and_what_there_is(text, said, points):
    with pytest.raises(ConfigError) as caught:
        points(text)
    assert said in str(caught.value) and "points.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_lateness_is_by_days_that_have_begun_and_has_an_end(points):
    weights = points("late_a_day: 0.1\nmost_late: 0.35\n")
    for late, kept in [(-1, 1.0), (0, 1.0), (1, 0.9), (24, 0.9), (25, 0.8), (72, 0.7), (1000, 0.65)]:
        assert weights.kept(timedelta(hours=late)) == pytest.approx(kept), late
    assert Points().kept(timedelta(days=9)) == 1


def test_a_deadline_has_a_zone_or_this_machines():
    deadline = read_deadline("2026-12-24T13:00+01:00")
    assert deadline == NOON
    assert read_deadline("2026-12-24T12:00").utcoffset() == datetime(2026, 12, 24, 12).astimezone().utcoffset()
    assert lateness(row(created=NOON), deadline) == timedelta()
    assert lateness(row(created=NOON + timedelta(hours=5)), deadline) == timedelta(hours=5)
    assert lateness(row(created=NOON + timedelta(hours=5)), None) == timedelta()
    with pytest.raises(ConfigError, match="--deadline='tomorrow' is no time"):
        read_deadline("tomorrow")


def test_the_guide_says_what_is_left_to_who_only_plans():
    """An answer that no plan tells keeps its point for the commitment; a derivation that none tells has nothing."""
    weights = Points()
    questions = {(lab, one.id) for lab in LABS for one in lesson_of(lab).questions}
    lost = [weights.right if (lab, id) in questions else weights.of_one(lab, id) for lab in LABS for id in untold(lab)]
    most = sum(weights.most().values())
    guide = (HERE / "docs" / "instructor" / "README.md").read_text(encoding="utf-8")
    assert f"{most - sum(lost):g} of the {most:g} points are left" in guide
