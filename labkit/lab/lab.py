"""Lab: what a notebook calls, on every machine the same."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labkit.lab import spoken
from labkit.lab.lesson import EXERCISES, Case, Check, is_number, lesson_of
from labkit.lab.result import Evidence, Result, sources
from labkit.lab.session import NotDone, showing_errors
from labkit.lab.telling import Telling
from labkit.lab.views import Lines, Several
from labkit.ledger.view import View

EMPTY = (..., None)
"""The placeholder in a cell that the student has not filled in."""


class Lab(Telling):
    """One lab of the course on this machine.

        lab = Lab("02_batch_and_accumulation")
        small = lab.run("reduced_batch")
        lab.plot("phases", small)

    ``LABKIT_MODE`` says whether experiments are run or only planned, ``profile`` or ``LABKIT_PROFILE`` for which
    machine. What its methods return is shown by the cell; what cannot work is said there and raises nothing. Raises
    ``ConfigError`` for an unknown lab, profile or mode.
    """

    def __init__(self, name: str, profile: str | None = None) -> None:
        super().__init__(lesson_of(name), name, profile)

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
            return self._shipped() if reference else tables.ledger(self)
        found = [result for result in results if isinstance(result, Result)]
        return _below(results, tables.results(found, self.unit) if found else Lines("nothing to show yet"))

    def _shipped(self) -> View:
        from labkit.lab import tables
        from labkit.lab.reference import read_reference

        shown = [result.record.config_hash for result in read_reference(self.workspace, self.profile.name)]
        if (withheld := self.withheld(*shown)) is not None:
            return withheld
        for config_hash in shown:
            self.tell(config_hash)
        return tables.beside_reference(self)

    @showing_errors
    def full_size(self, *names: str) -> View:
        """Runs of this lab as planned with the real models for an H100, and what weighs otherwise there than here; not
        before the questions are answered that they would answer."""
        from labkit.lab.full_size import full_size

        if (withheld := self.withheld(*(self._resolved(name).config.hash for name in names))) is not None:
            return withheld
        done = [self._newest(name, self._resolved(name)) for name in names]
        return full_size(self.workspace, names, [result for result in done if result is not None])

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
        """Commit an answer before a run: it is stored in the ledger. ``...`` leaves the question unanswered, ``"pass"``
        says that there is no answer."""
        found = self.lesson.question(question)
        unit, unit_bytes = self.unit
        if answer in EMPTY:
            return spoken.unanswered(found, unit)
        read = found.read(answer, unit_bytes)
        told = self.commitments.is_told(found)
        self.journal.add(
            "answer", lab=self.name, question=found.id, answer=read, unit=found.unit, profile=self.profile.name,
            mode=self.machine.mode, committed="after" if told else "before",
        )  # fmt: skip
        return spoken.answered(found, read, told)

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
        if not self.commitments.is_answered(question):
            return _below(own, spoken.withheld(question))
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

    @showing_errors
    def derive(self, derivation: str, given: Any = ..., *own: Any) -> View:
        """Whether a number, or a function that the student has written, gives what the records have.

        A function is called with the arguments of each case. ``own`` is what the notebook hands in, where the
        derivation is about such. The results and the outcome are stored in the ledger.
        """
        found = self.lesson.derivation(derivation)
        runs, lacking = self._about(found.about, own)
        if lacking:
            return _below(own, spoken.lacking(found.text, lacking))
        cases = found.cases(runs)
        results = [given] if not callable(given) else [called(given, case) for case in cases]
        if not results or any(result in EMPTY for result in results):
            return spoken.underived(found, cases)
        if found.unit == "memory" and not callable(given):
            results = [result * self.unit[1] if is_number(result) else result for result in results]
        outcome = found.outcome(results, runs)
        self.journal.add(
            "derived", lab=self.name, derivation=found.id, outcome=outcome, runs={n: one.id for n, one in runs.items()},
            given=[result if is_number(result) else None for result in results],
            profile=self.profile.name, mode=self.machine.mode,
        )  # fmt: skip
        return spoken.derived(found, cases, results, outcome, sources(runs.values()))

    @showing_errors
    def quiz(self, when: str, answers: Sequence[Any] = ()) -> View:
        """Ten questions ``before`` the labs and ten ``after``: the same kinds with other numbers. They measure the
        course, and earn nothing. The first answer to each counts. Right or wrong is said when both are answered, and
        what is right when nothing is open in the labs between them."""
        from labkit.lab.quiz import Quiz

        quiz = Quiz(self.journal, self.name)
        said = quiz.hand_in(when, answers) if answers else []
        return Several([Lines(f"ten questions, {when} the labs", quiz.questions(when)), Lines("your answers", said)])

    @showing_errors
    def write(self, *, first: Any = ..., second: Any = ..., third: Any = ...) -> View:
        """The answers to the exercises at the end, in words; they are stored in the ledger, and a person reads them."""
        said: list[View] = []
        for number, text in zip(EXERCISES, (first, second, third), strict=True):
            if text in EMPTY or not str(text).strip():
                said.append(Lines(f"exercise {number}", ["write in place of ..., in quotes"], mark="unanswered"))
                continue
            self.journal.add("written", lab=self.name, exercise=number, text=str(text), profile=self.profile.name)
            said.append(Lines(f"exercise {number}", ["stored; the last one counts"], mark="written"))
        return Several(said)

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


def called(function: Callable[..., Any], case: Case) -> Any:
    """What a student's function gives for a case; in words what it raises."""
    try:
        return function(**case.inputs)
    except Exception as error:  # noqa: BLE001 - it is the student's code, which may raise anything
        return f"{type(error).__name__}: {error}"


def _below(results: tuple[View, ...], shown: View) -> View:
    """What is shown of results, below what the others have to say in place of one."""
    said = [result for result in results if not isinstance(result, Evidence)]
    return Several([*said, shown]) if said else shown
