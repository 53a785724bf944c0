"""The commands of a shell script, in the order in which a shell comes to them, with variables and functions filled in.

Nothing is run. Both ways of an ``if`` are taken, the body of a loop once, a function where it is called. A variable
that is set differently on two ways is not known from there on.
"""

import re
from dataclasses import dataclass, field, replace

from labkit.cluster.expand import Value, Words, known_values
from labkit.cluster.tokens import Token, tokens

_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)(?:\[[^]]*\])?(?P<more>\+?)=(?P<value>.*)", re.DOTALL)
_DECLARES = frozenset({"export", "declare", "typeset", "local", "readonly"})
_BEGINS = {"if": ("fi",), "while": ("done",), "until": ("done",), "for": ("done",), "select": ("done",),
           "case": ("esac",), "{": ("}",)}  # fmt: skip
_SEPARATES = frozenset({"then", "else", "elif", "do"})
_ENDS = frozenset({"fi", "done", "esac", "}"})
_DEPTH = 40
"""Compounds within functions within compounds that are followed."""

_MOST = 2_000
"""Commands that are kept; a function may call itself twice."""

_MOST_VARIABLES = 1_000
"""Variables that are kept."""

_MOST_ITEMS = 300
"""Items of an array that are kept."""


@dataclass(frozen=True)
class Command:
    """A simple command: its ``words`` with what is known filled in, ``NAME=VALUE`` in front of it apart.

    ``source`` is how it is written, without a here-document, and ``at`` where that begins after its assignments.
    ``places``: any of ``loop``, ``branch``, ``background``, ``function``. ``document`` is what it reads.
    """

    words: tuple[str, ...]
    source: str
    at: int = 0
    assigned: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Value] = field(default_factory=dict)
    """All variables as they are there."""
    places: frozenset[str] = frozenset()
    document: str | None = None

    def after_assignments(self, word: str) -> str:
        """How it is written with a word in front of the command itself, and after its assignments."""
        return f"{self.source[: self.at]}{word} {self.source[self.at :]}"


