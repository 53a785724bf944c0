"""The command line's parser: one line for an error, with what may have been meant, and help that fits the terminal."""

import argparse
import difflib
import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from labkit.config.errors import nearest
from labkit.config.printable import printable
from labkit.config.secrets import redact
from labkit.ledger.terminal import LEAST, say, wrapped
from labkit.verbs.options import EXIT_USAGE

_EXAMPLE = re.compile(r"(  labkit .*?\S)(?: {2,}(\S.*))?$")
"""A line of help that is to be typed, and what it does."""

_CONTINUES = re.compile(r"\n {8,}(?=\S)")
"""Where what an example does continues in the next line."""

_INVALID = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")
"""How argparse words a verb that there is not."""


class Parser(argparse.ArgumentParser):
    """Says an error on one line. ``options`` are all that it takes, such as ``--profile``."""

    def __init__(self, **how: Any) -> None:
        self.options: list[str] = []
        super().__init__(**how, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add_argument(self, *names: str, **how: Any) -> argparse.Action:
        """As ``ArgumentParser`` has it."""
        action = super().add_argument(*names, **how)
        self.options += action.option_strings
        return action

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and end with the exit code of a wrong command line."""
        if invalid := _INVALID.search(message):
            verbs = re.findall(r"[a-z]+", invalid[2])
            message = f"labkit has no '{invalid[1]}'.{nearest(invalid[1], verbs)} It has {', '.join(verbs)}."
        end = "" if message.endswith((".", "?")) else "."
        text = f"error: {message}{end} '{self.prog} --help' says what there is."
        say(redact(text).replace("\n", "\\n"), error=True)
        sys.exit(EXIT_USAGE)


def as_options(argv: Sequence[str]) -> list[str]:
    """``help VERB`` as ``VERB --help``."""
    return [*argv[1:2], "--help"] if argv and argv[0] == "help" else list(argv)


def unknown(rest: Iterable[str], options: Sequence[str]) -> str:
    """Arguments that nothing takes, and the option that each may have been meant for."""
    meant = [close[0] for item in rest if (close := difflib.get_close_matches(item.partition("=")[0], options, n=1))]
    asks = f" Did you mean {' and '.join(meant)}?" if meant else ""
    return f"unrecognized arguments: {' '.join(rest)}.{asks}"


def help_text(text: str) -> str:
    """A verb's help with lines that fit the terminal: paragraphs are filled, examples have what they do below them."""
    columns = max(shutil.get_terminal_size().columns, LEAST)  # as argparse has it for the rest
    shown: list[str] = []
    for is_paragraph, lines in itertools.groupby(
        _CONTINUES.sub(" ", printable(text).rstrip("\n")).split("\n"), _is_prose
    ):
        if is_paragraph:
            shown += textwrap.wrap(" ".join(lines), columns, break_long_words=False, break_on_hyphens=False)
        else:
            shown += [_example(line, columns) for line in lines]
    return "\n".join(shown)


def _is_prose(line: str) -> bool:
    return bool(line) and not line.startswith(" ")


def _example(line: str, columns: int) -> str:
    found = _EXAMPLE.match(line)
    if len(line) <= columns or found is None or found[2] is None:
        return wrapped(line, columns)
    return f"{wrapped(found[1], columns)}\n{wrapped(' ' * 6 + found[2], columns)}"
