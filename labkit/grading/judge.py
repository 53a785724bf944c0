"""Judge: every question and check of the course, computed again from the runs that were handed in."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from labkit.config.errors import ConfigError
from labkit.config.layers import course, resolve
from labkit.config.workspace import Workspace
from labkit.grading.signs import Sign
from labkit.grading.work import Run, Work, read_time
from labkit.lab.lesson import LABS, Check, Outcome, Question, lesson_of
from labkit.lab.reference import read_reference
from labkit.lab.result import Result

Source = Literal["runs", "reference", "journal", ""]
"""Where the numbers come from that something is judged by; ``journal`` is the student's word."""

HAND_MADE = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError)
"""What a lesson raises over a record that is whole in form and lacks what no run lacks, or over evidence that is none
of its kind."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question. ``right`` is None where nothing tells; ``before`` whether it was committed before the runs."""

    lab: str
    question: str
    given: float | str | None = None
    truth: float | str | None = None
    before: bool | None = None
    right: bool | None = None
    source: Source = ""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One check. ``said`` is what the student's journal has, ``outcome`` what counts."""

    lab: str
    check: str
    said: str = ""
    outcome: Outcome = "open"
    source: Source = ""


class Judge:
    """Judges by the course of this workspace; what it has looked up once it keeps."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.course = course(workspace)
        self.lessons = {lab: lesson_of(lab) for lab in LABS}

    def answers(self, work: Work) -> tuple[list[Answered], list[Sign]]:
        """Every question of the course, with the last answer to it."""
        found, signs = [], []
        for lab, lesson in self.lessons.items():
            for question in lesson.questions:
                lines = [e for e in _lines(work, "answer", lab) if e.get("question") == question.id]
                one, said = self._answer(work, lab, question, lines)
                found.append(one)
                signs += said
        return found, signs

    def checks(self, work: Work) -> tuple[list[Checked], list[Sign]]:
        """Every check of the course that the student has made, computed again."""
        found, signs = [], []
        for lab, lesson in self.lessons.items():
            for check in lesson.checks:
                lines = [e for e in _lines(work, "check", lab) if e.get("check") == check.id]
                one, said = (
                    self._check(work, lab, check, lines[-1]) if lines else (Checked(lab=lab, check=check.id), [])
                )
                found.append(one)
                signs += said
        return found, signs

    def course_hash(self, name: str, profile: str) -> str | None:
        """The config hash of a run as lessons call it; None for one that cannot be."""
        return self._hash(name, profile) if len(profile) <= 100 else None

    # -- questions

    def _answer(
        self, work: Work, lab: str, question: Question, lines: list[dict[str, Any]]
    ) -> tuple[Answered, list[Sign]]:
        given = [(entry, value) for entry in lines if (value := _read(question, entry.get("answer"))) is not None]
        if not given:
            return Answered(lab=lab, question=question.id), []
        value = given[-1][1]
        # a notebook that is executed again says the same again: what counts is when it was first said
        at = len(given) - 1
        while at and given[at - 1][1] == value:
            at -= 1
        entry = given[at][0]
        before, signs = self._before(work, lab, question, entry)
        runs, source = self._evidence(work, lab, question.about, entry, {})
        truth = _told(question.truth, runs) if runs is not None else None
        if not isinstance(truth, str if question.unit == "choice" else (int, float)):
            truth, source = None, ""
        return Answered(
            lab=lab, question=question.id, given=value, truth=truth, before=before,
            right=None if truth is None else question.is_right(value, truth), source=source,
        ), signs  # fmt: skip

    def _before(self, work: Work, lab: str, question: Question, entry: dict[str, Any]) -> tuple[bool, list[Sign]]:
        """Whether an answer was committed before the runs: by the times of both, else as the journal has it."""
        said = entry.get("committed") == "before"
        when, profile = read_time(entry["time"]), str(entry.get("profile"))
        if when is None:
            return False, [Sign(kind="times", text=f"{lab} {question.id}: answered at {entry['time'][:40]!r}, no time")]
        earliest = []
        for name in question.about:
            same = [] if name.startswith("?") else work.same(profile, self.course_hash(name, profile) or "")
            # as the notebook counts: another experiment may have the same settings on a profile
            same = [run for run in same if run.record.experiment == name.split()[0]]
            earliest.append(min((run.created for run in same if run.created), default=None))
        if any(made is None or made >= when for made in earliest):
            return said, []
        text = (
            f"{lab} {question.id}: the journal says committed before the run; answered {when:%F %T}, and every run it "
            f"is about was there at {max(made for made in earliest if made):%F %T}"
        )
        return False, [Sign(kind="answers", text=text)] if said else []

    # -- checks

    def _check(self, work: Work, lab: str, check: Check, entry: dict[str, Any]) -> tuple[Checked, list[Sign]]:
        said = entry.get("outcome") if entry.get("outcome") in ("passed", "failed", "open", "not available") else "open"
        named = entry["runs"] if isinstance(entry.get("runs"), dict) else {}
        runs, source = self._evidence(work, lab, check.about, entry, named)
        outcome = _told(lambda found: check.outcome(found)[0], runs) if runs is not None else None
        if outcome in ("passed", "failed"):
            signs = []
            if said == "passed" and outcome == "failed":
                text = f"{lab} {check.id}: the journal says passed, and by the {source} it failed"
                signs.append(Sign(kind="checks", text=text))
            return Checked(lab=lab, check=check.id, said=said, outcome=outcome, source=source), signs
        if said == "passed" and not _holds(check, entry):
            text = f"{lab} {check.id}: the journal says passed, and its own two numbers do not"
            return Checked(lab=lab, check=check.id, said=said, outcome="failed", source="journal"), [
                Sign(kind="checks", text=text)
            ]
        return Checked(lab=lab, check=check.id, said=said, outcome=said, source="journal"), []

    # -- evidence

    def _evidence(
        self, work: Work, lab: str, about: tuple[str, ...], entry: dict[str, Any], named: Mapping[str, Any]
    ) -> tuple[dict[str, Result] | None, Source]:
        """The runs that something is about; None where one of them was not handed in.

        Answers that were only planned have no runs: they are judged by what ships with the course.
        """
        profile = str(entry.get("profile"))
        shipped = self._reference(profile) if entry.get("mode") == "plan" else {}
        handed = self._handed(work, lab) if any(name.startswith("?") for name in about) else {}
        runs: dict[str, Result] = {}
        source: Source = "runs"
        for name in about:
            wanted = named.get(name, handed.get(name))
            own = work.by_id.get(wanted) if isinstance(wanted, str) else None
            if not name.startswith("?"):
                own = self._named(work, name, profile, own)
            elif own is not None and own.config_hash != own.record.config_hash:
                own = None
            if own is not None:
                runs[name] = own.result
            elif name in shipped:
                runs[name], source = shipped[name], "reference"
            else:
                return None, ""
        return runs, source

    def _named(self, work: Work, name: str, profile: str, own: Run | None) -> Run | None:
        """The run that the journal names, if it is what it should be, else the newest such run."""
        wanted = self.course_hash(name, profile)
        same = [run for run in work.same(profile, wanted or "") if run.tells]
        if own is not None and own in same:
            return own
        return same[-1] if same else None

    def _handed(self, work: Work, lab: str) -> dict[str, Any]:
        """Ids of what was handed in to the lab's checks, by its name there."""
        found: dict[str, Any] = {}
        for entry in _lines(work, "check", lab):
            runs = entry.get("runs")
            found |= {k: v for k, v in runs.items() if k.startswith("?")} if isinstance(runs, dict) else {}
        return found

    @functools.cache  # noqa: B019 - a judge lives as long as the command
    def _hash(self, name: str, profile: str) -> str | None:
        experiment, *pairs = name.split()
        try:
            typed = dict(pair.split("=", 1) for pair in pairs)
            return resolve(self.workspace, experiment, typed, profile).config.hash
        except (ConfigError, ValueError):
            return None

    @functools.cache  # noqa: B019
    def _reference(self, profile: str) -> dict[str, Result]:
        try:
            return {result.name: result for result in read_reference(self.workspace, profile)}
        except ConfigError:
            return {}


def _lines(work: Work, kind: str, lab: str) -> list[dict[str, Any]]:
    return work.by_lab.get((kind, lab), [])


def _read(question: Question, answer: Any) -> float | str | None:
    """An answer as the journal has it, in bytes or as a choice; None for what ``ask`` would not have taken."""
    if question.unit != "choice" and type(answer) not in (int, float):
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


def _holds(check: Check, entry: dict[str, Any]) -> bool:
    """Whether the two numbers in the journal stand in the relation of the check."""
    numbers = (entry.get("left"), entry.get("right"))
    if not all(type(number) in (int, float) for number in numbers):
        return False
    return dataclasses.replace(check, left=lambda runs: numbers[0], right=lambda runs: numbers[1]).outcome({})[0] == (
        "passed"
    )
