"""Rosters as Canvas and Moodle export them, and as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.config.errors import ConfigError
from labkit.grading.roster import CANVAS, read_roster

CANVAS_EXPORT = """\
Student,ID,SIS User ID,SIS Login ID,Section,Memory labs (12)
    Points Possible,,,,,100
"Curie, Marie",101,u101,mcurie,Lab A,
"Müller, Jörg",102,u102,jmueller,Lab B,
"""
MOODLE_EXPORT = """\
First name,Last name,ID number,Institution,Department,Email address
Marie,Curie,u101,,,m.curie@example.org
Jörg,Müller,u102,,,j.mueller@example.org
"""


@pytest.fixture
def roster(tmp_path):
    """A function that reads a roster of this text."""

    def read(text, encoding="utf-8"):
        (tmp_path / "roster.csv").write_text(text, encoding=encoding)
        return read_roster(tmp_path / "roster.csv")

    return read


def test_canvas_export_has_its_students_and_gives_its_columns_back(roster):
    found = roster(CANVAS_EXPORT)
    assert [student.name for student in found.students] == ["Curie, Marie", "Müller, Jörg"]
    assert found.columns == CANVAS
    for name in ("Marie Curie", "curie marie", "Curie, Marie", "mcurie", "u101", "101", "MARIE  CURIE"):
        assert found.find(name) is found.students[0], name
    assert found.find("jörg müller") is found.find("Jo\u0308rg Mu\u0308ller") is found.students[1]
    assert found.find("Points Possible") is None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_moodle_export_is_read_with_any_separator_that_a_spreadsheet_saves(separator, encoding, roster):
    found = roster(MOODLE_EXPORT.replace(",", separator), encoding)
    assert [student.name for student in found.students] == ["Marie Curie", "Jörg Müller"]
    assert list(found.columns) == MOODLE_EXPORT.splitlines()[0].split(",")
    for name in ("Marie Curie", "Curie Marie", "m.curie", "m.curie@example.org", "u101"):
        assert found.find(name) is found.students[0], name


def test_a_list_of_names_is_a_roster(roster):
    found = roster("name\nAnn\nBob\n\n")
    assert [student.name for student in found.students] == ["Ann", "Bob"]


def test_a_name_that_several_have_is_no_one_students(roster):
    found = roster("Name,Email\nAnn Lee,a1@x.org\nAnn Lee,a2@x.org\n")
    assert found.find("Ann Lee") is None
    assert found.find("a2") is found.students[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "It has: nothing"),
        ("Grade,Section\n1,2\n", "It has: Grade, Section"),
        ("Name\n", "has no students"),
        ('Name\n"Ann\n', "no CSV"),
    ],
)
def test_what_is_no_roster_says_what_it_lacks(text, said, roster):
    with pytest.raises(ConfigError, match=said) as caught:
        roster(text)
    assert "roster.csv" in str(caught.value)


def test_files_that_are_not_there_not_text_or_far_too_large(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_roster(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("Name\nMüller\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="CSV UTF-8"):
        read_roster(tmp_path / "latin.csv")
    (tmp_path / "large.csv").write_bytes(b"Name\n" + b"Ann\n" * 2**21)
    with pytest.raises(ConfigError, match="4 MiB"):
        read_roster(tmp_path / "large.csv")


@given(st.text(max_size=200))
def test_no_text_gives_another_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_roster(path)
    except ConfigError as error:
        assert len(str(error).splitlines()) >= 1
    else:
        assert all(student.name for student in found.students)
