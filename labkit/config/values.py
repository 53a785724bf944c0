"""Values as they are typed or written in YAML, read into the type that an annotation names."""

import re
import shlex
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

EMPTY = (None, "", "null", "none", "None")
"""What stands for no value, where a type allows none."""

LARGEST = 1e100
"""No number of a run is near it, and products of smaller ones are still finite."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters, which no output takes."""


def read(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``: a Literal, a tuple of names, bool, str, int, float, or one of these and None.

    Raises ``ValueError`` or ``OverflowError`` when it is not one.
    """
    inner = without_none(kind)
    if inner is not kind and value in EMPTY:
        return None
    if typing.get_origin(inner) is Literal:
        if value in typing.get_args(inner):
            return value
        raise ValueError
    if typing.get_origin(inner) is tuple:
        return _read_names(value) or None  # an empty list of names is "empty", however it is written
    if inner is bool:
        return _read_bool(value)
    if inner is str:
        if isinstance(value, str) and value and not _UNPRINTABLE.search(value):
            return value
        raise ValueError
    return _read_number(inner, value)


def pairs(values: Mapping[str, Any]) -> list[str]:
    """``key=value`` of each, as it is typed in a shell."""
    return [shlex.quote(f"{key}={_typed(value)}") for key, value in values.items()]


def words(kind: Any) -> str:
    """The type in words, for help and error texts."""
    inner = without_none(kind)
    if allowed := choices(kind):
        said = "one of " + ", ".join(allowed)
    else:
        plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}
        said = plain.get(inner, "a list of names")
    return said if inner is kind else f"{said} or empty"


def choices(kind: Any) -> tuple[str, ...]:
    """The values of a Literal; none for other types."""
    inner = without_none(kind)
    return typing.get_args(inner) if typing.get_origin(inner) is Literal else ()


def without_none(kind: Any) -> Any:
    """``T`` of ``T | None``, and any other type itself."""
    if isinstance(kind, types.UnionType):
        (inner,) = (choice for choice in typing.get_args(kind) if choice is not types.NoneType)
        return inner
    return kind


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(value)
    return "" if value is None else str(value)


def _read_names(value: Any) -> tuple[str, ...]:
    items = value.strip("[]()").split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError
    if any(_UNPRINTABLE.search(item) for item in items):
        raise ValueError
    return tuple(item.strip() for item in items if item.strip())


def _read_bool(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise ValueError


def _read_number(kind: type, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    number = float(value)  # YAML reads 5e-6 as text, and a command line gives nothing but text
    if not abs(number) < LARGEST or (kind is int and not number.is_integer()):  # nor is NaN
        raise ValueError
    if kind is float:
        return number + 0.0  # one zero: -0.0 would have a hash of its own
    try:
        return int(value)  # keeps every digit
    except ValueError:
        return int(number)
