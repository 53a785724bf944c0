"""Unanswered: the questions of each lab that have no answer, and the tasks that were never passed."""

from collections.abc import Sequence

from labkit.config.workspace import Workspace
from labkit.lab.journal import Journal
from labkit.lab.lesson import LABS, lesson_of

KINDS = {"answer": "question", "check": "check", "derived": "derivation"}
"""The key of a line of the journal that has the id, by its kind."""


def unanswered(workspace: Workspace) -> list[str]:
    """What is open in the ledger of a workspace, a line for each lab that was begun and one for all others."""
    done, begun = _done(Journal(workspace.runs))
    lines = []
    for lab in LABS:
        questions, tasks = _left(lab, done)
        said = [f"no answer to {', '.join(questions)}"] * bool(questions)
        said += [f"never passed: {', '.join(tasks)}"] * bool(tasks)
        if lab in begun and said:
            lines.append(f"{lab}: {'; '.join(said)}")
    others = [lab.partition("_")[0] for lab in LABS if lab not in begun]
    if others:
        lines.append(f"nothing was answered or done in {'lab' if len(others) == 1 else 'labs'} {', '.join(others)}")
    return lines or ["every question has an answer, and every task was passed"]


def open_labs(journal: Journal, labs: Sequence[str]) -> list[str]:
    """Which of the labs have something open."""
    done, _ = _done(journal)
    return [lab for lab in labs if any(_left(lab, done))]


def _left(lab: str, done: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Questions and tasks. A question that was passed over counts as answered, and a task that a plan cannot tell is
    not counted."""
    lesson = lesson_of(lab)
    questions = [one.id for one in lesson.questions if (lab, one.id) not in done]
    return questions, [one.id for one in lesson.tasks if (lab, one.id) not in done]


def _done(journal: Journal) -> tuple[set[tuple[str, str]], set[str]]:
    """Labs and ids of what needs nothing more, and the labs that were begun."""
    done, begun = set(), set()
    for kind, key in KINDS.items():
        for entry in journal.entries(kind):
            lab, id = str(entry.get("lab")), str(entry.get(key))
            begun.add(lab)
            if kind == "answer" or entry.get("outcome") in ("passed", "not available"):
                done.add((lab, id))
    return done, begun
