"""Pages on names and commands, written from the docstrings and from the command's own parser.

    python docs/api.py

Writes ``docs/api.md`` and ``docs/commands.md``. Sources are read and not imported, so torch is not needed.
"""

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
import labkit  # noqa: E402
from labkit.cli import command_line  # noqa: E402

WIDTH = 100
GIVEN = {
    "Workspace": "labkit.config.workspace",
    "Resolved": "labkit.config.layers",
    "Prediction": "labkit.plan.predict",
    "PhaseMemory": "labkit.memory.report",
    "RunFolder": "labkit.ledger.run_folder",
    "DiedIn": "labkit.ledger.parts",
    "OutOfMemory": "labkit.ledger.parts",
    "Diagnosis": "labkit.ledger.parts",
    "SimulatedOutOfMemoryError": "labkit.memory.tracker",
    "LedgerError": "labkit.ledger.errors",
    "PredictionError": "labkit.plan.errors",
}
"""What public names take, return or raise, and where it is imported from."""

NAMES = """\
# API

Written by `docs/api.py` from the docstrings. The names of the first part are imported from
`labkit`, and change only as [the changelog](../CHANGELOG.md) says. Those of the second part are
what the first take, return or raise, with where they are imported from.

Sizes are in bytes, times in seconds, steps and micro steps count from 0, unless a line says
otherwise.
"""
COMMANDS = """\
# Commands

Written by `docs/api.py` from the help of the command, which `labkit VERB --help` prints. Each verb
also takes `--json`, which prints JSON instead of text.

Exit codes: 0 for done, 1 for failed, 2 for a command line or a config that cannot work, 130 after
Ctrl-C. What else a verb ends with stands there.
"""
HOOK = re.compile(r"on_\w+|setup|teardown|__\w+__|_.*")
"""Methods that Lightning or Python calls, and private ones."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def api() -> str:
    """The page of names."""
    public = {name: labkit._HOMES[name] for name in labkit.__all__}
    parts = [NAMES, "## Names of labkit", *(_entry(name, home) for name, home in public.items())]
    parts += ["## What they take, return or raise", *(_entry(name, home, shown=True) for name, home in GIVEN.items())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def commands() -> str:
    """The page of commands."""
    parts = [COMMANDS, *(_verb(name, parser) for name, parser in _verbs().items())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


# -- names


def _entry(name: str, home: str, shown: bool = False) -> str:
    source = DOCS.parent.joinpath(*home.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    (node,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef | Function) and n.name == name)
    lines = [f"### {name}"]
    if shown:
        lines.append(f"`from {home} import {name}`")
    if isinstance(node, ast.ClassDef):
        lines += [_code(_class_line(node)), _prose(ast.get_docstring(node) or ""), *_members(node)]
    else:
        lines += [_code(_signature(node)), _prose(ast.get_docstring(node) or "")]
    return "\n\n".join(line for line in lines if line)


def _class_line(node: ast.ClassDef) -> str:
    """How an object is made, where its class says so; else what it is derived from."""
    for made in node.body:
        if isinstance(made, Function) and made.name == "__init__":
            return _signature(made, node.name).removesuffix(" -> None")
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    return f"class {node.name}({bases})" if bases else f"class {node.name}"


def _members(node: ast.ClassDef) -> Iterator[str]:
    """Fields, then properties, then methods, each with what it says of itself."""
    fields = []
    for member, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name) and member.target.id[0] != "_":
            fields.append(_item(ast.unparse(member), _documented(after)))
    methods = [m for m in node.body if isinstance(m, Function) and not HOOK.fullmatch(m.name)]
    for member in methods:
        if _is(member, "property", "cached_property"):
            kind = f": {ast.unparse(member.returns)}" if member.returns else ""
            fields.append(_item(f"{member.name}{kind}", ast.get_docstring(member) or ""))
    if fields:
        yield "\n".join(fields)
    for member in methods:
        if not _is(member, "property", "cached_property"):
            yield f"#### {node.name}.{member.name}"
            yield _code(_signature(member))
            yield _prose(ast.get_docstring(member) or "")


def _documented(node: ast.stmt | None) -> str:
    """The text below a field."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _is(node: Function, *decorators: str) -> bool:
    return any(ast.unparse(d).rpartition(".")[2] in decorators for d in node.decorator_list)


