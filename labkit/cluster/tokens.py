"""Tokens of a shell script: words as they are written, operators, here-documents. Any text gives some; none is refused.

bashlex was weighed: it raises on ``case``, ``[[``, arrays and ``$((...))``, which half of all batch scripts have, and
it is licensed under the GPL.
"""

import re
from dataclasses import dataclass
from typing import Literal

_OPERATORS = re.compile(r"\n|;;&|;;|;&|;|&&|&(?!>)|\|\||\|&|\||\(|\)")
_REDIRECTION = re.compile(r"\d*(?:<<<|<<-?|<>|<&|>>|>&|>\||&>>|&>|<(?!\()|>(?!\())|\{\w+\}(?:>>|[<>])")
_ARRAY = re.compile(r"[A-Za-z_]\w*(?:\[[^]\s]*\])?\+?=")
_CLOSES = {"(": ")", "{": "}"}
_DEPTH = 40
"""Quotes within expansions within quotes that are followed; no real script has more."""

_CONDITION = 2000
"""How long what stands between ``[[`` and ``]]`` may be."""


@dataclass(frozen=True)
class Token:
    """A piece of a script: ``text`` as it is written (of a here-document its body), from ``start`` to ``end``.

    The target of a redirection is not a token. ``quoted`` is whether a here-document is taken as it stands.
    """

    kind: Literal["word", "operator", "document"]
    text: str
    start: int
    end: int
    quoted: bool = False


def tokens(text: str) -> list[Token]:
    """All tokens of a script, without comments; a quote that is never closed lasts to the end."""
    found: list[Token] = []
    waiting: list[tuple[str, bool, bool]] = []  # here-documents whose bodies begin at the next line
    i = 0
    while i < len(text):
        if text.startswith("\\\n", i):
            i += 2
        elif text[i] in " \t\r":
            i += 1
        elif text[i] == "#":
            i = _end_of_line(text, i)
        elif match := _REDIRECTION.match(text, i):
            i = _blanks(text, match.end())
            end = word_end(text, i)
            if match[0].endswith(("<<", "<<-")):
                waiting.append((re.sub(r"[\"'\\]", "", text[i:end]), match[0].endswith("-"), text[i:end].isalnum()))
            i = max(end, match.end())
        elif text.startswith("((", i) and (end := _after(text, i + 2, "))")):
            found.append(Token("word", text[i:end], i, end))
            i = end
        elif match := _OPERATORS.match(text, i):
            found.append(Token("operator", match[0], i, match.end()))
            i = match.end()
            if match[0] == "\n":
                for word, tabs, plain in waiting:
                    start, i = i, _document_end(text, i, word, tabs)
                    body = text[start:i].rpartition(word)[0]
                    found.append(Token("document", body, start, i, quoted=not plain))
                waiting = []
        else:
            end = (text.startswith("[[", i) and _after(text, i, "]]")) or max(word_end(text, i), i + 1)
            found.append(Token("word", text[i:end], i, end))
            i = end
    return found


def word_end(text: str, i: int) -> int:
    """Where the word that begins at ``i`` ends."""
    start = i
    while i < len(text):
        char = text[i]
        if char == "\\":
            i += 2
        elif char in "'\"`$":
            i = expansion_end(text, i)
        elif char in "<>" and text.startswith("(", i + 1):
            i = closing(text, i + 1)
        elif char == "(" and _ARRAY.fullmatch(text, start, i):
            i = closing(text, i)
        elif char in " \t\r\n;&|()<>":
            break
        else:
            i += 1
    return min(i, len(text))


def expansion_end(text: str, i: int, depth: int = 0) -> int:
    """Where a quoted part, or what begins with ``$`` or a backtick at ``i``, ends."""
    char = text[i]
    if depth > _DEPTH:
        return len(text)
    if char == "'":
        return (text.find("'", i + 1) + 1) or len(text)
    if char in '"`':
        j = i + 1
        while j < len(text) and text[j] != char:
            if text[j] == "\\":
                j += 2
            elif char == '"' and text[j] in "$`":
                j = expansion_end(text, j, depth + 1)
            else:
                j += 1
        return min(j + 1, len(text))
    if text.startswith("$'", i):
        j = i + 2
        while j < len(text) and text[j] != "'":
            j += 2 if text[j] == "\\" else 1
        return min(j + 1, len(text))
    if text[i + 1 : i + 2] in ("(", "{"):
        return closing(text, i + 1, depth + 1)
    name = re.compile(r"\w+|[@*#?$!-]").match(text, i + 1)
    if name is None:
        return i + 1
    # one digit is one place: $10 is $1 and a 0
    return i + 2 if name[0][0].isdigit() else name.end()


def closing(text: str, i: int, depth: int = 0) -> int:
    """After the bracket that closes the one at ``i``; quotes and brackets within count."""
    level, closes, j = 0, _CLOSES[text[i]], i
    while j < len(text):
        char = text[j]
        if char == "\\":
            j += 2
            continue
        if char in "'\"`" and j > i:
            j = expansion_end(text, j, depth + 1)
            continue
        if char == "#" and closes == ")" and text[j - 1] in " \t\n":
            j = _end_of_line(text, j)
            continue
        level += (char == text[i]) - (char == closes)
        j += 1
        if level == 0:
            return j
    return len(text)


def _after(text: str, i: int, mark: str) -> int:
    """After the next ``mark`` that is near; 0 without one."""
    found = text.find(mark, i, i + _CONDITION)
    return found + len(mark) if found >= 0 else 0


def _blanks(text: str, i: int) -> int:
    while i < len(text) and text[i] in " \t":
        i += 1
    return i


def _end_of_line(text: str, i: int) -> int:
    end = text.find("\n", i)
    return len(text) if end < 0 else end


def _document_end(text: str, i: int, word: str, tabs: bool) -> int:
    while i < len(text):
        end = _end_of_line(text, i)
        line = text[i:end]
        i = min(end + 1, len(text))
        if (line.lstrip("\t") if tabs else line) == word:
            return i
    return len(text)
