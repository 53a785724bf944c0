"""Judge: every question and check of the course, computed again from the runs that were handed in."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.layers import course
from labkit.config.workspace import Workspace
from labkit.grading.evidence import Judged, Source, lines_of
from labkit.grading.signs import Sign
from labkit.grading.work import Work, read_time
from labkit.lab.lesson import LABS, PASS, Check, Derivation, Outcome, Question, lesson_of
from labkit.lab.result import Result

KEYS = {"check": "check", "derived": "derivation"}
"""The key of a line of the journal that has the id, by its kind."""

MOST_TRIES = 100
"""How many answers to one thing are looked at, the newest."""

HAND_MADE = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError)
"""What a lesson raises over a record that is whole in form and lacks what no run lacks, or over evidence that is none
of its kind."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question. ``right`` is None where nothing tells; ``before`` whether it was committed before the runs.

    The answer that counts is the last one before it was told, so that looking further costs nothing; without such it is
    the first one after, which the explanation cannot have changed. ``tries`` counts the answers, ``passed_over`` is
    whether the student passed before it, and so was told.
    """

    lab: str
    question: str
    given: float | str | None = None
    truth: float | str | None = None
    before: bool | None = None
    right: bool | None = None
    source: Source = ""
    tries: int = 0
    passed_over: bool = False


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One check or derivation. ``said`` is what the student's journal has, ``outcome`` what counts: of a task the best,
    of what is only seen the last. ``tries`` counts the executions, but for those that lacked a run or an answer."""

    lab: str
    check: str
    said: str = ""
    outcome: Outcome = "open"
    source: Source = ""
    tries: int = 0