def _signature(node: Function, name: str | None = None) -> str:
    """As it stands in the source, without ``self``; on several lines if it does not fit."""
    given = node.args
    if given.vararg or given.kwarg or given.kwonlyargs or given.posonlyargs:
        raise ValueError(f"{node.name} takes arguments that this page cannot show yet")
    arguments = given.args[1:] if given.args and given.args[0].arg in ("self", "cls") else given.args
    defaults = [None] * (len(arguments) - len(given.defaults)) + list(given.defaults)
    typed = [
        ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")
        for argument, default in zip(arguments, defaults, strict=True)
    ]
    back = ast.unparse(node.returns).strip("'") if node.returns else ""
    end = f") -> {back}" if back else ")"
    line = f"{name or node.name}({', '.join(typed)}{end}"
    if len(line) <= WIDTH:
        return line
    return f"{name or node.name}(\n" + "".join(f"    {one},\n" for one in typed) + end


# -- commands


def _verbs() -> dict[str, argparse.ArgumentParser]:
    (verbs,) = (a for a in command_line()._actions if isinstance(a, argparse._SubParsersAction))
    return verbs.choices


def _verb(name: str, parser: argparse.ArgumentParser) -> str:
    text = sys.modules[f"labkit.verbs.{name}"].HELP
    items = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or "--json" in action.option_strings:
            continue
        takes = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        typed = f"{action.option_strings[-1]}{takes}" if action.option_strings else action.metavar or action.dest
        items.append(_item(typed, (action.help or "") % vars(action)))
    return "\n\n".join([f"## {name}", _help(text), "\n".join(items)])


def _help(text: str) -> str:
    """Paragraphs are filled; what is to be typed becomes a block, with what it does after a ``#``."""
    shown = []
    for part in text.strip("\n").split("\n\n"):
        if not part.startswith("  labkit"):
            of_a_file = part.startswith("  ")
            shown.append(_code(textwrap.dedent(part)) if of_a_file else _prose(part))
            continue
        lines = []
        for line in re.sub(r"\n {8,}(?=\S)", " ", part).splitlines():
            typed, _, does = (half.strip() for half in line.strip().partition("  "))
            if does and len(f"{typed}  # {does}") > WIDTH:
                lines += textwrap.wrap(does, WIDTH - 2, initial_indent="# ", subsequent_indent="# ")
                does = ""
            lines.append(f"{typed}  # {does}" if does else typed)
        shown.append(_code("\n".join(lines)))
    return "\n\n".join(shown)


# -- Markdown


def _code(text: str) -> str:
    return f"```\n{text}\n```"


def _item(name: str, text: str) -> str:
    """A line of a list, and what it means; a name of any length stands whole."""
    said = f"- `{name}`" + (f": {_plain(' '.join(text.split()))}" if text else "")
    return _filled(said, "  ")


def _prose(text: str) -> str:
    """A docstring: paragraphs are filled, and examples, which are indented, become blocks."""
    shown = []
    for part in text.split("\n\n"):
        if part.startswith("    "):
            shown.append(_code(textwrap.dedent(part)))
        else:
            shown.append(_filled(_plain(" ".join(part.split()))))
    return "\n\n".join(shown)


def _plain(text: str) -> str:
    """One backtick for code; what Markdown would take for a tag or a star is kept as it is."""
    pieces = re.split(r"(``.+?``)", text)
    return "".join(
        f"`{piece[2:-2]}`" if piece.startswith("``") else re.sub(r"([*<])", r"\\\1", piece) for piece in pieces
    )


def _filled(text: str, indent: str = "") -> str:
    kept = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0") if len(code[0]) < 60 else code[0], text)
    lines = textwrap.wrap(kept, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


if __name__ == "__main__":
    (DOCS / "api.md").write_text(api(), encoding="utf-8")
    (DOCS / "commands.md").write_text(commands(), encoding="utf-8")
