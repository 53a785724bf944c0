"""Quiz: ten questions before lab 01 and ten of the same kind after lab 12, with numbers of a student's own."""

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from labkit.config.errors import ConfigError
from labkit.config.precision import DTYPES
from labkit.lab.journal import Journal
from labkit.lab.lesson import LABS, PASS, is_number
from labkit.lab.unanswered import open_labs

WHEN = ("before", "after")
SEED_BITS = 32

FIRST = LABS[: LABS.index("12_compare") + 1]
"""The labs between the ten questions and the other ten, which work out what explains them."""

Mark = Literal["right", "wrong", "passed"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question with its answer: a number within ``within`` of the truth, or one of ``choices``."""

    text: str
    truth: float | str
    why: str
    choices: tuple[str, ...] = ()
    within: float = 0.04

    def read(self, answer: object) -> float | str:
        """An answer as it was typed; ``ConfigError`` for one that cannot be."""
        if isinstance(answer, str) and answer.strip().lower() in (PASS, *self.choices):
            return answer.strip().lower()
        if self.choices or not is_number(answer):
            wanted = "one of " + ", ".join(map(repr, self.choices)) if self.choices else "a number"
            raise ConfigError(f"{answer!r} is not {wanted}, and not {PASS!r}.")
        return float(answer)  # type: ignore[arg-type]

    def is_right(self, answer: object) -> bool:
        """Whether an answer, as ``read`` gives it, is right."""
        if isinstance(self.truth, str) or not is_number(answer):
            return answer == self.truth
        return abs(answer - self.truth) <= self.within * self.truth  # type: ignore[operator]

    def mark(self, answer: object) -> Mark:
        """What is said of an answer; a question that was passed over is not a wrong one."""
        return "passed" if answer == PASS else "right" if self.is_right(answer) else "wrong"


def drawn(seed: int, when: str) -> list[Item]:
    """The ten questions of a student; what is right before is wrong after, and the other way round."""
    found = []
    for number, template in enumerate(TEMPLATES):
        chance = random.Random(f"{seed}/{number}")
        before = after = template(chance)
        while after.is_right(before.truth) or before.is_right(after.truth):
            after = template(chance)
        found.append(before if when == "before" else after)
    return found


@dataclass(frozen=True)
class Answers:
    """A student's answers to both, as the journal has them: the first to each question counts; None without one."""

    seed: int
    before: tuple[object, ...]
    after: tuple[object, ...]

    def marks(self, when: str) -> list[Mark]:
        """Right, wrong or passed over, each of them."""
        given = self.before if when == "before" else self.after
        return [item.mark(answer) for item, answer in zip(drawn(self.seed, when), given, strict=True)]


def read_answers(entries: Sequence[dict[str, Any]]) -> Answers | None:
    """The answers in a journal's lines, which may be by a stranger; None where there are none."""
    seeds = [entry["seed"] for entry in entries if type(entry.get("seed")) is int]
    if not seeds or not 0 <= seeds[0] < 2**SEED_BITS:
        return None
    found: dict[str, list[object]] = {when: [None] * len(TEMPLATES) for when in WHEN}
    for entry in entries:
        when, given = entry.get("when"), entry.get("answers")
        if entry.get("seed") != seeds[0] or when not in WHEN or not isinstance(given, list):
            continue
        for at, answer in enumerate(given[: len(TEMPLATES)]):
            if found[when][at] is None and (isinstance(answer, str) or is_number(answer)):
                found[when][at] = answer
    return Answers(seeds[0], tuple(found["before"]), tuple(found["after"]))


class Quiz:
    """The questions of the student whose journal this is. The seed is drawn once and kept there."""

    def __init__(self, journal: Journal, lab: str) -> None:
        self.journal, self.lab = journal, lab

    def answers(self) -> Answers:
        """What was answered so far."""
        found = read_answers(self.journal.entries("quiz"))
        if found is None:
            self._add(secrets.randbits(SEED_BITS), WHEN[0], [])
            found = read_answers(self.journal.entries("quiz"))
        assert found is not None, "a line that was just written"
        return found

    def hand_in(self, when: str, given: Sequence[object]) -> list[str]:
        """Keep what is filled in and can be read, and say what is not."""
        if when not in WHEN:
            raise ConfigError(f"{when!r} is neither 'before' nor 'after'.")
        if len(given) != len(TEMPLATES):
            raise ConfigError(f"{len(given)} answers to {len(TEMPLATES)} questions; leave ... for one that is open.")
        known = self.answers()
        if when == "after" and None in known.before:
            raise ConfigError(f"the questions before are open: lab 00 has them, and {PASS!r} passes one.")
        read: list[object] = []
        unread: list[str] = []
        for number, (item, answer) in enumerate(zip(drawn(known.seed, when), given, strict=True), 1):
            try:
                read.append(None if answer in (..., None) else item.read(answer))
            except ConfigError as error:
                read.append(None)
                unread.append(f"not stored, question {number}: {error}")
        if any(answer is not None for answer in read):
            self._add(known.seed, when, read)
        return [*unread, *self._said(when)]

    def questions(self, when: str) -> list[str]:
        """The questions in words."""
        lines = []
        for number, item in enumerate(drawn(self.answers().seed, when), 1):
            how = " One of " + ", ".join(f'"{choice}"' for choice in item.choices) + "." if item.choices else ""
            lines.append(f"{number}. {item.text}{how}")
        return lines

    def _said(self, when: str) -> list[str]:
        known = self.answers()
        given = known.before if when == "before" else known.after
        missing = [str(number) for number, answer in enumerate(given, 1) if answer is None]
        if missing:
            return [f"open: {', '.join(missing)}. The first answer to each counts."]
        if when == "before":
            return ["all ten are stored. Which are right is said after lab 12, with ten others of the same kind."]
        before, after = known.marks("before"), known.marks("after")
        lines = [f"before the labs: {_counted(before)}. After them: {_counted(after)}"]
        waiting = open_labs(self.journal, FIRST)
        for number, (item, first, then) in enumerate(zip(drawn(known.seed, when), before, after, strict=True), 1):
            truth = item.truth if item.choices else f"{item.truth:.4g}"
            why = "" if waiting else f"; it is {truth}. {item.why}"
            lines.append(f"{number}. {first} before, {then} now{why}")
        if waiting:
            lines.append(
                f"What is right, and why, is said when nothing is open in {', '.join(waiting)}: execute again."
            )
        return lines

    def _add(self, seed: int, when: str, answers: list[object]) -> None:
        self.journal.add("quiz", lab=self.lab, seed=seed, when=when, answers=answers)


def _counted(marks: Sequence[Mark]) -> str:
    return f"{marks.count('right')} right, {marks.count('wrong')} wrong, {marks.count('passed')} passed"


# -- the ten kinds

_BILLIONS = (0.5, 1, 1.3, 2.7, 3, 6.7, 8, 13)
_PRECISIONS = ("32-true", "bf16-true", "bf16-mixed")


def _states(chance: random.Random) -> Item:
    size, precision = chance.choice(_BILLIONS), chance.choice(_PRECISIONS)
    return Item(
        text=f"A model of {size:g} billion parameters is trained in {precision} with AdamW. How many GB (10**9 bytes) "
        "are parameters, gradients and optimizer state?",
        truth=size * 4 * DTYPES[precision].weight_bytes,
        why=f"Four numbers for each parameter, {DTYPES[precision].weight_bytes} bytes each.",
    )


def _optimizer(chance: random.Random) -> Item:
    size = chance.choice(_BILLIONS)
    optimizer, each = chance.choice((("8-bit Adam", 6), ("SGD without momentum", 4)))
    return Item(
        text=f"A model of {size:g} billion parameters is trained in bf16-true with {optimizer}. How many GB are "
        "parameters, gradients and optimizer state?",
        truth=size * each,
        why=f"Two bytes for the parameter, two for the gradient, {each - 4} for the state.",
    )


def _activations(chance: random.Random) -> Item:
    batch, other = chance.sample((2, 4, 8, 16, 32), 2)
    each = chance.choice((0.5, 0.7, 1.5, 3))
    return Item(
        text=f"Activations take {batch * each:g} GB with a batch of {batch}. How many GB with a batch of {other}?",
        truth=other * each,
        why="Every sample leaves its own activations.",
    )


def _accumulation(chance: random.Random) -> Item:
    batch, times, each = chance.choice((2, 4, 8)), chance.choice((2, 4, 8, 16)), chance.choice((0.5, 0.75, 1.5))
    return Item(
        text=f"batch_size is {batch} and accumulate_grad_batches {times}; a sample leaves {each:g} GB of activations. "
        "How many GB of activations are in memory at most?",
        truth=batch * each,
        why="One micro batch is in memory at a time.",
    )


def _lora(chance: random.Random) -> Item:
    rank, inputs, outputs = (
        chance.choice((4, 8, 16, 32)),
        chance.choice((1024, 2048, 4096)),
        chance.choice((1024, 8192)),
    )
    return Item(
        text=f"LoRA of rank {rank} on a matrix of {inputs} by {outputs}: how many numbers are trained?",
        truth=rank * (inputs + outputs),
        why="Two narrow matrices: rank times the sum of both sides.",
    )


def _four_bits(chance: random.Random) -> Item:
    size = chance.choice(_BILLIONS)
    return Item(
        text=f"{size:g} billion weights in 4 bits, with a scale of 4 bytes for every block of 64: how many GB?",
        truth=size * 0.5625,
        why="Half a byte for each, and a 64th of 4 bytes.",
    )


def _offload(chance: random.Random) -> Item:
    size = chance.choice(_BILLIONS)
    return Item(
        text=f"{size:g} billion parameters in 16 bits, gradients and optimizer state offloaded to the host: how many "
        "GB of the three stay on the device?",
        truth=size * 2,
        why="The weights alone, two bytes each.",
    )


def _weights(chance: random.Random) -> Item:
    size, precision = chance.choice(_BILLIONS), chance.choice(_PRECISIONS)
    return Item(
        text=f"Between two steps: how many GB are the weights of {size:g} billion parameters in {precision}?",
        truth=size * DTYPES[precision].weight_bytes,
        why="In bf16-mixed the weights stay in 32 bits; only copies for the arithmetic are in 16.",
    )


def _largest(chance: random.Random) -> Item:
    scale = chance.choice((1, 2, 3))
    held, right = chance.choice((
        ((6, 6, 12, 40), "checkpointing"), ((14, 14, 28, 2), "8-bit adam"), ((26, 0.1, 0.2, 4), "4 bits"),
    ))  # fmt: skip
    parameters, gradients, state, activations = (part * scale for part in held)
    frozen = "with LoRA, its other weights frozen" if right == "4 bits" else "every weight trained with AdamW"
    return Item(
        text=f"A run in bf16-true, {frozen}: parameters {parameters:g} GB, gradients {gradients:g}, optimizer state "
        f"{state:g}, activations {activations:g}. Which one change saves most: checkpointing, 8-bit Adam, or 4 bits "
        "for the weights that are frozen?",
        truth=right,
        choices=("checkpointing", "8-bit adam", "4 bits"),
        why="A change saves a part of what it touches, so look for the largest part. Trained weights need their bits.",
    )


_ENDS = (
    ("ends by signal 9, without a message", "host memory"),
    ("is gone, and the kernel's log says 'Out of memory: Killed process 4711 (python)'", "host memory"),
    ("ends with exit code 124", "time"),
    ("is gone, and Slurm's accounting gives its state as TIMEOUT", "time"),
    ("ends with 'Tried to allocate 2.00 GiB'", "device memory"),
    ("ends with 'CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)'", "device memory"),
)


def _ends(chance: random.Random) -> Item:
    said, right = chance.choice(_ENDS)
    return Item(
        text=f"A training process {said}. What most likely ran out?",
        truth=right,
        choices=("host memory", "device memory", "time"),
        why="The kernel kills for host memory and leaves the process no message. A time limit gives 124 or TIMEOUT. "
        "CUDA names what it could not allocate.",
    )


TEMPLATES: tuple[Callable[[random.Random], Item], ...] = (
    _states, _optimizer, _activations, _accumulation, _lora, _four_bits, _offload, _weights, _largest, _ends,
)  # fmt: skip
"""The kinds of questions, in their order."""

KINDS = (
    "states", "optimizers", "activations", "accumulation", "LoRA", "4 bits", "offload", "precision", "what helps",
    "how runs end",
)  # fmt: skip
"""What each is about, in two words."""
