"""Lesson: the questions, checks and explanations of one lab, as data that tests and grading can reach."""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from labkit.config.errors import ConfigError, nearest
from labkit.lab.result import Evidence

Runs = Mapping[str, Any]
"""The ``Evidence`` that something is about, by name: ``"reduced_batch"``, ``"reduced_batch batch_size=8"``, and with a
``?`` in front what the notebook hands in."""

__all__ = [
    "Case", "Check", "Derivation", "Evidence", "Lesson", "LABS", "Outcome", "PASS", "Question", "Runs", "Topic",
    "Usual", "lesson_of",
]  # fmt: skip

Unit = Literal["memory", "times", "percent", "count", "choice"]
Quantity = Literal["bytes", "loss", "share", "count"]
Outcome = Literal["passed", "failed", "open", "not available"]

PASS = "pass"
"""The answer of a student who has none. It is recorded, earns nothing, and lets the lab continue."""

EXERCISES = (1, 2, 3)
"""Every lab ends with as many."""

YOURS = "?yours"
"""How the names begin that lessons have for what a student has chosen; what has another ``?`` name is handed in by a
cell that is complete."""


@dataclass(frozen=True, kw_only=True)
class Usual:
    """A usual wrong answer and the one sentence that meets it.

    It is a ``choice``, or the numbers from ``low`` to ``high`` times the truth, both included; of a truth of 0 every
    other number is more than any multiple.
    """

    says: str
    choice: str = ""
    low: float = 0.0
    high: float = math.inf

    def meets(self, answer: float | str, truth: float | str) -> bool:
        """Whether ``answer`` is this one; a right answer never is."""
        if isinstance(answer, str) or isinstance(truth, str):
            return answer != truth and answer == self.choice
        if self.choice or answer == truth:
            return False
        return self.low <= (answer / truth if truth else math.inf) <= self.high


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a student commits before a run.

    ``about`` names the runs that answer it. ``truth`` reads the answer from them: a number of bytes for ``memory``, a
    number for ``times``, ``percent`` and ``count``, one of ``choices`` for ``choice``; None where they do not tell,
    such as the loss of a run that was only planned. A number is right within ``within``, a share of the truth.
    ``because`` is the one explanation, with the measured numbers in it.

    An answer is committed before if nothing has told it. A prediction tells it too, unless only a run does
    (``measured``). ``told_by`` is what tells it where it is about what a notebook hands in: a method of ``Lab`` and
    what it is called with, or a prediction for another machine, ``NAME on MACHINE``. ``usual`` are wrong answers that
    have an answer of their own.
    """

    id: str
    text: str
    about: tuple[str, ...]
    truth: Callable[[Runs], float | str | None]
    because: Callable[[Runs], str]
    unit: Unit = "memory"
    choices: tuple[str, ...] = ()
    within: float = 0.2
    measured: bool = False
    told_by: str = ""
    usual: tuple[Usual, ...] = ()

    def read(self, answer: object, unit_bytes: int) -> float | str:
        """An answer as it was typed, as a number (bytes for ``memory``), a choice, or ``PASS``; ``ConfigError`` if it
        is none of them."""
        if isinstance(answer, str) and answer.strip().lower() == PASS:
            return PASS
        if self.unit == "choice":
            found = str(answer).strip().lower()
            if found not in self.choices:
                said = ", ".join(repr(choice) for choice in (*self.choices, PASS))
                raise ConfigError(f"{answer!r} is not one of {said}.{nearest(found, self.choices)}")
            return found
        try:
            number = float(answer)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not 0 <= number < float("inf") or isinstance(answer, bool):
            raise ConfigError(f"{answer!r} is not a number from 0 up, and not {PASS!r}.")
        return number * unit_bytes if self.unit == "memory" else number

    def is_right(self, answer: float | str, truth: float | str) -> bool:
        """Whether an answer, as ``read`` gives it, is right."""
        if isinstance(answer, str) or isinstance(truth, str):
            return answer == truth
        return _is_near(answer, truth, self.within)


@dataclass(frozen=True, kw_only=True)
class Check:
    """A relation between two numbers of runs, never an absolute size. One about what a student has chosen is a task;
    the others are there to be seen.

    ``below`` and ``above`` compare the left number with ``factor`` times the right one; ``equal`` allows a share of
    ``within``. ``left`` and ``right`` give None where a run does not tell. ``about`` names the runs; what begins with
    a ``?`` is handed in. ``fitting`` is the one of them that has to come to its end besides.
    """

    id: str
    claim: str
    about: tuple[str, ...]
    left: Callable[[Runs], float | None]
    right: Callable[[Runs], float | None]
    names: tuple[str, str]
    relation: Literal["below", "above", "equal"]
    why: str
    hint: str
    quantity: Quantity = "bytes"
    factor: float = 1.0
    within: float = 0.02
    fitting: str = ""

    @property
    def is_task(self) -> bool:
        """Whether it needs the student, and so earns points."""
        return any(name.startswith(YOURS) for name in self.about)

    def outcome(self, runs: Runs) -> tuple[Outcome, float | None, float | None]:
        """Whether it holds, and the two numbers; none of them where a run did not fit that has to."""
        if self.fitting and runs and runs[self.fitting].status != "ok":
            return "failed", None, None
        left, right = self.left(runs), self.right(runs)
        if left is None or right is None:
            return "not available", left, right
        bound = self.factor * right
        holds = {
            "below": left < bound, "above": left > bound, "equal": abs(left - bound) <= self.within * abs(bound),
        }[self.relation]  # fmt: skip
        return "passed" if holds else "failed", left, right


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of what a student has written: its arguments by name, and what it has to give."""

    inputs: Mapping[str, float | str]
    truth: float


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """A number or a function that a student works out, compared with the records.

    ``cases`` makes them from the runs that it is ``about``; a number takes one case without inputs. Every case is
    right within ``within``, a share of its truth; numbers are bytes for ``memory``. ``usual`` are wrong results that
    have an answer of their own, ``because`` is the derivation, said once it is right.
    """

    id: str
    text: str
    about: tuple[str, ...]
    cases: Callable[[Runs], list[Case]]
    because: str
    unit: Literal["memory", "count"] = "memory"
    within: float = 0.02
    usual: tuple[Usual, ...] = ()

    def outcome(self, given: Sequence[object], runs: Runs) -> Outcome:
        """Whether each of ``given``, in the order of the cases, is right."""
        cases = self.cases(runs)
        right = len(given) == len(cases) and all(map(self.is_right, given, cases))
        return "not available" if not cases else "passed" if right else "failed"

    def is_right(self, given: object, case: Case) -> bool:
        """Whether it is what the case has to give."""
        return is_number(given) and _is_near(given, case.truth, self.within)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Sentences with measured numbers; ``say`` gives one line each. In prose such numbers would be out of date."""

    id: str
    about: tuple[str, ...]
    say: Callable[[Runs], list[str]]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """All that belongs to one lab besides its notebook."""

    questions: tuple[Question, ...] = ()
    checks: tuple[Check, ...] = ()
    derivations: tuple[Derivation, ...] = ()
    topics: tuple[Topic, ...] = ()

    @property
    def tasks(self) -> tuple[Check | Derivation, ...]:
        """What needs the student, besides the questions."""
        return (*(check for check in self.checks if check.is_task), *self.derivations)

    @property
    def all(self) -> tuple[Question | Check | Derivation, ...]:
        """What is about runs, besides the topics."""
        return (*self.questions, *self.checks, *self.derivations)

    def question(self, id: str) -> Question:
        """The question called ``id``; ``ConfigError`` with the nearest name."""
        return _find("question", id, self.questions)

    def check(self, id: str) -> Check:
        """The check called ``id``; ``ConfigError`` with the nearest name."""
        return _find("check", id, self.checks)

    def derivation(self, id: str) -> Derivation:
        """The derivation called ``id``; ``ConfigError`` with the nearest name."""
        return _find("derivation", id, self.derivations)

    def topic(self, id: str) -> Topic:
        """The topic called ``id``; ``ConfigError`` with the nearest name."""
        return _find("topic", id, self.topics)


LABS = (
    "00_setup", "01_where_memory_goes", "02_batch_and_accumulation", "03_precision", "04_larger_models",
    "05_optimizer_state", "06_activation_checkpointing", "07_cpu_offload", "08_lora", "09_qlora",
    "10_when_it_fails", "11_fit_your_gpu", "12_compare", "13_ddp", "14_fsdp_and_layer_split",
)  # fmt: skip
"""The labs in the order of the course."""


def lesson_of(lab: str) -> Lesson:
    """The lesson of a lab; ``ConfigError`` with the nearest name."""
    if lab not in LABS:
        raise ConfigError(f"no lab {lab!r}.{nearest(lab, LABS)} There are: {', '.join(LABS)}.")
    return importlib.import_module(f"labkit.lab.lessons.lab_{lab}").LESSON


def is_number(value: object) -> bool:
    """Whether it is a finite number that a float holds, and no truth value."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _is_near(number: float, truth: float, within: float) -> bool:
    return abs(number - truth) <= within * abs(truth) + 1e-9


def _find(kind: str, id: str, found: tuple) -> Any:
    for one in found:
        if one.id == id:
            return one
    names = [one.id for one in found]
    raise ConfigError(f"this lab has no {kind} {id!r}.{nearest(id, names)} It has: {', '.join(names) or 'none'}.")