class Judge:
    """Judges by the course of this workspace; what it has looked up once it keeps."""

    def __init__(self, workspace: Workspace) -> None:
        self.course = course(workspace)
        self.evidence = Judged(workspace)
        self.lessons = {lab: lesson_of(lab) for lab in LABS}

    def answers(self, work: Work) -> tuple[list[Answered], list[Sign]]:
        """Every question of the course, with the last answer to it."""
        found, signs = [], []
        for lab, lesson in self.lessons.items():
            for question in lesson.questions:
                lines = [e for e in lines_of(work, "answer", lab) if e.get("question") == question.id]
                one, said = self._answer(work, lab, question, lines)
                found.append(one)
                signs += said
        return found, signs

    def checks(self, work: Work) -> tuple[list[Checked], list[Sign]]:
        """Every check and derivation of the course that the student has made, computed again."""
        found, signs = [], []
        for lab, lesson in self.lessons.items():
            for one in (*lesson.checks, *lesson.derivations):
                kind = "derived" if isinstance(one, Derivation) else "check"
                lines = [e for e in lines_of(work, kind, lab) if e.get(KEYS[kind]) == one.id]
                best, said = self._best(work, lab, one, lines)
                found.append(best)
                signs += said
        return found, signs

    # -- questions

    def _answer(
        self, work: Work, lab: str, question: Question, lines: list[dict[str, Any]]
    ) -> tuple[Answered, list[Sign]]:
        given = [(entry, value) for entry in lines if (value := _read(question, entry.get("answer"))) is not None]
        if not given:
            passed_over = any(entry.get("answer") == PASS for entry in lines)
            return Answered(lab=lab, question=question.id, passed_over=passed_over), []
        # the course makes no ledger with so many; one that was made by hand must not take long
        given = given[-MOST_TRIES:]
        entry, value, before, signs = self._that_counts(work, lab, question, given)
        passed = next((at for at, line in enumerate(lines) if line.get("answer") == PASS), len(lines))
        runs, source = self.evidence.of(work, lab, question.about, entry, {})
        truth = _told(question.truth, runs) if runs is not None else None
        if not isinstance(truth, str if question.unit == "choice" else (int, float)):
            truth = self.evidence.told(str(entry.get("profile"))).get(f"{lab}/{question.id}")
            source = "" if truth is None else "reference"
        return Answered(
            lab=lab, question=question.id, given=value, truth=truth, before=before,
            right=None if truth is None else question.is_right(value, truth), source=source, tries=len(given),
            passed_over=not before and passed < lines.index(entry),
        ), signs  # fmt: skip

    def _that_counts(
        self, work: Work, lab: str, question: Question, given: list[tuple[dict[str, Any], float | str]]
    ) -> tuple[dict[str, Any], float | str, bool, list[Sign]]:
        """The answer that counts, its line, whether it was committed before, and what is to be looked at."""
        signs: dict[str, Sign] = {}
        for entry, value in reversed(given):
            before, said = self._before(work, lab, question, entry)
            signs |= {sign.text: sign for sign in said}
            if before:
                return entry, value, True, list(signs.values())
        return *given[0], False, list(signs.values())

    def _before(self, work: Work, lab: str, question: Question, entry: dict[str, Any]) -> tuple[bool, list[Sign]]:
        """Whether an answer was committed before the runs: by the times of both, else as the journal has it."""
        said = entry.get("committed") == "before"
        when, profile = read_time(entry["time"]), str(entry.get("profile"))
        if when is None:
            return False, [Sign(kind="times", text=f"{lab} {question.id}: answered at {entry['time'][:40]!r}, no time")]
        earliest = []
        for name in question.about:
            settings = "" if name.startswith("?") else self.evidence.course_hash(name, profile) or ""
            # as the notebook counts: another experiment may have the same settings on a profile
            same = [run for run in work.same(profile, settings) if run.record.experiment == name.split()[0]]
            made = [run.created for run in same]
            if not question.measured:
                made += work.told(profile, settings or self._tells(question))
            earliest.append(min((time for time in made if time), default=None))
        if any(made is None or made >= when for made in earliest):
            return said, []
        text = (
            f"{lab} {question.id}: the journal says committed before the run; answered {when:%F %T}, and every run or "
            f"prediction it is about was there at {max(made for made in earliest if made):%F %T}"
        )
        return False, [Sign(kind="answers", text=text)] if said else []

    def _tells(self, question: Question) -> str:
        """How the journal calls what tells a question about what a notebook hands in."""
        planned, _, machine = question.told_by.partition(" on ")
        return self.evidence.course_hash(planned, machine) or "" if machine else question.told_by

    # -- checks

    def _best(
        self, work: Work, lab: str, task: Check | Derivation, lines: list[dict[str, Any]]
    ) -> tuple[Checked, list[Sign]]:
        """The best outcome of a task, the last of a check that only shows something."""
        tries = sum(entry.get("outcome") in ("passed", "failed", "not available") for entry in lines)
        if isinstance(task, Check) and not task.is_task:
            lines = lines[-1:]
        judged = (self._check(work, lab, task, entry) for entry in reversed(lines[-MOST_TRIES:]))
        best, signs = Checked(lab=lab, check=task.id), []
        for at, (one, said) in enumerate(judged):
            if at == 0 or one.outcome == "passed":
                best, signs = one, said
            if one.outcome == "passed":
                break
        return dataclasses.replace(best, tries=tries), signs

    def _check(
        self, work: Work, lab: str, task: Check | Derivation, entry: dict[str, Any]
    ) -> tuple[Checked, list[Sign]]:
        said = entry.get("outcome") if entry.get("outcome") in ("passed", "failed", "open", "not available") else "open"
        named = entry["runs"] if isinstance(entry.get("runs"), dict) else {}
        runs, source = self.evidence.of(work, lab, task.about, entry, named)
        outcome = _told(_judging(task, entry), runs) if runs is not None else None
        if outcome in ("passed", "failed"):
            signs = []
            if said == "passed" and outcome == "failed":
                text = f"{lab} {task.id}: the journal says passed, and by the {source} it failed"
                signs.append(Sign(kind="checks", text=text))
            return Checked(lab=lab, check=task.id, said=said, outcome=outcome, source=source), signs
        if said == "passed" and not (isinstance(task, Check) and _holds(task, entry)):
            text = f"{lab} {task.id}: the journal says passed, and " + (
                "its own two numbers do not" if isinstance(task, Check) else "no run that it is about was handed in"
            )
            return Checked(lab=lab, check=task.id, said=said, outcome="failed", source="journal"), [
                Sign(kind="checks", text=text)
            ]
        return Checked(lab=lab, check=task.id, said=said, outcome=said, source="journal"), []


def _read(question: Question, answer: Any) -> float | str | None:
    """An answer as the journal has it, in bytes or as a choice; None for ``PASS`` and what ``ask`` would not have
    taken."""
    if answer == PASS or (question.unit != "choice" and type(answer) not in (int, float)):
        return None
    try:
        return question.read(answer, 1)
    except ConfigError:
        return None


def _told(reader: Callable[[Any], Any], runs: Mapping[str, Result]) -> Any:
    """What a lesson reads from runs; None where these do not tell."""
    try:
        return reader(runs)
    except HAND_MADE:
        return None


def _judging(task: Check | Derivation, entry: Mapping[str, Any]) -> Callable[[Mapping[str, Result]], Any]:
    """What reads the outcome of a task from runs. A student's function is never called: the journal has its results."""
    if isinstance(task, Check):
        return lambda runs: task.outcome(runs)[0]
    given = entry.get("given")
    return lambda runs: task.outcome(given if isinstance(given, list) else [], runs)


def _holds(check: Check, entry: dict[str, Any]) -> bool:
    """Whether the two numbers in the journal stand in the relation of the check."""
    numbers = (entry.get("left"), entry.get("right"))
    if not all(type(number) in (int, float) for number in numbers):
        return False
    return dataclasses.replace(check, left=lambda runs: numbers[0], right=lambda runs: numbers[1]).outcome({})[0] == (
        "passed"
    )
