"""A class of 120: what was handed in, late, twice or broken, and what was not; its points as its systems take them."""

import csv
import io
import json
import shutil
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from students import another

from labkit.cli import main
from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.grading.class_page import class_page, missed, stuck_in
from labkit.grading.grade import Row, grade
from labkit.grading.gradebook import ASSIGNMENT, FEEDBACK, gradebook, gradescope
from labkit.grading.judge import Answered
from labkit.grading.points import Points
from labkit.grading.roster import read_roster
from labkit.lab.lesson import LABS

CLASS = 120
"""Students on the roster. Of them the last ten hand in nothing, and the first five what cannot be read."""
ABSENT, BROKEN, NAMED = 10, 5, 2
WEIGHTS = "late_a_day: 0.25\nlabs: {00_setup: 0}\n"


def name_of(number):
    return f"Student {number:03}"


@pytest.fixture(scope="module")
def classroom(real_ledger, tmp_path_factory):
    """The folder of a class: archives, a Canvas and a Moodle export, weights."""
    from students import hand_in

    folder = tmp_path_factory.mktemp("class")
    (folder / "handed").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for number in range(CLASS - ABSENT):
            ledger = another(real_ledger, folder / f"ledger{number}", number - 200)
            hand_in(ledger, name_of(number), folder / "handed" / f"{number}.tar.gz", patch)
            shutil.rmtree(ledger)
    for number in range(BROKEN):
        path = folder / "handed" / f"{number}.tar.gz"
        # two of them under the name that 'labkit submit' gives a file
        name = f"submission-{name_of(number)}.tar.gz" if number < NAMED else path.name
        path.rename(path.with_name(name)).write_bytes(path.with_name(name).read_bytes()[:-100])
    shutil.copy(folder / "handed" / "50.tar.gz", folder / "handed" / "50 (1).tar.gz")
    canvas = ["Student,ID,SIS User ID,SIS Login ID,Section", "    Points Possible,,,,"]
    canvas += [f'"{number:03}, Student",{1000 + number},u{number},s{number},A' for number in range(CLASS)]
    (folder / "canvas.csv").write_text("\n".join(canvas) + "\n")
    moodle = ["First name,Last name,ID number,Email address"]
    moodle += [f"Student,{number:03},u{number},s{number}@example.org" for number in range(CLASS)]
    (folder / "moodle.csv").write_text("\n".join(moodle) + "\n")
    (folder / "points.yaml").write_text(WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def roster(classroom):
    return read_roster(classroom / "canvas.csv")


@pytest.fixture(scope="module")
def weights(classroom):
    return Points.read(classroom / "points.yaml")


@pytest.fixture(scope="module")
def rows(classroom, roster, weights):
    """The class, graded with a deadline an hour ago."""
    paths = sorted((classroom / "handed").iterdir())
    deadline = datetime.now(UTC) - timedelta(hours=1)
    return grade(Workspace.find(), paths, roster=roster, points=weights, deadline=deadline)


@pytest.mark.slow
def test_every_student_of_the_roster_has_a_row_and_every_file_is_accounted_for(rows):
    absent, broken = [row for row in rows if row.absent], [row for row in rows if row.error]
    handed = [row for row in rows if not row.absent and not row.error]
    assert len(broken) == BROKEN
    assert len(handed) == CLASS - ABSENT - BROKEN
    # of what cannot be read the name of the file may tell whose it is
    assert sum(row.listed is not None for row in broken) == NAMED
    assert len(absent) == ABSENT + BROKEN - NAMED
    assert {r.listed.name for r in rows if r.listed} == {f"{number:03}, Student" for number in range(CLASS)}
    assert all(row.late > timedelta() and row.kept == 0.75 for row in handed)
    assert all(row.total == 0.75 * sum(row.points.values()) > 0 for row in handed)
    assert not any(row.points["00_setup"] for row in handed)


@pytest.mark.slow
def test_the_command_grades_the_class_writes_its_files_and_says_who_is_missing(classroom, capsys):
    assert main([
        "grade", str(classroom / "handed"), "--roster", str(classroom / "moodle.csv"),
        "--points", str(classroom / "points.yaml"), "--deadline", "2100-01-01T00:00Z",
        "--gradebook", str(classroom / "out.csv"), "--csv", str(classroom / "all.csv"),
        "--html", str(classroom / "class.html"), "--json",
    ]) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert sum(row["absent"] for row in found) == ABSENT + BROKEN - NAMED
    lines = list(csv.DictReader(io.StringIO((classroom / "out.csv").read_text(encoding="utf-8"))))
    assert len(lines) == CLASS
    assert list(lines[0]) == ["First name", "Last name", "ID number", "Email address", ASSIGNMENT, FEEDBACK]
    by_name = {row["student"]: row for row in found}
    for number, line in enumerate(lines):
        if number < NAMED:
            assert (line[ASSIGNMENT], line[FEEDBACK][:34]) == ("0", "what was handed in cannot be read:")
            continue
        row = by_name[f"{line['First name']} {line['Last name']}"]
        assert float(line[ASSIGNMENT]) == pytest.approx(row["points"], abs=0.01)
        assert (line[FEEDBACK] == "not handed in") is row["absent"]
    table = list(csv.DictReader(io.StringIO((classroom / "all.csv").read_text(encoding="utf-8-sig"))))
    assert {line["student"]: line["points"] for line in table} == {r["student"]: str(r["points"]) for r in found}
    assert {"late_hours", "kept", *LABS} <= set(table[0])


@pytest.mark.slow
def test_canvas_gets_its_columns_and_its_row_of_points(rows, roster, weights):
    lines = list(csv.DictReader(io.StringIO(gradebook(rows, roster, weights))))
    assert list(lines[0]) == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", ASSIGNMENT]
    assert lines[0]["Student"] == "    Points Possible"
    assert float(lines[0][ASSIGNMENT]) == sum(weights.most().values())
    assert [line["ID"] for line in lines[1:]] == [str(1000 + number) for number in range(CLASS)]
    assert float(lines[1 + 50][ASSIGNMENT]) > 0 == float(lines[-1][ASSIGNMENT])


@pytest.mark.slow
def test_gradescope_reads_one_submission(classroom, capsys):
    target = classroom / "results.json"
    assert main(["grade", str(classroom / "handed" / "60.tar.gz"), "--gradescope", str(target)]) == 0
    found = json.loads(target.read_text())
    assert found["score"] == pytest.approx(sum(test["score"] for test in found["tests"]))
    assert sum(test["max_score"] for test in found["tests"]) == sum(Points().most().values())
    assert {test["status"] for test in found["tests"]} == {"passed", "failed"}
    assert all(0 <= test["score"] <= test["max_score"] and test["name"] for test in found["tests"])
    assert main(["grade", str(classroom / "handed" / "4.tar.gz"), "--gradescope", str(target)]) == 0
    assert json.loads(target.read_text())["score"] == 0
    assert main(["grade", str(classroom / "handed"), "--gradescope", str(target)]) == 2
    assert "--gradescope is for one archive" in capsys.readouterr().err


class _Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.slow
def test_the_page_of_the_class_names_all_and_runs_and_loads_nothing(rows):
    page = class_page(rows, Points())
    for number in range(BROKEN, CLASS - ABSENT):
        assert f"{name_of(number)}<" in page
    assert page.count("not handed in") == ABSENT + BROKEN - NAMED
    assert f"{CLASS - ABSENT - BROKEN} students handed in, {CLASS - ABSENT - BROKEN} of them late" in page
    found = _Tags(page)
    assert not found.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert not {name for name in found.attributes if name.startswith("on")} | found.attributes & {"src", "href"}


def test_what_students_wrote_is_text_on_the_page():
    bad = '<img src=x onerror="alert(1)">'
    answers = [Answered(lab="03_precision", question="mixed_weights", given="16 bits", truth="32 bits", right=False)]
    rows = [
        Row(student=bad, file="a", answers=answers, points=dict.fromkeys(LABS, 0.0)),
        Row(student="", file=bad, error=bad),
    ]
    assert "img" not in _Tags(class_page(rows, Points())).tags


def test_the_question_that_most_missed_is_first_with_the_usual_mistake():
    def student(bits, peak):
        return Row(student="x", file="x", answers=[
            Answered(lab="03_precision", question="mixed_weights", given=bits, right=bits == "32 bits", before=True),
            Answered(lab="03_precision", question="bf16_peak", given=peak, right=peak == 0.5, before=False),
        ])  # fmt: skip

    first, second = missed([student("16 bits", 0.5), student("16 bits", 2.0), student("32 bits", 0.5)])
    assert (first.question.id, first.right, first.told, first.before) == ("mixed_weights", 1, 3, 3)
    assert (first.usual, first.times) == ("16 bits", 2)
    assert (second.question.id, second.usual, second.before) == ("bf16_peak", "2", 0)


def test_who_is_stuck_is_so_in_the_last_lab_that_has_begun():
    answers = [
        Answered(lab="01_where_memory_goes", question="does_it_fit", given="fits", right=False, before=False),
        Answered(lab="03_precision", question="bf16_peak", given=0.5, right=True, before=True),
    ]
    row = Row(student="Ann", file="a", answers=answers)
    row.points = Points().of(row)
    assert stuck_in(row, Points()) == "03_precision"
    assert stuck_in(row, Points(labs={"03_precision": 0})) is None
    row.points["03_precision"] = Points().most()["03_precision"]
    assert stuck_in(row, Points()) is None
    assert stuck_in(Row(student="Bob", file="b", points=dict.fromkeys(LABS, 0.0)), Points()) is None


def test_a_gradebook_needs_a_roster(capsys):
    assert main(["grade", ".", "--gradebook", "out.csv"]) == 2
    assert "give --roster too" in capsys.readouterr().err


def test_two_works_under_one_name_have_no_points_in_the_gradebook(tmp_path):
    (tmp_path / "class.csv").write_text("Name\nAnn\n")
    roster = read_roster(tmp_path / "class.csv")
    two = [Row(student="Ann", file=file, listed=roster.students[0], points=dict.fromkeys(LABS, 1.0)) for file in "ab"]
    (line,) = csv.DictReader(io.StringIO(gradebook(two, roster, Points())))
    assert (line[ASSIGNMENT], line[FEEDBACK]) == ("", "more than one work under this name")


def test_gradescope_wants_one_row():
    with pytest.raises(ConfigError, match="here are 0"):
        gradescope([], Points())
