"""Shape: JSON from any source, checked against the types that it must have."""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

from labkit.config.regular_file import read_regular
from labkit.memory.report import PhaseMemory

T = TypeVar("T")

LARGEST_BYTES = 64 * 2**20
"""Largest JSON file that is read at once, in bytes; the largest record of the course has 60 KB."""


Phase = Annotated[dict[str, Any], PhaseMemory]
"""The fields of a ``PhaseMemory``, as JSON has them."""


class Memory(TypedDict):
    """What ``MemoryReport.to_dict`` gives."""

    source: str
    capacity_bytes: int | None
    phases: list[Phase]


class DiedIn(TypedDict):
    """Where a run died; both steps count from 0."""

    step: int
    micro_step: int
    phase: str
    rank: NotRequired[int]


class OutOfMemory(TypedDict):
    """What was asked for and what held the memory."""

    requested_bytes: int | None
    capacity_bytes: int | None
    allocated_bytes: int
    held: dict[str, int]


class Predicted(Memory):
    """What ``Prediction.to_dict`` gives, as far as it is read."""

    verdict: str | None
    died_in: dict[str, Any] | None


class Unpredicted(TypedDict):
    """Why there is no prediction."""

    error: str


class Model(TypedDict, total=False):
    """What ``weight_facts`` counts."""

    parameters: int
    quantized_bytes: int
    unquantized_bytes: dict[str, int]


class Config(TypedDict):
    """A run's values, as far as this room reads them."""

    accumulate_grad_batches: int


class Attempt(TypedDict):
    """How a run ended before it was resumed."""

    status: str
    reason: str | None
    exit_code: int | None
    died_in: DiedIn | None
    wall_seconds: float
    resumed_at_step: NotRequired[int]


class Fallback(TypedDict):
    """What auto-fit changed, as ``Proposal.to_dict`` gives it."""

    overrides: dict[str, Any]
    environment: dict[str, str]
    kind: str
    cost: str
    of: str


class OfRank(TypedDict):
    """What a rank after the first has measured."""

    rank: int
    device: str | None
    status: str | None
    peak_bytes: int
    memory: Memory | None
    held: NotRequired[dict[str, int]]


class Diagnosed(TypedDict):
    """What ``Diagnosis.to_dict`` gives."""

    kind: str
    happened: str
    evidence: list[str]
    next_steps: list[str]


class Start(TypedDict):
    """The event ``start``."""

    steps: int
    source: str
    capacity_bytes: int | None
    device: str
    versions: dict[str, str]
    model: Model
    others_bytes: NotRequired[int | None]


class Progress(TypedDict):
    """The event ``progress``."""

    step: int
    losses: list[float | None]
    samples: int
    train_seconds: float


class Result(TypedDict):
    """The event ``result``."""

    status: str
    reason: NotRequired[str | None]
    died_in: NotRequired[DiedIn | None]
    out_of_memory: NotRequired[OutOfMemory | None]
    validation_losses: NotRequired[list[float | None]]
    peak_bytes: NotRequired[int]
    rank: NotRequired[int]
    exit_code: NotRequired[int]


class Resumed(TypedDict):
    """The event ``resumed``."""

    step: int
    samples: int
    train_seconds: float
    validation_losses: list[float | None]
    ended: Attempt


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises ``OSError``, and ``ValueError`` for what is not a regular file, holds something else or has over
    ``LARGEST_BYTES``.
    """
    content = read_regular(path, LARGEST_BYTES)
    try:
        text = content.decode("utf-8")
        data = json.loads(text)
        if "\\ud" in text.lower():  # half of a character, which nothing can print
            json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return data


def validation_error(kind: type, data: Any) -> str | None:
    """What keeps ``data`` from being a ``kind``, in words; None when it is one.

    A dataclass takes just its fields, a ``TypedDict`` may have more.
    """
    if not isinstance(data, dict):
        return "no JSON object"
    fits, required, closed = _fields(kind)
    if missing := required - data.keys():
        return f"{min(missing)} is missing"
    for key, value in data.items():
        if key not in fits:
            if closed:
                return f"{key!r} is not known"
        elif not fits[key](value):
            return f"{key} is not what it must be"
    return None


def shaped(kind: type[T], data: Any) -> T:
    """``data``, which this program has made as a ``kind``; ``ValueError`` says what keeps it from being one."""
    if wrong := validation_error(kind, data):
        raise ValueError(f"no {kind.__name__}: {wrong}")
    return data


@functools.cache
def _fields(kind: type) -> tuple[Mapping[str, Callable[[Any], bool]], frozenset[str], bool]:
    fits = {key: _fits(hint) for key, hint in typing.get_type_hints(kind, include_extras=True).items()}
    if typing.is_typeddict(kind):
        return fits, kind.__required_keys__, False
    empty = dataclasses.MISSING
    required = {f.name for f in dataclasses.fields(kind) if f.default is empty and f.default_factory is empty}
    return fits, frozenset(required), True


@functools.cache
def _fits(hint: Any) -> Callable[[Any], bool]:
    """A check of one value, fast enough for the phases of a thousand records."""
    plain, origin, arguments = _plain(hint), typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value: True
    if plain:
        return lambda value: type(value) in plain
    if origin is NotRequired:
        return _fits(arguments[0])
    if origin is Annotated:
        return _fits(arguments[1])
    if origin in (typing.Union, types.UnionType):
        choices = [_fits(argument) for argument in arguments]
        return lambda value: any(fits(value) for fits in choices)
    if origin in (list, dict):
        items = _plain(arguments[-1])
        one = _fits(arguments[-1])

        def fits_all(value: Any) -> bool:
            if type(value) is not origin:
                return False
            values = value.values() if isinstance(value, dict) else value
            return set(map(type, values)) <= items if items else all(map(one, values))

        return fits_all
    return lambda value: validation_error(hint, value) is None


def _plain(hint: Any) -> frozenset[type]:
    """The types of JSON that a hint of numbers, text and None takes; empty for any other hint."""
    arguments = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if not {*arguments} <= {bool, int, float, str, types.NoneType}:
        return frozenset()
    return frozenset(arguments) | ({int} if float in arguments else set())  # JSON writes 2.0 as 2 in some hands
