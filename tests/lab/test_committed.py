"""Committed before: an answer is, if no run and no prediction had told it; in no notebook, and by no other means."""

import ast
import json
from pathlib import Path

import pytest

from labkit.config.workspace import Workspace
from labkit.lab.lab import Lab
from labkit.lab.lesson import LABS, lesson_of
from labkit.lab.reference import read_reference
from labkit.lab.result import Evidence
from labkit.lab.session import Session

NOTEBOOKS = Path(__file__).parents[2] / "labs"
QUESTIONS = [(lab, question) for lab in LABS for question in lesson_of(lab).questions]


def committed(lab, question, answer):
    lab.ask(question, answer)
    return lab.journal.entries("answer", question=question)[-1]["committed"]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A function that opens a lab, as another kernel would, over one ledger."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LABKIT_MODE", "plan")
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    return Lab


def test_an_answer_is_before_where_nothing_was_told_and_after_a_prediction_of_what_it_is_about(lab):
    assert committed(lab("01_where_memory_goes"), "does_it_fit", "fits") == "before"
    lab("02_batch_and_accumulation").predict("baseline", batch_size=4)  # other settings tell nothing
    assert committed(lab("01_where_memory_goes"), "does_it_fit", "fits") == "before"
    lab("02_batch_and_accumulation").predict("baseline", on="24GiB")  # nor does another machine
    assert committed(lab("01_where_memory_goes"), "does_it_fit", "fits") == "before"
    lab("02_batch_and_accumulation").predict("baseline")
    one = lab("01_where_memory_goes")
    assert committed(one, "does_it_fit", "fits") == "after"
    assert "a run or a prediction had told it" in one.ask("does_it_fit", "fits").text()


def test_a_question_about_two_runs_is_told_by_both(lab):
    one = lab("02_batch_and_accumulation")
    one.predict("baseline")
    assert committed(one, "activations_fall", 8) == "before"
    one.predict("reduced_batch")
    assert committed(one, "activations_fall", 8) == "after"


def test_what_only_a_run_tells_a_prediction_does_not(lab):
    one = lab("02_batch_and_accumulation")
    for name in one.lesson.question("lowest_loss").about:
        one.predict(name)
    assert committed(one, "lowest_loss", "reduced_batch") == "before"


class Shown(Evidence):
    """Something to look at."""


@pytest.mark.parametrize(
    ("name", "question", "answer", "method", "arguments", "others"),
    [
        ("03_precision", "lost_updates", 50, "rounding", [("bf16-true", 2e-5)], []),
        ("08_lora", "forgets", "yes", "captions", [None, "fluent_emoji_rest"], [None, "fluent_emoji_food"]),
        ("10_when_it_fails", "kernel_says", "killed", "kill", ["reduced_batch"], []),
    ],
)
def test_what_a_notebook_hands_in_is_told_when_it_was_shown(
    name, question, answer, method, arguments, others, lab, monkeypatch
):
    monkeypatch.setattr(Session, method, lambda *args, **kwargs: Shown())
    one = lab(name)
    if others:
        getattr(one, method)(*others)
    assert committed(one, question, answer) == "before"
    getattr(one, method)(*arguments)
    assert committed(lab(name), question, answer) == "after"


def test_a_prediction_for_another_machine_tells_what_is_asked_of_that(lab):
    one = lab("11_fit_your_gpu")
    one.predict("bf16_true", on="48GiB")
    assert committed(one, "fits_in_24", "fits") == "before"
    one.predict("bf16_true", on="24 GiB")  # however it is written
    assert committed(one, "fits_in_24", "fits") == "after"


def test_this_machine_may_be_named(lab):
    other, one = lab("02_batch_and_accumulation"), lab("01_where_memory_goes")
    other.predict("baseline", on=other.profile.name)
    assert committed(one, "does_it_fit", "fits") == "after"


def test_what_was_not_shown_tells_nothing(lab):
    one = lab("02_batch_and_accumulation")
    one.predict("baseline", batch_size=...)
    one.predict("baseline", batch_size="many")
    assert not one.journal.path.exists()
    one.predict("baseline")
    one.predict("baseline")
    assert len(one.journal.entries("told")) == 1


@pytest.mark.parametrize(("lab", "question"), QUESTIONS, ids=lambda one: getattr(one, "id", one))
def test_a_question_says_what_tells_it(lab, question):
    handed = [name for name in question.about if name.startswith("?")]
    assert bool(question.told_by) == bool(handed)
    if handed:
        return
    planned = {result.name: result for result in read_reference(Workspace.find(), "h100-94gb")}
    if set(question.about) <= set(planned):
        assert question.measured == (question.truth(planned) is None)


@pytest.mark.parametrize("lab", LABS)
def test_no_cell_tells_an_answer_before_it_is_asked_for(lab):
    ran, predicted, asked = set(), set(), set()
    for cell in json.loads((NOTEBOOKS / f"{lab}.ipynb").read_text())["cells"]:
        calls = _calls("".join(cell["source"])) if cell["cell_type"] == "code" else []
        for method, arguments, named in calls:
            if method == "ask":
                question = lesson_of(lab).question(arguments[0])
                asked.add(question.id)
                names = {question.told_by} if question.told_by else set(question.about)
                told = ran if question.measured else ran | predicted
                assert not names <= told, f"{lab}: {question.id} was told before"
            elif method in ("predict", "run", "recall") and arguments[0]:
                on = f" on {named.pop('on')}" if "on" in named else ""
                name = " ".join([arguments[0], *(f"{key}={value}" for key, value in named.items())])
                (predicted if method == "predict" else ran).add(f"{name}{on}")
            elif method == "captions":
                ran.add(f"captions {arguments[1]}")
            elif method in ("rounding", "kill"):
                ran.add(method)
    assert asked == {question.id for question in lesson_of(lab).questions}


def _calls(source):
    """Methods of ``lab`` in the order of the text, with the arguments that are written there."""
    found = [
        node for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name) and node.func.value.id == "lab"
    ]  # fmt: skip
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset)):
        arguments = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
        named = {key.arg: ast.literal_eval(key.value) for key in node.keywords if isinstance(key.value, ast.Constant)}
        yield node.func.attr, arguments, named
