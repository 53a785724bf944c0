"""Sheet: grades as a table, as CSV, as JSON, and one student in full. What students wrote is made harmless here."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from labkit.grading.archive import NAME_LENGTH
from labkit.grading.grade import Row
from labkit.lab.lesson import LABS
from labkit.lab.quiz import Mark
from labkit.ledger.table import NO_NUMBER, Table, numbers, words
from labkit.ledger.terminal import console
from labkit.memory.units import counted

LONGEST = 400
"""Characters of a line in the details."""
MOST_SIGNS = 100
_BEGINS = re.compile(r"(^\s*|[;,|\t]\s*)([=+@＝＋－＠-])")
"""Where a spreadsheet takes text for a formula: at the beginning of a cell, wherever it thinks that one begins."""

_NUMBERS = ("points", "runs", "course", "answered", "before", "right", "checks", "GPU min", "cost", "sim min")
_NOTES = (
    "points: what --points says answers and checks are worth, less what lateness costs.",
    "runs: ended, whatever way. course: experiments of the course that were run as the course has them.",
    "before: answers committed before the runs that they are about. right: by the runs; +n: no run tells.",
    "checks: passed when computed again from the runs; +n: passed by the student's journal alone.",
    "GPU and sim(ulated) min: wall seconds times devices. to look at: 'labkit grade FOLDER --details NAME' says what.",
)


WRITTEN = 2000
"""Letters of an answer to an exercise that are shown."""


def clean(text: str, longest: int = LONGEST) -> str:
    """Text that a stranger wrote, for a terminal or a file: what cannot be printed becomes ``?``."""
    found = "".join(c if c.isprintable() else "?" for c in text[: longest + 1])
    return found if len(found) <= longest else f"{found[: longest - 3]}..."


def table(rows: Sequence[Row]) -> str:
    """Grades, as wide as the terminal."""
    cells = [_cells(row) for row in rows if not row.error and not row.absent]
    absent = [f"not handed in: {clean(row.student, NAME_LENGTH)}" for row in rows if row.absent]
    broken = [f"not read: {clean(row.file, 60)}: {clean(row.error)}" for row in rows if row.error]
    if not cells:
        return "\n".join(["no student's work could be read", *broken, *absent])
    columns = [*words("student"), *numbers(*_NUMBERS), *words("to look at")]
    out = console()
    with out.capture() as drawn:
        out.print(Table(counted(len(cells), "student"), columns, cells))
    return "\n".join([*(line.rstrip() for line in drawn.get().splitlines()), *_NOTES, *broken, *absent])


def details(row: Row) -> str:
    """All that is known of one student."""
    if row.error:
        return f"{clean(row.file)}: {clean(row.error)}"
    if row.absent:
        return f"{clean(row.student)}: nothing handed in"
    lines = [
        f"{clean(row.student)}: {clean(row.file)}, handed in {row.created:%F %T} UTC, labkit {clean(row.labkit)}",
        f"  {counted(row.runs, 'run')}, {row.course_runs} of the course's {row.course}; "
        + f"{row.gpu_minutes:.1f} GPU minutes"
        + (f" for {row.cost:.2f}" if row.cost is not None else "")
        + f", {row.simulated_minutes:.1f} minutes on the simulated GPU; {counted(len(row.notebooks), 'notebook')}",
        f"  {row.total:.1f} points" + (f", late by {row.late}: {row.kept:.0%} is kept" if row.late else ""),
        "questions",
    ]
    for one in row.answers:
        said = "not answered"
        if one.given is not None:
            right = {True: "right", False: "wrong", None: "no run tells"}[one.right]
            truth = "" if one.truth is None else f", it is {_value(one.truth)} by the {one.source}"
            when = "before" if one.before else "after it was passed over" if one.passed_over else "after"
            said = f"{right}: {_value(one.given)}{truth}; committed {when}"
        elif one.passed_over:
            said = "passed over"
        lines.append(f"  {one.lab:32} {one.question:26} {clean(said)}")
    lines.append("tasks and checks")
    for check in row.checks:
        by = f" by the {check.source}" if check.source else ""
        differs = f" (the journal says {check.said})" if check.said and check.said != check.outcome else ""
        tries = f" in {check.tries} tries" if check.tries > 1 else ""
        lines.append(f"  {check.lab:32} {check.check:32} {check.outcome}{by}{differs}{tries}")
    for lab, texts in row.written.items():
        lines += [f"exercise {number} of {lab}: {clean(text, WRITTEN)}" for number, text in sorted(texts.items())]
    lines.append("to look at" if row.signs else "nothing to look at")
    lines += [f"  {sign.kind}: {clean(sign.text)}" for sign in row.signs[:MOST_SIGNS]]
    if len(row.signs) > MOST_SIGNS:
        lines.append(f"  and {len(row.signs) - MOST_SIGNS} more")
    lines += [f"left out by the student's labkit: {clean(one)}" for one in row.left_out[:MOST_SIGNS]]
    return "\n".join(lines)


_NESTED = ("answers", "signs", "left_out", "points_by_lab")


def as_csv(rows: Sequence[Row]) -> str:
    """A line a student or broken file, for a spreadsheet, in which no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    found = [facts(row) for row in rows]
    head = [key for key in facts(Row(student="", file="")) if key not in _NESTED]
    writer.writerow([*head, "to_look_at", *LABS])
    for one, row in zip(found, rows, strict=True):
        by_lab = [one["points_by_lab"].get(lab) for lab in LABS]
        signs = "; ".join(f"{sign.kind}: {clean(sign.text)}" for sign in row.signs[:MOST_SIGNS])
        writer.writerow([harmless(value) for value in (*(one[key] for key in head), signs, *by_lab)])
    return out.getvalue()


