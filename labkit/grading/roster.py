"""Roster: the students of a class, from the file that Canvas or Moodle exports, or from any CSV with a name a line."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.grading.attempts import identity

_LARGEST_BYTES = 4 * 2**20
_BOM = "\ufeff"

CANVAS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
"""Columns by which Canvas knows a student: its gradebook's export has them, and its import wants them back."""
_POINTS_POSSIBLE = "points possible"
"""What stands under ``Student`` in Canvas' second row, which is no student."""

_NAMES = ("student", "name", "full name")
_FIRST, _LAST = ("first name", "given name"), ("last name", "surname", "family name")
_OTHERS = ("sis login id", "sis user id", "email", "email address", "id number", "username", "login", "id")


@dataclass(frozen=True, kw_only=True)
class Student:
    """One line of a roster. ``known_as`` is every way in which the student may have written the name."""

    name: str
    known_as: frozenset[str]
    cells: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Roster:
    """The students in the file's order; ``columns`` are those that a gradebook has to give back."""

    columns: Sequence[str]
    students: Sequence[Student]

    def find(self, name: str) -> Student | None:
        """The student who hands in under this name; None for a name that is nobody's, or that of several."""
        wanted = identity(name)
        found = [student for student in self.students if wanted in student.known_as]
        return found[0] if len(found) == 1 else None


def read_roster(path: Path) -> Roster:
    """Read a roster. ``ConfigError`` names the file, and what it lacks."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ConfigError(f"--roster={path} has more than {_LARGEST_BYTES // 2**20} MiB; it is no roster.")
        text = path.read_text(encoding="utf-8").removeprefix(_BOM)
    except OSError as error:
        raise ConfigError(f"--roster={path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--roster={path} is no UTF-8; save it as 'CSV UTF-8'.") from None
    try:
        lines = csv.DictReader(io.StringIO(text), dialect=_dialect(text), strict=True)
        rows = [{str(key): str(value or "") for key, value in line.items() if key} for line in lines]
    except csv.Error as error:
        raise ConfigError(f"--roster={path} is no CSV: {error}.") from None
    columns = [name for name in lines.fieldnames or () if name]
    students = [student for row in rows if (student := _student(row)) is not None]
    if not students:
        raise ConfigError(
            f"--roster={path} has no students: its first line must name a column 'Student' or 'Name', or two, "
            f"'First name' and 'Last name'. It has: {', '.join(columns[:8]) or 'nothing'}."
        )
    of_canvas = all(name in columns for name in CANVAS)
    return Roster(columns=CANVAS if of_canvas else columns, students=students)


def _dialect(text: str) -> type[csv.Dialect]:
    first = text.partition("\n")[0]

    class Found(csv.excel):
        delimiter = max(",;\t", key=first.count)

    return Found


def _student(row: Mapping[str, str]) -> Student | None:
    cells = {key.strip().casefold(): value.strip() for key, value in row.items()}
    first, last = _first_of(cells, _FIRST), _first_of(cells, _LAST)
    name = _first_of(cells, _NAMES) or f"{first} {last}".strip()
    if not name or name.casefold() == _POINTS_POSSIBLE:
        return None
    ways = {name, f"{first} {last}", f"{last} {first}", *(cells.get(key, "") for key in _OTHERS)}
    if "," in name:  # Canvas writes the last name first
        before, _, after = name.partition(",")
        ways |= {f"{after} {before}", f"{before} {after}"}
    ways |= {way.partition("@")[0] for way in ways if "@" in way}
    return Student(name=name, known_as=frozenset(identity(way) for way in ways if way.strip()), cells=row)


def _first_of(cells: Mapping[str, str], keys: Sequence[str]) -> str:
    return next((cells[key] for key in keys if cells.get(key)), "")
