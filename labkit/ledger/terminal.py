"""The terminal: how wide it is, and text that it can show."""

import os
import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from labkit.config.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 1000
"""So wide that a pipe and a file get tables in one piece, a row on one line."""

LEAST = 20
"""Columns; what says it has fewer is taken to have these."""

_TYPED = re.compile(
    r" *(labkit|python3?|pip|sbatch|srun|salloc|scancel|torchrun|accelerate|deepspeed|export|sudo|git|module|kill) [^ ]"
)
"""A line to be typed into a shell."""

_GAP = re.compile(r" {2,}(?=[^ ])")


def width() -> int | None:
    """Columns of the terminal, or of ``COLUMNS``; None where text goes to a pipe or a file."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked[:9]) > 0:
        return max(int(asked[:9]), LEAST)
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    try:
        found = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):  # a terminal that does not say
        found = 0
    return max(found or 80, LEAST)


def say(text: str = "", *, error: bool = False) -> None:
    """Print ``text``, made printable; to standard output in lines that fit the terminal.

    An error stays on its one line, which programs read.
    """
    if error:
        print(printable(text), file=sys.stderr, flush=True)
    else:
        print(wrapped(printable(text), width()), flush=True)


def wrapped(text: str, columns: int | None) -> str:
    """``text`` with lines of at most so many ``columns``; a longer word, such as a path, stays whole.

    A line continues below its last gap of two blanks, or two columns to the right of where it began. One that is to be
    typed continues after a backslash, with its comment below it.
    """
    if columns is None:
        return text
    return "\n".join(_lines(line, columns) for line in text.split("\n"))


def _lines(line: str, columns: int) -> str:
    if len(line) <= columns:
        return line
    indent = min(len(line) - len(line.lstrip(" ")), columns // 2)
    if _TYPED.match(line):
        command, _, comment = line.partition("  # ")
        return "\n".join([_command(command, indent, columns), *_filled(comment, f"{'':{indent}}  # ", columns)])
    gaps = [gap.end() for gap in _GAP.finditer(line, indent) if gap.end() <= columns // 2]
    return "\n".join(_filled(line.strip(), " " * indent, columns, " " * max([indent + 2, *gaps])))


def _command(line: str, indent: int, columns: int) -> str:
    if any(mark in line for mark in "'\""):  # it would be cut within what is quoted, where a backslash is a letter
        return line
    return " \\\n".join(_filled(line.strip(), " " * indent, columns - 2, " " * (indent + 2)))


def _filled(text: str, before: str, columns: int, before_others: str | None = None) -> list[str]:
    others = before if before_others is None else before_others
    return textwrap.wrap(
        text, columns, initial_indent=before, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def console() -> "Console":
    """Rich's console on standard output, as wide as the terminal, for text that has no markup and is not trusted."""
    from rich.console import Console
    from rich.text import Text

    class Clean(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(printable(text), **how)

    columns = width()
    return Clean(
        file=sys.stdout, width=columns or WIDTH_WITHOUT_TERMINAL, soft_wrap=columns is None,
        height=shutil.get_terminal_size().lines,  # else rich reads COLUMNS, and fails where it is not a number
        highlight=False, markup=False, emoji=False,
    )  # fmt: skip