class Shell:
    """Reads a script; ``commands`` and ``variables`` are what it found. ``variables`` may begin with some."""

    def __init__(self, variables: dict[str, Value] | None = None) -> None:
        self.variables: dict[str, Value] = dict(variables or {})
        self.commands: list[Command] = []
        self._functions: dict[str, tuple[str, list[Token]]] = {}
        self._positional: list[str] | None = None
        self._text = ""
        self._tokens: list[Token] = []
        self._places: frozenset[str] = frozenset()
        self._depth = 0
        self._over = False

    def read(self, text: str) -> "Shell":
        """Take a script in."""
        self._text, self._tokens = text, tokens(text)
        self._list(0, frozenset())
        return self

    # -- a list of commands, until a word that ends it

    def _list(self, i: int, ends: frozenset[str]) -> int:
        begun = len(self.commands)  # of this pipeline
        while i < len(self._tokens):
            token = self._tokens[i]
            if token.kind == "operator":
                if token.text == ")" or token.text.startswith(";;"):
                    if ends & {")", ";;"}:
                        return i
                    i += 1
                elif token.text == "(":
                    i = self._subshell(i)
                else:
                    if token.text == "&":
                        self._in_background(begun)
                    if token.text in ("\n", ";", "&"):
                        begun = len(self.commands)
                    i += 1
            elif token.kind == "document":
                if self.commands:
                    self.commands[-1] = replace(self.commands[-1], document=token.text)
                i += 1
            elif token.text in ends:
                return i
            elif token.text in _BEGINS:
                i = self._compound(i)
            elif token.text in _ENDS or token.text in _SEPARATES or token.text == "!":  # one too many
                i += 1
            else:
                i = self._command(i)
            if self._over:
                return len(self._tokens)
        return i

    def _inside(self, i: int, ends: frozenset[str], place: str | None = None) -> int:
        """A list within a compound."""
        if self._depth >= _DEPTH:
            self._over = True
            return len(self._tokens)
        places, self._depth = self._places, self._depth + 1
        self._places |= {place} if place else set()
        i = self._list(i, ends)
        self._places, self._depth = places, self._depth - 1
        return i

    def _word_at(self, i: int) -> str:
        return self._tokens[i].text if i < len(self._tokens) and self._tokens[i].kind == "word" else ""

    def _compound(self, i: int) -> int:
        begins = self._word_at(i)
        ends = frozenset(_BEGINS[begins])
        if begins == "{":
            return self._inside(i + 1, ends) + 1
        if begins == "case":
            return self._case(i)
        if begins in ("for", "select"):
            name = self._word_at(i + 1)
            while i < len(self._tokens) and self._word_at(i) not in ("do", "done"):
                i += 1
            self.variables[name] = None
            return self._inside(i + 1, ends, "loop") + 1 if self._word_at(i) == "do" else i + 1
        place = "branch" if begins == "if" else "loop"
        i = self._inside(i + 1, ends | {"then", "do"})  # the condition
        while self._word_at(i) in _SEPARATES:
            if self._word_at(i) == "elif":
                i = self._inside(i + 1, ends | {"then"})
            else:
                i = self._inside(i + 1, ends | {"else", "elif"}, place)
        return i + 1

    def _case(self, i: int) -> int:
        while i < len(self._tokens) and self._word_at(i) != "in":
            i += 1
        i += 1
        while i < len(self._tokens) and self._word_at(i) != "esac":
            if self._tokens[i].text != ")" or self._tokens[i].kind != "operator":  # of a pattern
                i += 1
                continue
            i = self._inside(i + 1, frozenset({";;", "esac"}), "branch")
            if i < len(self._tokens) and self._tokens[i].text != "esac":
                i += 1
        return i + 1

    def _subshell(self, i: int) -> int:
        kept = dict(self.variables)
        i = self._inside(i + 1, frozenset({")"}))
        self.variables = kept
        return i + 1

    def _in_background(self, begun: int) -> None:
        for n in range(begun, len(self.commands)):
            command = self.commands[n]
            self.commands[n] = replace(command, places=command.places | {"background"})

    # -- one command

    def _command(self, i: int) -> int:
        first, end = i, i
        while end < len(self._tokens) and self._tokens[end].kind == "word":
            end += 1
        raw = [token.text for token in self._tokens[first:end]]
        if (named := self._function_at(first, end)) is not None:
            return named
        if raw[0].startswith(("[[", "((")):
            return end
        words = Words(self.variables, self._positional)
        assigned: dict[str, Value] = {}
        while raw and (match := _ASSIGNMENT.fullmatch(raw[0])):
            assigned[match["name"]] = self._assigned(match, words)
            raw, first = raw[1:], first + 1
        if not raw:
            for name, value in assigned.items():
                self._set(name, value)
            return end
        begin, last = self._tokens[i].start, self._tokens[end - 1].end
        if raw[0] in _DECLARES:
            for word in raw[1:]:
                if match := _ASSIGNMENT.fullmatch(word):
                    self._set(match["name"], self._assigned(match, words))
            return end
        found = [field for word in raw for field in words.fields(word)]
        if not found:
            return end
        self._carry_out(found, known_values(assigned), self._text[begin:last], self._tokens[first].start - begin)
        return end

    def _carry_out(self, found: list[str], assigned: dict[str, str], source: str, at: int) -> None:
        name = found[0]
        if name in self._functions and self._depth < _DEPTH:
            self._call(name, found[1:])
            return
        if name == "unset":
            for word in found[1:]:
                self.variables[word] = None
        elif name in ("read", "mapfile", "readarray"):
            self.variables[found[-1]] = None
        elif name == "set" and "--" in found:
            self._positional = found[found.index("--") + 1 :]
        elif name == "shift" and self._positional:
            self._positional = self._positional[1:]
        elif name == "exit" and not self._places:
            self._over = True
        if len(self.commands) < _MOST:
            source = re.sub(r"\s*\\\n\s*", " ", source)
            self.commands.append(
                Command(tuple(found), source, at, assigned, dict(self.variables), self._places)
            )  # fmt: skip
        else:
            self._over = True

    def _assigned(self, match: re.Match[str], words: Words) -> Value:
        raw = match["value"]
        if "[" in match[0].partition("=")[0]:
            return None
        value: str | list[str] = words.text(raw)
        if raw.startswith("(") and raw.endswith(")"):
            items = [token.text for token in tokens(raw[1:-1]) if token.kind == "word"]
            value = [field for item in items for field in words.fields(item)][:_MOST_ITEMS]
        if not match["more"]:
            return value
        before = self.variables.get(match["name"])
        if isinstance(before, list):
            return [*before, *(value if isinstance(value, list) else [value])][:_MOST_ITEMS]
        if isinstance(value, list):
            return value if before is None else [before, *value][:_MOST_ITEMS]
        return None if before is None and match["name"] in self.variables else (before or "") + value

    def _set(self, name: str, value: Value) -> None:
        if "branch" in self._places and self.variables.get(name, value) != value:
            value = None
        if len(self.variables) < _MOST_VARIABLES or name in self.variables:
            self.variables[name] = value

    # -- functions

    def _function_at(self, first: int, end: int) -> int | None:
        """Take in the function that is written here, and say where it ends."""
        i = first + (self._word_at(first) == "function")
        brackets = [token.text for token in self._tokens[i + 1 : i + 3]]
        if i == first and (brackets != ["(", ")"] or end != first + 1):
            return None
        name, i = self._word_at(i), i + 1 + 2 * (brackets == ["(", ")"])
        while i < len(self._tokens) and self._tokens[i].text == "\n":
            i += 1
        if self._word_at(i) != "{":
            return i
        begin, depth = i + 1, 0
        while i < len(self._tokens):
            depth += (self._word_at(i) == "{") - (self._word_at(i) == "}")
            i += 1
            if depth == 0:
                break
        self._functions[name] = (self._text, self._tokens[begin : i - 1])
        return i

    def _call(self, name: str, arguments: list[str]) -> None:
        kept = self._text, self._tokens, self._positional, self._places
        self._text, self._tokens = self._functions[name]
        self._positional, self._depth = arguments, self._depth + 1
        self._places |= {"function"}
        self._list(0, frozenset())
        self._text, self._tokens, self._positional, self._places = kept
        self._depth -= 1
