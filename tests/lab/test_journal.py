"""Journal: answers and checks, one JSON object a line."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from labkit.lab.journal import Journal
from labkit.ledger.errors import LedgerError


def test_lines_are_added_and_found_by_their_values(tmp_path):
    journal = Journal(tmp_path / "runs")
    journal.add("answer", lab="02", question="a", answer=2.0)
    journal.add("check", lab="02", check="a", outcome="passed")
    journal.add("answer", lab="03", question="b", answer="fits")
    assert [e["answer"] for e in journal.entries("answer")] == [2.0, "fits"]
    assert [e["question"] for e in journal.entries("answer", lab="03")] == ["b"]
    lines = journal.path.read_text().splitlines()
    assert len(lines) == 3
    assert all("time" in json.loads(line) for line in lines)


def test_a_torn_line_loses_no_other(tmp_path):
    journal = Journal(tmp_path)
    journal.add("answer", answer=1)
    with journal.path.open("a") as file:
        file.write('{"kind": "answ\n[1]\n')
    journal.add("answer", answer=2)
    assert [e["answer"] for e in journal.entries("answer")] == [1, 2]


def test_notebooks_write_at_the_same_time(tmp_path):
    def write(number):
        Journal(tmp_path).add("answer", answer=number, text="x" * 5000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert sorted(e["answer"] for e in Journal(tmp_path).entries("answer")) == list(range(40))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="LABKIT_RUNS"):
        Journal(tmp_path / "file").add("answer", answer=1)
