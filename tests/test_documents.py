"""The documents in the root and in docs name what there is, and the glossary is in order."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "glossary.md", ROOT / "docs" / "fork-server.md"]
PLACES = re.compile(r"`((?:labkit|tests|docs|labs|workspace|provisioning|docker|\.ci)/[\w./-]+)`")
PLACEHOLDERS = re.compile("NAME|NN|^workspace/runs$")  # the ledger is there after the first run
LINKS = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    named = [ROOT / name for name in PLACES.findall(text) if not PLACEHOLDERS.search(name)]
    named += [path.parent / name for name in LINKS.findall(text)]
    assert named
    assert [place for place in named if not place.exists()] == []


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


@pytest.mark.parametrize("word", ["whoever", "mend", "nobody", "anew"])
def test_documents_use_everyday_words(word):
    for path in DOCUMENTS:
        assert not re.search(rf"\b{word}\b", path.read_text(encoding="utf-8"), re.IGNORECASE), path
