"""Grade: one row for each student, from a folder of archives. Nothing in an archive is executed, extracted or
trusted."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from labkit.config.device import is_cuda, is_simulated
from labkit.config.errors import ConfigError
from labkit.config.workspace import Workspace
from labkit.grading.archive import ANSWERS, MANIFEST, ArchiveError
from labkit.grading.attempts import Attempt, rows_that_count
from labkit.grading.judge import Answered, Checked, Judge
from labkit.grading.learning import Learned, learned
from labkit.grading.points import Points, lateness
from labkit.grading.roster import Roster, Student
from labkit.grading.signs import LONGEST_S, Sign, fingerprint, signs_of
from labkit.grading.unpacked import SUFFIXES, read_submission
from labkit.grading.work import Run, Work, read_work
from labkit.lab.lesson import EXERCISES, LABS
from labkit.memory.units import counted

SAME_ANSWERS = 3
"""Lines of two journals that are equal to the second before it is said."""


@dataclass(kw_only=True)
class Row:
    """One student, or one file that could not be read, in which case ``error`` says why and the rest is empty.

    ``course_runs`` counts the experiments of the course that were run as the course has them. Minutes are
    ``wall_seconds`` times devices. ``passed`` are checks computed again from the runs (or, where a student only
    planned, from the reference), ``said_passed`` those that nothing but the journal tells of.

    ``listed`` is the student on the roster, None for a name that is not on it; ``absent`` one who handed in nothing.
    ``points`` are by lab, before lateness, of which ``kept`` is the share that is left.
    """

    student: str
    file: str
    created: datetime | None = None
    error: str = ""
    listed: Student | None = None
    absent: bool = False
    late: timedelta = timedelta()
    points: dict[str, float] = field(default_factory=dict)
    kept: float = 1.0
    labkit: str = ""
    runs: int = 0
    course_runs: int = 0
    course: int = 0
    answers: list[Answered] = field(default_factory=list)
    checks: list[Checked] = field(default_factory=list)
    written: dict[str, dict[int, str]] = field(default_factory=dict)
    """By lab and number, what was written to the exercises; the last one counts, and a person reads it."""
    learned: Learned | None = None
    gpu_minutes: float = 0.0
    simulated_minutes: float = 0.0
    cost: float | None = None
    notebooks: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    signs: list[Sign] = field(default_factory=list)

    @property
    def total(self) -> float:
        """The points that count."""
        return sum(self.points.values()) * self.kept

    @property
    def given(self) -> list[Answered]:
        """The questions that were answered."""
        return [one for one in self.answers if one.given is not None]

    @property
    def before(self) -> int:
        """Answers committed before the runs that they are about."""
        return sum(one.before is True for one in self.given)

    @property
    def right(self) -> int:
        """Right answers, by the runs."""
        return sum(one.right is True for one in self.given)

    @property
    def untold(self) -> int:
        """Answers of which no run tells whether they are right."""
        return sum(one.right is None for one in self.given)

    @property
    def passed(self) -> int:
        """Checks that passed when computed again."""
        return sum(one.outcome == "passed" and one.source != "journal" for one in self.checks)

    @property
    def said_passed(self) -> int:
        """Checks that passed by the journal, and of which no run tells."""
        return sum(one.outcome == "passed" and one.source == "journal" for one in self.checks)

    @property
    def kinds(self) -> list[str]:
        """Kinds of signs, each once."""
        return list(dict.fromkeys(sign.kind for sign in self.signs))


def find_archives(place: Path) -> tuple[list[Path], list[Path]]:
    """The submissions in a folder and in folders below it, and files there that are none; or the one file itself.

    A folder with a manifest is one that was unpacked. Links to folders are not followed. Raises ``ConfigError`` where
    there is nothing.
    """
    if place.is_file():
        return [place], []
    if not place.is_dir():
        raise ConfigError(f"{place} is neither a folder nor a file; 'labkit grade FOLDER' reads a folder of archives.")
    found, others = [], []
    for folder, folders, files in os.walk(place):
        if MANIFEST in files:
            found.append(Path(folder))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                (found if name.endswith(SUFFIXES) else others).append(Path(folder) / name)
    if not found:
        raise ConfigError(f"{place} holds no {', '.join(SUFFIXES)}; 'labkit submit' makes them.")
    return found, others


def grade(
    workspace: Workspace,
    paths: Iterable[Path],
    price_per_hour: float | None = None,
    now: datetime | None = None,
    roster: Roster | None = None,
    points: Points | None = None,
    deadline: datetime | None = None,
) -> list[Row]:
    """A row a student, by name, then the files that could not be read.

    Of several archives of one student the newest counts, and the others are named; those under one name that do not
    continue each other all count (``attempts``). ``price_per_hour`` is of one GPU. With a ``roster`` those on it who
    handed in nothing have a row too. What is handed in after ``deadline`` is late, by the archive's own time.
    """
    judge, now = Judge(workspace), now or datetime.now(UTC)
    attempts: list[Attempt] = []
    broken: list[Row] = []
    copies = _Copies()
    for path in paths:
        file = "/".join(path.absolute().parts[-2:])
        try:
            work = read_work(read_submission(path))
            row = judged(judge, work, file, price_per_hour, now)
        except (ArchiveError, RecursionError) as error:
            nests = isinstance(error, RecursionError)
            broken.append(Row(student="", file=file, error="its JSON nests too deep" if nests else str(error)))
            continue
        attempts.append(Attempt.of(row, work.submission))
        copies.add(row, work)
    rows = rows_that_count(attempts, now)
    copies.tell(rows)
    points = points or Points()
    for row in rows:
        row.late = lateness(row, deadline)
        row.points, row.kept = points.of(row), points.kept(row.late)
    rows += broken
    if roster is not None:
        rows += _absent(rows, roster)
    rows.sort(key=lambda row: (bool(row.error), row.student.casefold(), row.file))
    return rows


def _absent(rows: Iterable[Row], roster: Roster) -> list[Row]:
    for row in rows:
        # of what cannot be read only the file's name may tell
        row.listed = roster.find(row.student or _stem(row.file))
        if row.listed is None and not row.error:
            text = f"{row.student!r} is no student of the roster, or may be several"
            row.signs.append(Sign(kind="not listed", text=text))
    here = {id(row.listed) for row in rows}
    return [
        Row(student=student.name, file="", listed=student, absent=True)
        for student in roster.students if id(student) not in here
    ]  # fmt: skip


def _stem(file: str) -> str:
    name = file.rpartition("/")[2]
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.removeprefix("submission-")


def judged(judge: Judge, work: Work, file: str, price_per_hour: float | None, now: datetime) -> Row:
    """The row of one submission, which ``file`` holds."""
    answers, of_answers = judge.answers(work)
    checks, of_checks = judge.checks(work)
    names = [experiment.name for experiment in judge.course]
    done = {
        run.record.experiment
        for run in work.runs
        if run.tells
        and run.record.experiment in names  # never a path, which would be read
        and run.record.config_hash == judge.evidence.course_hash(run.record.experiment, run.record.profile)
    }
    gpu_minutes = sum(_minutes(run) for run in work.runs if is_cuda(run.device))
    return Row(
        student=work.submission.name, file=file, created=work.submission.created, labkit=work.submission.labkit,
        runs=sum(run.record.status not in ("running", "skipped") for run in work.runs),
        course_runs=len(done & {*names}), course=len(names), answers=answers, checks=checks, gpu_minutes=gpu_minutes,
        written=_written(work), learned=learned(work),
        simulated_minutes=sum(_minutes(run) for run in work.runs if is_simulated(run.device)),
        cost=None if price_per_hour is None else gpu_minutes / 60 * price_per_hour,
        notebooks=work.submission.notebooks, left_out=work.submission.left_out,
        signs=[*signs_of(work, now), *of_answers, *of_checks],
    )  # fmt: skip


def _written(work: Work) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for (kind, lab), lines in work.by_lab.items():
        if kind == "written" and lab in LABS:
            texts = {
                entry["exercise"]: entry["text"]
                for entry in lines
                if entry.get("exercise") in EXERCISES and isinstance(entry.get("text"), str)
            }
            found |= {lab: texts} if texts else {}
    return found


def _minutes(run: Run) -> float:
    seconds = run.record.wall_seconds
    return seconds * run.devices / 60 if 0 <= seconds <= LONGEST_S else 0.0


class _Copies:
    """What several students have: runs with one id or one course of times, and answers of one second."""

    def __init__(self) -> None:
        self._ids: dict[str, list[tuple[Row, str]]] = {}
        self._times: dict[str, list[tuple[Row, str]]] = {}
        self._lines: dict[tuple[str, ...], list[tuple[Row, str]]] = {}
        self._seeds: dict[int, list[tuple[Row, str]]] = {}

    def add(self, row: Row, work: Work) -> None:
        for run in work.runs:
            self._ids.setdefault(run.record.id, []).append((row, run.record.id))
            if (found := fingerprint(run)) is not None:
                self._times.setdefault(found, []).append((row, run.record.id))
        if row.learned is not None:
            self._seeds.setdefault(row.learned.seed, []).append((row, "the ten questions"))
        for entry in work.journal:
            line = (entry["time"], entry["lab"], str(entry.get("question") or entry.get("check") or entry.get("what")))
            self._lines.setdefault(line, []).append((row, entry["time"]))

    def tell(self, counted: list[Row]) -> None:
        """Name both where two that count have the same."""
        rows = {id(row): row for row in counted}
        pairs: dict[tuple[int, int], dict[str, set[str]]] = {}
        for kind, found in (
            ("ids", self._ids), ("times", self._times), ("answers", self._lines), ("seeds", self._seeds),
        ):  # fmt: skip
            for owners in found.values():
                mine: dict[int, str] = {}
                for row, what in owners:
                    if id(row) in rows:
                        mine.setdefault(id(row), what)
                if len(mine) < 2:
                    continue
                first = next(iter(mine))  # all are named beside the first, and it beside them
                for other in list(mine)[1:]:
                    for one, two in ((first, other), (other, first)):
                        pairs.setdefault((one, two), {}).setdefault(kind, set()).add(mine[one])
        for (one, two), kinds in pairs.items():
            self._say(rows[one], rows[two], kinds)

    def _say(self, row: Row, other: Row, kinds: dict[str, set[str]]) -> None:
        who = f"{other.student} ({other.file})"
        if same := sorted(kinds.get("ids", ())):
            row.signs.append(Sign(kind="copied", text=f"{_have(same)} the id of one of {who}: {_some(same)}"))
        if same := sorted(kinds.get("times", set()) - kinds.get("ids", set())):
            text = f"{_have(same)}, to the millisecond, the times of one of {who}: {_some(same)}"
            row.signs.append(Sign(kind="copied", text=text))
        if "seeds" in kinds:
            row.signs.append(Sign(kind="copied", text=f"the numbers of the ten questions are those of {who}"))
        if len(same := sorted(kinds.get("answers", ()))) >= SAME_ANSWERS:
            text = f"lines of {ANSWERS} at {counted(len(same), 'time')} are those of {who}: {_some(same)}"
            row.signs.append(Sign(kind="copied", text=text))


def _have(runs: list[str]) -> str:
    return f"{counted(len(runs), 'run')} {'has' if len(runs) == 1 else 'have'}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