def _of_ten(marks: list[Mark] | None) -> int | None:
    return None if marks is None else marks.count("right")


def facts(row: Row) -> dict[str, Any]:
    """One row for JSON."""
    return {
        "student": clean(row.student), "file": clean(row.file), "error": clean(row.error),
        "created": row.created.isoformat(timespec="seconds") if row.created else None, "labkit": clean(row.labkit),
        "absent": row.absent, "points": round(row.total, 3), "late_hours": round(row.late.total_seconds() / 3600, 2),
        "quiz_before": _of_ten(row.learned.before) if row.learned else None,
        "quiz_after": _of_ten(row.learned.after) if row.learned else None,
        "kept": row.kept, "points_by_lab": {lab: round(points, 3) for lab, points in row.points.items()},
        "runs": row.runs, "course_runs": row.course_runs, "course": row.course,
        "answered": len(row.given), "questions": len(row.answers), "committed_before": row.before,
        "right": row.right, "right_untold": row.untold,
        "checks_passed": row.passed, "checks_said_passed": row.said_passed, "checks": len(row.checks),
        "gpu_minutes": round(row.gpu_minutes, 2), "simulated_minutes": round(row.simulated_minutes, 2),
        "cost": None if row.cost is None else round(row.cost, 2), "notebooks": len(row.notebooks),
        "answers": [vars(one) for one in row.given], "signs": [
            {"kind": sign.kind, "text": clean(sign.text)} for sign in row.signs[:MOST_SIGNS]
        ],
        "left_out": [clean(one) for one in row.left_out[:MOST_SIGNS]],
    }  # fmt: skip


def _cells(row: Row) -> list[str]:
    return [
        clean(row.student, NAME_LENGTH), f"{row.total:.4g}", str(row.runs), f"{row.course_runs}/{row.course}",
        f"{len(row.given)}/{len(row.answers)}", str(row.before), _and_more(row.right, row.untold),
        f"{_and_more(row.passed, row.said_passed)}/{len(row.checks)}", f"{row.gpu_minutes:.1f}",
        NO_NUMBER if row.cost is None else f"{row.cost:.2f}", f"{row.simulated_minutes:.1f}", ", ".join(row.kinds),
    ]  # fmt: skip


def _and_more(count: int, more: int) -> str:
    return f"{count}+{more}" if more else str(count)


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return "" if value is None else value
    return _BEGINS.sub(r"\1'\2", value)
