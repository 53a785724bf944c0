"""Unanswered: what is open is said by lab, in few lines."""

import json

import pytest

from labkit.config.workspace import Workspace
from labkit.lab.journal import Journal
from labkit.lab.lesson import LABS, lesson_of
from labkit.lab.unanswered import unanswered

LAB = "01_where_memory_goes"


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    return Journal(tmp_path)


def said():
    return unanswered(Workspace.find())


def all_of(lab):
    lesson = lesson_of(lab)
    choices = [one.id for one in lesson.checks if one.is_task]
    return [one.id for one in lesson.questions], choices, [one.id for one in lesson.derivations]


def test_an_empty_ledger_is_one_line(journal):
    assert said() == [f"nothing was answered or done in labs {', '.join(lab[:2] for lab in LABS)}"]


def test_a_lab_that_was_begun_has_a_line_with_what_is_open(journal):
    questions, checks, derivations = all_of(LAB)
    journal.add("answer", lab=LAB, question=questions[0], answer="pass")
    journal.add("check", lab=LAB, check=checks[0], outcome="failed")
    first, rest = said()
    assert first.startswith(f"{LAB}: ") and questions[0] not in first and checks[0] in first
    assert all(id in first for id in questions[1:])
    assert f"labs {LABS[0][:2]}, {LABS[2][:2]}" in rest and f" {LAB[:2]}," not in rest
    journal.add("check", lab=LAB, check=checks[0], outcome="passed")
    journal.add("check", lab=LAB, check=checks[0], outcome="open")  # once is enough
    assert checks[0] not in said()[0].replace(",", " ").split()


def test_with_everything_done_nothing_is_open(journal):
    for lab in LABS:
        questions, checks, derivations = all_of(lab)
        for id in questions:
            journal.add("answer", lab=lab, question=id, answer=1)
        for id in checks:
            journal.add("check", lab=lab, check=id, outcome="not available")
        for id in derivations:
            journal.add("derived", lab=lab, derivation=id, outcome="passed")
    assert said() == ["every question has an answer, and every task was passed"]


def test_a_journal_that_was_made_by_hand_stops_nothing(journal):
    journal.path.write_text("".join(json.dumps(x) + "\n" for x in [{"kind": "answer", "lab": [1], "question": {}}, 7]))
    assert len(said()) == 1
