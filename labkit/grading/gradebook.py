"""Gradebook: points in the form of the system that has the class: Canvas, Moodle, any other by CSV, and Gradescope."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from labkit.config.errors import ConfigError
from labkit.grading.grade import Row
from labkit.grading.points import Points
from labkit.grading.roster import CANVAS, Roster
from labkit.grading.sheet import clean, harmless
from labkit.lab.lesson import LABS, lesson_of

ASSIGNMENT = "Memory labs"
"""The column of points; Canvas and Moodle make an assignment of this name at the first import."""
FEEDBACK = f"{ASSIGNMENT} (feedback)"
"""Moodle wants feedback beside points: an import without it deletes what is there."""


def gradebook(rows: Sequence[Row], roster: Roster, points: Points) -> str:
    """A line for each student of the roster, with the columns by which their system knows them, as CSV.

    Canvas' has its second row with the points that there are. A student whose work is not clear has an empty cell, and
    the feedback, or the table of ``labkit grade``, says why.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    most, canvas = sum(points.most().values()), roster.columns == CANVAS
    writer.writerow([*roster.columns, ASSIGNMENT, *([] if canvas else [FEEDBACK])])
    if canvas:
        writer.writerow(["    Points Possible", *[""] * (len(CANVAS) - 1), _number(most)])
    for student in roster.students:
        cells = [student.cells.get(column, "") for column in roster.columns]
        mine = [row for row in rows if row.listed is student]
        score = _number(mine[0].total) if len(mine) == 1 else ""
        writer.writerow([*cells, score, *([] if canvas else [harmless(_feedback(mine, points))])])
    return out.getvalue()


def _feedback(rows: Sequence[Row], points: Points) -> str:
    if len(rows) != 1:
        return "more than one work under this name"
    (row,) = rows
    if row.absent:
        return "not handed in"
    if row.error:
        return f"what was handed in cannot be read: {clean(row.error)}"
    most = points.most()
    parts = [f"{lab} {_number(row.points[lab])}/{_number(most[lab])}" for lab in LABS if most[lab]]
    late = f"; late, {row.kept:.0%} of the points are kept" if row.kept < 1 else ""
    return ", ".join(parts) + late


def gradescope(rows: Sequence[Row], points: Points) -> dict[str, Any]:
    """``results.json`` of one submission, as Gradescope's autograder reads it. ``ConfigError`` for none or several."""
    if len(rows) != 1:
        raise ConfigError(f"--gradescope is for one archive, and here are {len(rows)}; give the file, not the folder.")
    (row,) = rows
    if row.error:
        return {"score": 0, "visibility": "visible", "output": f"This could not be read: {clean(row.error)}"}
    tests = []
    for lab in LABS:
        for one in (*lesson_of(lab).questions, *lesson_of(lab).tasks):
            most, got = points.of_one(lab, one.id), points.of_one(lab, one.id, row)
            if most:
                tests.append({
                    "name": f"{lab}: {getattr(one, 'text', '') or getattr(one, 'claim', '')}", "score": round(got, 3),
                    "max_score": round(most, 3), "status": "passed" if got >= most else "failed",
                    "visibility": "visible",
                })  # fmt: skip
    found = {"score": round(row.total, 3), "visibility": "visible", "tests": tests}
    if row.kept < 1:
        found["output"] = f"Late: {row.kept:.0%} of the points are kept."
    return found


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
