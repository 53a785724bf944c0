"""Secrets: recognized in text, so that they reach no file, no output and no child process."""

import contextlib
import functools
import html
import json
import os
import re
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from labkit.config.credentials import HIDDEN, Span, is_named, spans
from labkit.config.regular_file import open_regular

KNOWN = "known value"
SHORT = 100
SHORTEST = 8
"""Characters of a value that is looked for in text; shorter ones are in too many words."""

_NAME = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|KEY(?!BOARD)", re.IGNORECASE)


_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Redactor:
    """Takes secrets out of text, and out of lists and dictionaries of it.

    ``values`` are looked for as they are and as JSON, HTML and URLs write them. ``find`` finds what looks like one.
    ``kinds`` says what was taken out, ``seen`` which values: a value found in one place may appear without its name in
    another.
    """

    def __init__(self, values: Iterable[str] = (), find: Callable[[str], list[Span]] = spans) -> None:
        self.values = forms(values)
        self.kinds: list[str] = []
        self.seen: set[str] = set()
        self._find = find
        self._harmless: set[str] = set()  # keys of JSON, mostly, which come again and again

    def clean(self, data: Any) -> Any:
        """The same data without secrets."""
        if isinstance(data, str):
            return self._text(data)
        if isinstance(data, dict):
            return {self.clean(key): self._value(key, value) for key, value in data.items()}
        if isinstance(data, list) and _is_text(data):
            text = "".join(data)
            clean = self._text(text)
            return data if clean == text else _LINE.findall(clean)
        if isinstance(data, (list, tuple)):
            return type(data)(self.clean(item) for item in data)
        return data

    def _text(self, text: str) -> str:
        if text in self._harmless:
            return text
        clean = self._cleaned(text)
        if clean is text and len(text) <= SHORT:
            self._harmless.add(text)
        return clean

    def _cleaned(self, text: str) -> str:
        for value in self.values:
            if value in text:
                text = text.replace(value, HIDDEN)
                self.kinds.append(KNOWN)
        found = self._find(text)
        if not found:
            return text
        parts: list[str] = []
        at = 0
        for start, end, kind in _merged(found):
            self.seen.add(text[start:end])
            self.kinds.append(kind)
            parts += [text[at:start], HIDDEN]
            at = end
        return "".join([*parts, text[at:]])

    def _value(self, key: Any, value: Any) -> Any:
        if isinstance(key, str) and isinstance(value, str) and value != HIDDEN and is_named(key, value):
            self.seen.add(value)
            self.kinds.append(f"value of {key[:40]}")
            return HIDDEN
        return self.clean(value)


def _is_text(data: list[Any]) -> bool:
    """Whether a list is one text by lines, as notebooks have it: a secret may go over several."""
    return len(data) > 1 and all(isinstance(line, str) for line in data) and all(x.endswith("\n") for x in data[:-1])


def forms(values: Iterable[str]) -> tuple[str, ...]:
    """The values as text, JSON, HTML and addresses have them; longest first, so that none is left over where one is
    part of another."""
    return _forms(frozenset(values))


@functools.cache
def _forms(values: frozenset[str]) -> tuple[str, ...]:
    found = set()
    for value in values:
        for written in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]):
            found |= {written, json.dumps(written)[1:-1], html.escape(written)}
        found |= {urllib.parse.quote(value, safe=""), urllib.parse.quote(value), urllib.parse.quote_plus(value)}
    return tuple(sorted(found, key=len, reverse=True))


def redact(data: Any) -> Any:
    """Text, or lists and dictionaries of it, with ``[redacted]`` in place of secrets.

    Secrets are the values of environment variables that are named like one (``TOKEN``, ``KEY``, ``SECRET``,
    ``PASSWORD``) and have ``SHORTEST`` characters or more, the token of the Hugging Face hub, and what looks like one:
    ``hf_...``, ``api_key="..."``, ``user:password@`` in an address, ``Bearer ...`` (see ``credentials``).
    """
    return Redactor(known_values()).clean(data)


def child_environment() -> dict[str, str]:
    """This process's environment without secrets, for a process that needs none.

    It reads and prints UTF-8 whatever the terminal is: what it prints goes into a log, and no letter may end it.
    """
    kept = {name: value for name, value in os.environ.items() if not _NAME.search(name) or _is_path(value)}
    return kept | {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}


def redact_file(path: Path) -> None:
    """Take secrets out of a text file; one that cannot be written again is removed rather than left with them."""
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8", "surrogateescape")
        clean = redact(text)
        if clean == text:
            return
    except (OSError, ValueError):  # there is none, it may not be read, or it is not a file
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(clean.encode("utf-8", "surrogateescape"))
        partial.replace(path)
    except OSError:
        for rest in (path, partial):
            with contextlib.suppress(OSError):
                rest.unlink()


def known_values() -> list[str]:
    """The values of the environment's secrets, and the hub's token."""
    found = {value for name, value in os.environ.items() if _NAME.search(name) and not _is_path(value)}
    hub = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    try:
        named = os.environ.get("HF_TOKEN_PATH") or hub / "token"
        found.add(Path(named).expanduser().read_text(encoding="utf-8").strip())
    except (OSError, ValueError, RuntimeError):  # there is none, it is not text, or no home is known
        pass
    return [value for value in found if len(value) >= SHORTEST]


def _merged(found: list[Span]) -> list[tuple[int, int, str]]:
    """In their order, those that overlap as one."""
    merged: list[tuple[int, int, str]] = []
    for span in sorted(found):
        if merged and span.start <= merged[-1][1]:
            start, end, kind = merged[-1]
            merged[-1] = start, max(end, span.end), kind
        else:
            merged.append((span.start, span.end, span.kind))
    return merged


def _is_path(value: str) -> bool:
    """The place of a key file is not a secret, and taking it out of a config would break it."""
    return value.startswith("/") and os.path.exists(value)  # noqa: PTH110 - says no to what is too long; Path raises
