"""Text of logs, made fit to be shown: without colours and secrets, in lines no longer than a screen."""

import re
from pathlib import Path

from labkit.config.regular_file import open_regular
from labkit.config.secrets import redact

TAIL_BYTES = 2**20
"""How much of a log's end is read: the cause of an end stands near it."""

LINES, WIDTH = 8, 300

_NOT_TEXT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SECRET = re.compile(
    r"\bhf_\w{8,}|\b[0-9a-f]{40}\b|(?:(?<=token=)|(?<=api_key=)|(?<=password=)|(?<=bearer ))[^\s&'\"]+", re.IGNORECASE
)


def read_tail(path: Path, start: int = 0, most_bytes: int = TAIL_BYTES) -> str:
    """The end of a log as text, from the byte ``start`` on; empty without a file.

    Raises ``OSError`` for one that cannot be read, and ``ValueError`` for a pipe, a device or the like.
    """
    try:
        with open_regular(path) as file:
            file.seek(max(start, file.seek(0, 2) - most_bytes))
            return file.read(most_bytes).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def clean(text: str) -> str:
    """``text`` without control characters and without what looks like a token, a key or a password."""
    return _SECRET.sub("***", _NOT_TEXT.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def last_lines(text: str, count: int = LINES) -> list[str]:
    """The last lines that are not empty, each cut at ``WIDTH`` characters."""
    lines = [line.rstrip() for line in clean(text).splitlines() if line.strip()][-count:]
    lines = redact(lines)
    return [line if len(line) <= WIDTH else f"{line[:WIDTH]} ..." for line in lines]


def around(text: str, match: re.Match[str]) -> list[str]:
    """The lines that a match lies in, from the first; a long one is cut around the match, never before it."""
    start = text.rfind("\n", 0, match.start()) + 1
    end = text.find("\n", match.end())
    end = len(text) if end < 0 else end
    if end - start <= WIDTH:
        return last_lines(text[start:end])
    if match.start() - start > WIDTH // 2:
        start = match.start() - WIDTH // 4
        return [f"... {line}" if number == 0 else line for number, line in enumerate(last_lines(text[start:end]))]
    return last_lines(text[start:end])
