"""Shape: JSON from any source, made into the types that it must have."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from labkit.config.regular_file import read_regular
from labkit.ledger.parts import Predicted, PredictedOrNot, Unpredicted

T = TypeVar("T")

LARGEST_BYTES = 64 * 2**20
"""Largest JSON file that is read at once, in bytes; the largest record of the course has 60 KB."""

LONGEST_WORDS = 200
"""A message may name a key or a value of a damaged file, which may be of any length."""

_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


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


def shaped(kind: type[T], data: Any) -> T:
    """``data`` as a ``kind``; ``ValueError`` names the key that keeps it from being one, and says what is wrong."""
    try:
        return msgspec.convert(data, kind, dec_hook=_prediction)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(error)) from None


def plain(data: Any) -> Any:
    """What JSON takes, of a record or a part of one."""
    return msgspec.to_builtins(data)


def _prediction(kind: type, data: Any) -> PredictedOrNot:
    """What has an ``error`` is no prediction, but says why there is none; nothing else tells the two apart."""
    if kind is not PredictedOrNot:
        raise NotImplementedError(kind)
    return shaped(Unpredicted if isinstance(data, dict) and "error" in data else Predicted, data)


def _in_words(error: msgspec.ValidationError) -> str:
    """``memory.phases[0]: peak is missing``: msgspec's message in a line, the key first."""
    said, _, place = str(error).rpartition(" - at `")
    said, place = (said, place.rstrip("`").removeprefix("$").removeprefix(".")) if said else (str(error), "")
    if missing := _MISSING.fullmatch(said):
        said = f"{missing[1]} is missing"
    elif unknown := _UNKNOWN.fullmatch(said):
        said = f"'{unknown[1]}' is not known"
    else:
        said = said[:1].lower() + said[1:].replace("`", "")
    said = "".join(c if c.isprintable() else repr(c)[1:-1] for c in said[:LONGEST_WORDS])
    return f"{place}: {said}" if place else said
