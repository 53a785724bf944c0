"""Lab: what a notebook calls, on every machine the same."""

from pathlib import Path
from typing import Any

from labkit.config.layers import resolve
from labkit.lab import spoken
from labkit.lab.journal import Journal
from labkit.lab.lesson import Check, lesson_of
from labkit.lab.result import Blank, Evidence, Result, name_of, sources
from labkit.lab.session import NotDone, Session, empty_keys, showing_errors
from labkit.lab.views import Lines, Several
from labkit.ledger.view import View

EMPTY = (..., None)
"""The placeholder in a cell that the student has not filled in."""


class Lab(Session):
    """One lab of the course on this machine.

        lab = Lab("02_batch_and_accumulation")
        small = lab.run("reduced_batch")
        lab.plot("phases", small)

    ``LABKIT_MODE`` says whether experiments are run or only planned, ``profile`` or ``LABKIT_PROFILE`` for which
    machine. What its methods return is shown by the cell; what cannot work is said there and raises nothing. Raises
    ``ConfigError`` for an unknown lab, profile or mode.
    """

    def __init__(self, name: str, profile: str | None = None) -> None:
        self.name = name
        self.lesson = lesson_of(name)
        super().__init__(profile)
        self.journal = Journal(self.workspace.runs)

    @property
    def unit(self) -> tuple[str, int]:
        """The unit of memory that fits the machine: its name and its bytes."""
        capacity_gib = self.profile.values.get("capacity_gib")
        return ("MiB", 2**20) if capacity_gib is not None and capacity_gib < 1 else ("GiB", 2**30)

    def _text(self) -> str:
        return "\n".join(spoken.about_machine(self.name, self.machine, self.profile, self.workspace))

    def _html(self) -> str:
        head, *lines = self.text().splitlines()
        return Lines(head, lines).html()

    # -- what is shown

    @showing_errors
    def table(self, *results: View, reference: bool = False) -> View:
        """Results side by side; without any, the whole ledger of this machine.

        ``reference`` puts the runs that ship with the course next to it, for students who could not make them all.
        """
        from labkit.lab import tables

        if not results:
            return tables.ledger(self, reference)
        found = [result for result in results if isinstance(result, Result)]
        return _below(results, tables.results(found, self.unit) if found else Lines("nothing to show yet"))

    @showing_errors
    def plot(self, kind: str, *results: View) -> View:
        """A figure: ``phases``, ``compared``, ``bars``, ``loss`` or ``tradeoff``; see ``labkit.lab.figures``."""
        from labkit.lab import figures

        found = [result for result in results if isinstance(result, Result)]
        if not results and kind == "tradeoff":
            from labkit.lab import tables

            found = [result for result in tables.newest(self) if result.name in self.profile.expected]
        return _below(results, figures.draw(kind, found))

    @showing_errors
    def diagnose(self, log: str) -> View:
        """What ended the program of a log, of any program; the same as ``labkit diagnose LOG``."""
        from labkit.help.diagnosis.diagnose import diagnose_log
        from labkit.help.diagnosis.log_file import read_log

        if log in EMPTY or not Path(log).is_file():
            return NotDone(f"there is no log {log}; a path is read from {Path.cwd()}")
        return Lines(log, diagnose_log(read_log(Path(log))).lines())

    def submit(self) -> View:
        """A button that packs the ledger and the notebooks to hand in; as text the command that does."""
        from labkit.lab.button import Button

        return Button(self.workspace)

    # -- what is asked and checked

    @showing_errors
    def ask(self, question: str, answer: Any = ...) -> View:
        """Commit an answer before a run: it is stored in the ledger. ``...`` leaves the question unanswered."""
        found = self.lesson.question(question)
        unit, unit_bytes = self.unit
        if answer in EMPTY:
            return spoken.unanswered(found, unit)
        read = found.read(answer, unit_bytes)
        done = all(self._has_run(name) for name in found.about)
        self.journal.add(
            "answer", lab=self.name, question=found.id, answer=read, unit=found.unit, profile=self.profile.name,
            mode=self.machine.mode, committed="after" if done else "before",
        )  # fmt: skip
        return spoken.answered(found, read, done)

    @showing_errors
    def explain(self, topic: str, *own: Any) -> View:
        """A question's answer compared with what was measured, or the sentences of a topic, with numbers from the
        records.

        ``own`` is what the notebook hands in, where the topic is about such.
        """
        questions = [question.id for question in self.lesson.questions]
        if topic not in questions:
            found = self.lesson.topic(topic)
            runs, lacking = self._about(found.about, own)
            if lacking:
                return _below(own, spoken.lacking(topic.replace("_", " "), lacking))
            return Lines(sources(runs.values()), found.say(runs))
        question = self.lesson.question(topic)
        runs, lacking = self._about(question.about, own)
        if lacking:
            return _below(own, spoken.lacking(question.text, lacking))
        given = self.journal.entries("answer", lab=self.name, question=topic, profile=self.profile.name)
        return spoken.resolved(question, given[-1] if given else None, runs, sources(runs.values()))

    @showing_errors
    def check(self, check: str | None = None, *own: Any) -> View:
        """Whether a relation between runs holds; without a name every check of the lab whose evidence is there.

        ``own`` is what the notebook hands in, where the check is about such; what was handed to ``explain`` counts
        too. The outcome is stored in the ledger.
        """
        if check is None:
            own_names = {name for one in self.lesson.checks for name in one.about if name.startswith("?")}
            missing = own_names - set(self._handed)
            found = [one for one in self.lesson.checks if not missing & set(one.about)]
            return Several(self._check(one, ()) for one in found)
        return _below(own, self._check(self.lesson.check(check), own))

    def _check(self, check: Check, own: tuple[Any, ...]) -> View:
        runs, lacking = self._about(check.about, own)
        outcome, left, right = ("open", None, None) if lacking else check.outcome(runs)
        self.journal.add(
            "check", lab=self.name, check=check.id, outcome=outcome, left=left, right=right,
            runs={name: one.id for name, one in runs.items()}, profile=self.profile.name, mode=self.machine.mode,
        )  # fmt: skip
        if lacking:
            return spoken.lacking(check.claim, lacking)
        return spoken.checked(check, runs, outcome, left, right)

    @showing_errors
    def advise(self, experiment: str, *, on: str | None = None, **overrides: Any) -> View:
        """The changes that would make an experiment fit, each planned, the cheapest first."""
        if empty := empty_keys(overrides):
            return Blank(experiment, empty)
        from labkit.lab import tables
        from labkit.plan.advise import advise
        from labkit.plan.errors import PredictionError
        from labkit.plan.quiet import quiet_warnings

        resolved = resolve(self.workspace, experiment, overrides, on or self.profile.name)
        quiet_warnings()
        try:
            return tables.advice(name_of(experiment, overrides), resolved, advise(resolved.config))
        except PredictionError as error:
            return NotDone(f"{name_of(experiment, overrides)} cannot be planned: {error}")


def _below(results: tuple[View, ...], shown: View) -> View:
    """What is shown of results, below what the others have to say in place of one."""
    said = [result for result in results if not isinstance(result, Evidence)]
    return Several([*said, shown]) if said else shown
