"""Secrets: told apart from other text, so that they reach no file, no output and no child process."""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

HIDDEN = "[redacted]"
SHORTEST = 8
"""Characters of a value that is looked for in text; shorter ones are in too many words."""

_NAME = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|KEY(?!BOARD)", re.IGNORECASE)
_PATTERNS = (
    (re.compile(r"hf_[A-Za-z0-9]{20,}"), HIDDEN),
    (re.compile(r"\b((?:access_)?token|api_?key|password|secret)=[^\s&#\"',;)]+", re.IGNORECASE), rf"\1={HIDDEN}"),
    (re.compile(r"://[^/\s@]+@"), f"://{HIDDEN}@"),
    (re.compile(r"\bBearer\s+[\w.~+/=-]{8,}", re.IGNORECASE), f"Bearer {HIDDEN}"),
)


def redact(data: Any) -> Any:
    """Text, or lists and dictionaries of it, with ``[redacted]`` in place of secrets.

    Secrets are the values of environment variables that are named like one (``TOKEN``, ``KEY``, ``SECRET``,
    ``PASSWORD``) and have ``SHORTEST`` characters or more, the token of the Hugging Face hub, and what looks like one:
    ``hf_...``, ``token=...``, ``user:password@`` in an address, ``Bearer ...``.
    """
    return _redacted(data, _values())


def child_environment() -> dict[str, str]:
    """This process's environment without secrets, for a process that needs none.

    It reads and prints UTF-8 whatever the terminal is: what it prints goes into a log, and no letter may end it.
    """
    kept = {name: value for name, value in os.environ.items() if not _NAME.search(name) or _is_path(value)}
    return kept | {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}


def redact_file(path: Path) -> None:
    """Take secrets out of a text file; one that cannot be written again is removed rather than left with them."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        clean = redact(text)
        if clean == text:
            return
    except OSError:  # there is none, or nobody may read it
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(clean.encode("utf-8", "surrogateescape"))
        partial.replace(path)
    except OSError:
        for rest in (path, partial):
            with contextlib.suppress(OSError):
                rest.unlink()


def _redacted(data: Any, values: list[str]) -> Any:
    if isinstance(data, str):
        for value in values:
            data = data.replace(value, HIDDEN)
        for pattern, instead in _PATTERNS:
            data = pattern.sub(instead, data)
        return data
    if isinstance(data, dict):
        return {_redacted(key, values): _redacted(value, values) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(_redacted(item, values) for item in data)
    return data


def _values() -> list[str]:
    """Longest first, so that none is left over where one is part of another."""
    found = {value for name, value in os.environ.items() if _NAME.search(name) and not _is_path(value)}
    hub = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    try:
        named = os.environ.get("HF_TOKEN_PATH") or hub / "token"
        found.add(Path(named).expanduser().read_text(encoding="utf-8").strip())
    except (OSError, ValueError, RuntimeError):  # there is none, it is not text, or nobody's home is known
        pass
    return sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)


def _is_path(value: str) -> bool:
    """The place of a key file is no secret, and taking it out of a config would break it."""
    return value.startswith("/") and os.path.exists(value)  # noqa: PTH110 - says no to what is too long; Path raises
