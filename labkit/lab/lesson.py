"""Lesson: the questions, checks and explanations of one lab, as data that tests and grading can reach."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from labkit.config.errors import ConfigError, nearest
from labkit.lab.result import Evidence

Runs = Mapping[str, Any]
"""The ``Evidence`` that something is about, by name: ``"reduced_batch"``, ``"reduced_batch batch_size=8"``, and with a
``?`` in front what the notebook hands in."""

__all__ = ["Check", "Evidence", "Lesson", "LABS", "Outcome", "Question", "Runs", "Topic", "lesson_of"]

Unit = Literal["memory", "times", "percent", "count", "choice"]
Quantity = Literal["bytes", "loss", "share"]
Outcome = Literal["passed", "failed", "open", "not available"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a student commits before a run.

    ``about`` names the runs that answer it. ``truth`` reads the answer from them: a number of bytes for ``memory``, a
    number for ``times``, ``percent`` and ``count``, one of ``choices`` for ``choice``; None where they do not tell,
    such as the loss of a run that was only planned. A number is right within ``within``, a share of the truth.
    ``because`` is the one explanation, with the measured numbers in it.
    """

    id: str
    text: str
    about: tuple[str, ...]
    truth: Callable[[Runs], float | str | None]
    because: Callable[[Runs], str]
    unit: Unit = "memory"
    choices: tuple[str, ...] = ()
    within: float = 0.2

    def read(self, answer: object, unit_bytes: int) -> float | str:
        """An answer as it was typed, as a number (bytes for ``memory``) or a choice. ``ConfigError`` if it is not one
        of them."""
        if self.unit == "choice":
            found = str(answer).strip().lower()
            if found not in self.choices:
                said = ", ".join(repr(choice) for choice in self.choices)
                raise ConfigError(f"{answer!r} is not one of {said}.{nearest(found, self.choices)}")
            return found
        try:
            number = float(answer)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not 0 <= number < float("inf") or isinstance(answer, bool):
            raise ConfigError(f"{answer!r} is not a number from 0 up.")
        return number * unit_bytes if self.unit == "memory" else number

    def is_right(self, answer: float | str, truth: float | str) -> bool:
        """Whether an answer, as ``read`` gives it, is right."""
        if isinstance(answer, str) or isinstance(truth, str):
            return answer == truth
        return abs(answer - truth) <= self.within * abs(truth) + 1e-9


@dataclass(frozen=True, kw_only=True)
class Check:
    """A relation between two numbers of runs, never an absolute size.

    ``below`` and ``above`` compare the left number with ``factor`` times the right one; ``equal`` allows a share of
    ``within``. ``left`` and ``right`` give None where a run does not tell. ``about`` names the runs; what begins with
    a ``?`` is handed in.
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

    def outcome(self, runs: Runs) -> tuple[Outcome, float | None, float | None]:
        """Whether it holds, and the two numbers."""
        left, right = self.left(runs), self.right(runs)
        if left is None or right is None:
            return "not available", left, right
        bound = self.factor * right
        holds = {
            "below": left < bound, "above": left > bound, "equal": abs(left - bound) <= self.within * abs(bound),
        }[self.relation]  # fmt: skip
        return "passed" if holds else "failed", left, right


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
    topics: tuple[Topic, ...] = ()

    def question(self, id: str) -> Question:
        """The question called ``id``; ``ConfigError`` with the nearest name."""
        return _find("question", id, self.questions)

    def check(self, id: str) -> Check:
        """The check called ``id``; ``ConfigError`` with the nearest name."""
        return _find("check", id, self.checks)

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


def _find(kind: str, id: str, found: tuple) -> "Question | Check | Topic":
    for one in found:
        if one.id == id:
            return one
    names = [one.id for one in found]
    raise ConfigError(f"this lab has no {kind} {id!r}.{nearest(id, names)} It has: {', '.join(names) or 'none'}.")
