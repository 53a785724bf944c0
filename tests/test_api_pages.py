"""The pages on names and commands in docs are those that their script writes, and leave nothing out."""

import dataclasses
import re
from pathlib import Path

import pytest
from support.scripts import loaded

import labkit
from labkit.cli import VERBS

SCRIPT = Path(__file__).parents[1] / "docs" / "api.py"
DOCS = SCRIPT.parent


@pytest.fixture(scope="module")
def pages():
    return loaded(SCRIPT)


def sections(text):
    """The text below each heading of a name or of a method."""
    pieces = re.split(r"^####? (\S+)$", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


@pytest.mark.parametrize("name", ["api", "commands"])
def test_the_committed_page_is_the_scripts(name, pages):
    written = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert written == getattr(pages, name)(), "docstrings or help have changed: python docs/api.py"


def test_pages_do_not_depend_on_the_terminal(pages, monkeypatch):
    before = pages.api(), pages.commands()
    monkeypatch.setenv("COLUMNS", "60")
    assert (pages.api(), pages.commands()) == before


@pytest.mark.parametrize("name", labkit.__all__)
def test_a_public_name_is_there_with_its_fields_and_methods(name, pages):
    found = sections(pages.api())
    thing = getattr(labkit, name)
    assert found[name].count("```") >= 2
    if not isinstance(thing, type):
        return
    fields = [field.name for field in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    fields += getattr(thing, "__struct_fields__", ())
    own = {key: value for key, value in vars(thing).items() if not pages.HOOK.fullmatch(key)}
    for key, value in own.items():
        if key in fields:
            continue
        if callable(value) or isinstance(value, classmethod):
            assert re.search(r"^[^`\n]", found[f"{name}.{key}"], re.MULTILINE), f"{name}.{key} says nothing"
        else:
            assert f"- `{key}" in found[name], key
    assert [field for field in fields if f"- `{field}: " not in found[name]] == []


def test_a_verb_is_there_with_its_options(pages):
    found = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", pages.commands(), re.MULTILINE | re.DOTALL))
    assert list(found) == [verb.__name__.rpartition(".")[2] for verb in VERBS]
    for name, parser in pages._verbs().items():
        options = {option for option in parser.options if option.startswith("--")} - {"--json", "--help"}
        assert [option for option in options if f"- `{option}" not in found[name]] == []
        assert "```\nlabkit " in found[name] or "```\n# " in found[name]


def test_a_docstring_becomes_markdown(pages):
    text = 'First ``x * y`` of 3 * 4.\n\n    run("a")\n\n' + "word " * 40
    lines = pages._prose(text).splitlines()
    assert lines[:5] == ["First `x * y` of 3 \\* 4.", "", "```", 'run("a")', "```"]
    assert max(map(len, lines)) <= pages.WIDTH
