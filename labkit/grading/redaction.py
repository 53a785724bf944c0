"""Redaction: the files of a submission without secrets, and what was taken out where. The student's own files are not
changed."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from labkit.config.credentials import Span
from labkit.config.detectors import detected
from labkit.config.secrets import KNOWN, Redactor, forms, known_values

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MIXED = re.compile(r"(?=.*\d)(?=.*[A-Za-z])\S{6,}|(?=.*[^\w\s-])\S{8,}|(?=\S*[a-z]\S*[A-Z]\S*[a-z])\S{12,}")
"""A value that is not a word: what was found by its name is looked for elsewhere too, unless it may mean something."""
_LONG = 16
"""Characters from which such a value is also looked for in what is graded, where a wrong hit would change a run."""


class Redaction:
    """One submission's. Files are cleaned one by one; ``again`` then looks for what was found in any of them in all."""

    def __init__(self) -> None:
        self._redactor = Redactor(known_values(), detected)
        self._taken: dict[str, Counter[str]] = {}

    def clean(self, data: bytes, member: str) -> bytes:
        """The same bytes where there is no secret in them: what a record was made from stays as it was written.

        ``ValueError`` for a notebook that is not text.
        """
        return self._clean(self._redactor, data, member)

    def text(self, text: str) -> str:
        """A name or a line without secrets."""
        clean = self._redactor.clean(text)
        self._note(self._redactor, "the name of a file")
        return clean

    def again(self, members: dict[str, bytes]) -> dict[str, bytes]:
        """The members without the values that were found by name or form in one of them: a key that one cell sets,
        another prints."""
        names = "\n".join(members)
        values = {value for value in self._redactor.seen if _MIXED.fullmatch(value) and value not in names}
        for graded in (False, True):
            wanted = {value for value in values if not graded or len(value) >= _LONG}
            if not wanted:
                continue
            redactor = Redactor(wanted, _nothing)
            written = [form.encode("utf-8", "surrogateescape") for form in forms(wanted)]
            for member, data in members.items():
                if member.endswith((".ipynb", ".txt")) != graded and any(form in data for form in written):
                    members[member] = self._clean(redactor, data, member)
        return members

    def said(self) -> list[str]:
        """What was taken out, a line a place."""
        return [f"{place}: {_list(kinds)}" for place, kinds in sorted(self._taken.items())]

    def _clean(self, redactor: Redactor, data: bytes, member: str) -> bytes:
        if member.endswith(".jsonl"):
            return b"".join(self._json(redactor, line, None, member) for line in data.splitlines(keepends=True))
        if member.endswith(".txt"):
            return self._text(redactor, data, member)
        return self._json(redactor, data, 1, member)

    def _json(self, redactor: Redactor, data: bytes, indent: int | None, member: str) -> bytes:
        """JSON is read first: a secret may have characters that JSON writes otherwise, and must leave JSON behind."""
        try:
            found = json.loads(data)
            clean = self._notebook(redactor, found, member) if member.endswith(".ipynb") else redactor.clean(found)
            self._note(redactor, member)
        except (ValueError, RecursionError):
            redactor.kinds.clear()
            if member.endswith(".ipynb") and _is_binary(data):
                raise ValueError("it is not text, and cannot be searched for secrets") from None
            return self._text(redactor, data, member)
        if clean == found and json.detect_encoding(data).startswith("utf-8"):
            return data
        return json.dumps(clean, indent=indent).encode() + (b"\n" if data.endswith(b"\n") else b"")

    def _notebook(self, redactor: Redactor, found: Any, member: str) -> Any:
        """A notebook cell by cell, to say where."""
        if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
            return redactor.clean(found)
        cells = []
        for number, cell in enumerate(found["cells"], 1):
            cells.append(redactor.clean(cell))
            self._note(redactor, f"{member}, cell {number}")
        return {**redactor.clean({key: value for key, value in found.items() if key != "cells"}), "cells": cells}

    def _text(self, redactor: Redactor, data: bytes, member: str) -> bytes:
        encoding = json.detect_encoding(data)
        encoding = encoding if encoding.startswith(("utf-16", "utf-32")) and not member.endswith(".txt") else "utf-8"
        text = data.decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
        clean = redactor.clean(text)
        self._note(redactor, member)
        return data if clean == text else clean.encode("utf-8", "surrogateescape")

    def _note(self, redactor: Redactor, place: str) -> None:
        if redactor.kinds:
            again = "the same again" if redactor is not self._redactor else KNOWN
            self._taken.setdefault(place, Counter()).update(again if k == KNOWN else k for k in redactor.kinds)
            redactor.kinds.clear()


def _is_binary(data: bytes) -> bool:
    return json.detect_encoding(data).startswith("utf-8") and _CONTROL.search(data.strip(b"\0")) is not None


def _nothing(text: str) -> list[Span]:
    return []


def _list(kinds: Iterable[str]) -> str:
    return ", ".join(kind if count == 1 else f"{kind} x{count}" for kind, count in sorted(Counter(kinds).items()))
