"""Expansion of a word of a shell script: variables that the script sets are filled in, everything else stays as
written.

``$(which torchrun)`` is ``torchrun``; other commands in ``$(...)``, and variables that are not set here, stand for
themselves: ``$NAME`` says that its value is not known.
"""

import re
from collections.abc import Mapping

from labkit.cluster.tokens import expansion_end

Value = str | list[str] | None
"""Of a variable: text, an array, or None for one that is set to what cannot be known here."""

_BRACES = re.compile(r"\$\{(?P<name>\w+|@)(?:\[(?P<index>[^]]*)\])?(?:(?P<how>:?[-=?+])(?P<word>.*))?\}", re.DOTALL)
_WHICH = re.compile(r"(?:\$\(|`)\s*(?:which|command -v|type -p)\s+(\S+?)\s*[)`]")
_NUMBERS = re.compile(r"[\d\s()+*/%-]+")
_ONE_WORD = "\N{NO-BREAK SPACE}"
"""In place of a blank in what is not known, which stays one word wherever it is filled in."""

_LONGEST = 20_000
"""Characters of a value; what grows beyond is cut."""

_DEPTH = 40
"""Expansions within expansions that are followed."""


class Words:
    """Fills words in from ``variables``, which ``${NAME:=VALUE}`` may add to."""

    def __init__(self, variables: dict[str, Value], positional: list[str] | None = None) -> None:
        self.variables = variables
        self.positional = positional
        self._depth = 0

    def fields(self, raw: str) -> list[str]:
        """The words that one word becomes: none, one or several."""
        found: list[str] = []
        open_word: str | None = None
        for text, quoted in self._parts(raw):
            if isinstance(text, list):  # "${array[@]}"
                for n, item in enumerate(text):
                    if n:
                        found.append(open_word or "")
                        open_word = None
                    open_word = (open_word or "") + item
            elif quoted:
                open_word = (open_word or "") + text
            else:
                pieces = re.split(r"[ \t\n]+", text)
                for n, piece in enumerate(pieces):
                    if n:
                        if open_word is not None:
                            found.append(open_word)
                        open_word = None
                    if piece:
                        open_word = (open_word or "") + piece
        return [*found, open_word] if open_word is not None else found

    def text(self, raw: str) -> str:
        """The value of a word that is not split, as on the right of ``=``."""
        parts = [" ".join(text) if isinstance(text, list) else text for text, _ in self._parts(raw)]
        return "".join(parts)[:_LONGEST]

    def _parts(self, raw: str) -> list[tuple[str | list[str], bool]]:
        """Pieces of a word and whether blanks in them are kept."""
        found: list[tuple[str | list[str], bool]] = []
        i = length = 0
        while i < len(raw) and length < _LONGEST:
            length += len(found[-1][0]) if found else 0
            char = raw[i]
            if char == "\\":
                found += [(raw[i + 1 : i + 2], True)] if raw[i + 1 : i + 2] != "\n" else []
                i += 2
            elif char == "'" or raw.startswith("$'", i):
                end = expansion_end(raw, i)
                inner = raw[i + 1 + (char == "$") : end]
                found.append((inner.removesuffix("'"), True))
                i = end
            elif char == '"':
                end = expansion_end(raw, i)
                found += self._quoted(raw[i + 1 : end].removesuffix('"'))
                i = end
            elif char in "$`":
                end = expansion_end(raw, i)
                value, known = self._value(raw[i:end])
                found.append((value, not known) if isinstance(value, str) else (" ".join(value), False))
                i = end
            else:
                end = i + 1
                while end < len(raw) and raw[end] not in "\\'\"$`":
                    end += 1
                found.append((raw[i:end], True))
                i = end
        return found

    def _quoted(self, inner: str) -> list[tuple[str | list[str], bool]]:
        found: list[tuple[str | list[str], bool]] = [("", True)]
        if re.fullmatch(r"\$(?:@|\{\w+\[@\]\}|\{@\})", inner) and isinstance(value := self._value(inner)[0], list):
            return [(value, True)]
        i = length = 0
        while i < len(inner) and length < _LONGEST:
            length += len(found[-1][0])
            if inner[i] == "\\":
                following = inner[i + 1 : i + 2]
                found.append(((following if following in '$`"\\' else f"\\{following}") * (following != "\n"), True))
                i += 2
            elif inner[i] in "$`":
                end = expansion_end(inner, i)
                value, _ = self._value(inner[i:end])
                found.append((value if isinstance(value, str) else " ".join(value), True))
                i = end
            else:
                end = i + 1
                while end < len(inner) and inner[end] not in "\\$`":
                    end += 1
                found.append((inner[i:end], True))
                i = end
        return found

    def _value(self, raw: str) -> tuple[str | list[str], bool]:
        """What an expansion becomes, and whether that is known; else it is what is written there."""
        if match := _WHICH.fullmatch(raw):
            return match[1], True
        if raw.startswith("$(("):
            return self._sum(raw)
        if raw.startswith(("$(", "`")):
            return re.sub(r"\s", _ONE_WORD, raw), False
        match = _BRACES.fullmatch(raw) if self._depth < _DEPTH else None
        name = match["name"] if match else raw[1:]
        if self.positional is not None and (name == "@" or name == "*" or (name.isdecimal() and name != "0")):
            if not name.isdecimal():
                return self.positional, True
            place = int(name[:6]) - 1
            return (self.positional[place] if place < len(self.positional) else ""), True
        value = self.variables.get(name)
        if match and match["how"]:
            return self._or_default(raw, match, value)
        if value is None or (raw.startswith("${") and not match):
            return raw, False
        if isinstance(value, list):
            index = match["index"] if match else None
            if index in ("@", "*"):
                return value, True
            place = int(index[:6]) if index and index.isdecimal() else 0
            if index and not index.isdecimal():
                return raw, False
            return (value[place] if place < len(value) else ""), True
        return value, True

    def _or_default(self, raw: str, match: re.Match[str], value: Value) -> tuple[str | list[str], bool]:
        how, name = match["how"][-1], match["name"]
        self._depth += 1
        default = self.text(match["word"])
        self._depth -= 1
        if how == "+":
            return (default, True) if value else (raw, False)
        if value is None and name in self.variables or how == "?":
            return (raw, False) if value is None else (value, True)
        if value:
            return value, True
        if how == "=":
            self.variables[name] = default
        return default, True

    def _sum(self, raw: str) -> tuple[str, bool]:
        inner = re.sub(r"\$\{?(\w+)\}?|[A-Za-z_]\w*", self._operand, raw[3:-2])
        if len(inner) > 100 or not _NUMBERS.fullmatch(inner):
            return raw, False
        value = calculate(inner)
        return (raw, False) if value is None else (str(value), True)

    def _operand(self, match: re.Match[str]) -> str:
        value = self.variables.get(match[1] or match[0])
        return value if isinstance(value, str) else match[0]


def calculate(text: str) -> int | None:
    """The value of whole numbers with ``+ - * / %`` and brackets; None for anything else."""
    parts = re.findall(r"\d+|[-+*/%()]", text)
    place = 0

    def expression(least: int) -> int:
        nonlocal place
        part, place = parts[place], place + 1
        if part == "(":
            left = expression(0)
            if parts[place] != ")":
                raise ValueError(text)
            place += 1
        else:
            left = -expression(2) if part == "-" else int(part[:18])
        while place < len(parts) and (weight := {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2}.get(parts[place], -1)) > least:
            operator, place = parts[place], place + 1
            right = expression(weight)
            left = {"+": left + right, "-": left - right, "*": left * right}.get(operator, 0) if operator in "+-*" \
                else (left // right if operator == "/" else left % right)  # fmt: skip
        return left

    try:
        value = expression(0)
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return value if place == len(parts) else None


def known_values(variables: Mapping[str, Value]) -> dict[str, str]:
    """The variables whose text is known."""
    return {name: value for name, value in variables.items() if isinstance(value, str)}
