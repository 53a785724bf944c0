"""The documents in the root and in docs: what they name is there, what they link to is there, what they have a reader
type is taken, and no line is too long for a terminal."""

import re
import shlex
from pathlib import Path

import pytest
from command_lines import taken_by_labkit

from labkit.cli import VERBS
from labkit.config.errors import ConfigError

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")), *DOCS]
READ_FIRST = [ROOT / "README.md", *DOCS]
PLACES = re.compile(r"`((?:labkit|tests|docs|labs|workspace|provisioning|docker|\.ci)/[\w./-]+)`")
PLACEHOLDERS = re.compile("NAME|NN|^workspace/(runs|slurm|results)$")  # the last three are there after the first use
LINKS = re.compile(r"\]\(([^)\s]+)\)")
BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPOKEN = re.compile(r"`(labkit [^`]+)`")
STANDS_FOR = re.compile(r"\b[A-Z]{4,}\b(?!=)|\.\.\.")
"""What a reader replaces by something of their own: ``NAME``, ``VERB``, ``...``."""
README = (ROOT / "README.md").read_text(encoding="utf-8")
WIDTH = 100


def documents(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(path):
    return BLOCKS.sub("", path.read_text(encoding="utf-8"))


def anchors(path):
    """What a link can point to in a page: its headings, as GitHub and others name them."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE):
        name = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return found


def typed(path):
    """Commands in blocks, without what they do, and those in a sentence that are more than a verb."""
    text = path.read_text(encoding="utf-8")
    lines = [line for language, block in BLOCKS.findall(text) if not language for line in block.splitlines()]
    spoken = [" ".join(words.split()) for words in SPOKEN.findall(BLOCKS.sub("", text))]
    lines += [words for words in spoken if len(words.split()) > 2]
    return [line for line in lines if line.startswith("labkit ")]


@documents(DOCUMENTS)
def test_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    named = [ROOT / name for name in PLACES.findall(text) if not PLACEHOLDERS.search(name)]
    named += [path.parent / name.partition("#")[0] for name in LINKS.findall(text) if ":" not in name]
    assert named
    assert [place for place in named if not place.exists()] == []


@documents(DOCUMENTS)
def test_links_lead_to_a_heading_that_is_there(path):
    for link in LINKS.findall(prose(path)):
        file, hash_sign, anchor = link.partition("#")
        if hash_sign and ":" not in link:
            assert anchor in anchors(path.parent / file if file else path), link


@documents(DOCUMENTS)
def test_no_line_is_too_long_for_a_terminal(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.slow
@documents(READ_FIRST)
def test_commands_are_taken(path):
    for line in typed(path):
        words = shlex.split(line, comments=True)
        if not STANDS_FOR.search(" ".join(words[:3])):
            assert taken_by_labkit(words[1:]), line


def test_many_commands_are_tried_and_a_wrong_one_is_seen(tmp_path):
    assert sum(len(typed(path)) for path in READ_FIRST) > 90
    page = tmp_path / "page.md"
    shown = "```\nlabkit plan reduced_batch --gpu 24GiB    # fits?\n```\n`labkit plan`, `labkit run\nbaselin`.\n"
    page.write_text(shown, encoding="utf-8")
    good, bad = typed(page)
    assert taken_by_labkit(shlex.split(good, comments=True)[1:])
    wrong = ["plan reduced_batch --gpu a10000", "run reduced_batch batchsize=3", "plan baseline --gpus 4090"]
    for line in [bad.removeprefix("labkit "), *wrong]:
        with pytest.raises((ConfigError, SystemExit)):
            taken_by_labkit(line.split())


@documents(READ_FIRST)
def test_verbs_that_are_named_exist(path):
    verbs = {verb.__name__.rpartition(".")[2] for verb in VERBS} | {"help", "--help", "--version"}
    text = path.read_text(encoding="utf-8")
    said = [words.split()[1] for words in SPOKEN.findall(text) if not STANDS_FOR.search(words.split()[1])]
    assert [word for word in said if word not in verbs] == []


@documents(READ_FIRST)
def test_targets_of_make_that_are_named_exist(path):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    text = path.read_text(encoding="utf-8")
    assert [name for name in re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE) if name not in targets] == []


@pytest.mark.slow
@documents(READ_FIRST)
def test_python_of_a_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Lightning writes where it is
    monkeypatch.setenv("LABKIT_WORKSPACE", str(ROOT / "workspace"))
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    for language, block in BLOCKS.findall(path.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(block, path.name, "exec"), {})


def test_the_readme_has_every_notebook_in_order():
    rows = re.findall(r"^\| \[(\d\d)\]\(labs/(\S+?)\) \| .+\? \| .+ \|$", README, re.MULTILINE)
    assert [name for _, name in rows] == sorted(path.name for path in (ROOT / "labs").glob("*.ipynb"))
    assert all(name.startswith(f"{number}_") for number, name in rows)


def test_the_readme_is_short_and_begins_with_what_it_is():
    lines = README.splitlines()
    assert len(lines) <= 120
    assert any(line.startswith("![") for line in lines[:15])
    assert README.index("git clone") < README.index("make demo") < README.index("labkit plan")


def test_every_page_is_in_the_index():
    index = LINKS.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    assert [path.name for path in DOCS if path.name not in (*index, "README.md")] == []
    results = LINKS.findall((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    measured = (ROOT / "tests" / "benchmarks" / "results").glob("*.md")
    assert [path.name for path in measured if f"../tests/benchmarks/results/{path.name}" not in results] == []


def test_the_glossary_is_alphabetical_with_one_sentence_for_each_term():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [" ".join(entry.split()).partition("**: ")[::2] for entry in text.split("\n- **")[1:]]
    terms = [term.lower() for term, _ in rows]
    assert len(terms) > 70
    assert terms == sorted(terms)
    assert len(terms) == len(set(terms))
    for term, meaning in rows:
        assert meaning.endswith("."), term
        assert ". " not in meaning, term


@pytest.mark.parametrize("word", ["whoever", "mend", "nobody", "anew", "saved step"])
def test_documents_use_everyday_words(word):
    for path in DOCUMENTS:
        assert not re.search(rf"\b{word}\b", path.read_text(encoding="utf-8"), re.IGNORECASE), path
