"""Quiz: ten questions that a thought answers, drawn from a seed, before the labs and after."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.config.errors import ConfigError
from labkit.lab.journal import Journal
from labkit.lab.lab import Lab
from labkit.lab.lesson import lesson_of
from labkit.lab.quiz import FIRST, KINDS, TEMPLATES, Quiz, drawn, read_answers


@pytest.fixture
def quiz(tmp_path):
    return Quiz(Journal(tmp_path), "00_setup")


def truths(quiz, when):
    return [item.truth for item in drawn(quiz.answers().seed, when)]


def all_is_done(quiz):
    """The journal of a student who has left nothing open in the labs between the ten questions and the other ten."""
    for lab in FIRST:
        for question in lesson_of(lab).questions:
            quiz.journal.add("answer", lab=lab, question=question.id, answer="pass")
        for task in lesson_of(lab).tasks:
            quiz.journal.add("check", lab=lab, check=task.id, outcome="passed")


SEEDS = range(1000)


def test_every_seed_has_ten_questions_with_answers():
    right = [set() for _ in TEMPLATES]
    for seed in SEEDS:
        before = drawn(seed, "before")
        assert len(before) == len(KINDS) == 10 and drawn(seed, "before") == before
        for at, one in enumerate(before):
            assert one.is_right(one.read(one.truth))
            right[at] |= {one.truth}
            if one.choices:
                assert one.truth in one.choices
                assert not any(one.is_right(choice) for choice in one.choices if choice != one.truth)
            else:
                assert 0 < one.truth < 1e9
                assert not any(one.is_right(one.truth * factor) for factor in (0.5, 0.75, 0.9, 1.1, 1.33, 2, 8))
    assert all(len(found) >= 2 for found in right), "a right answer that never varies can be learnt by heart"


def test_what_was_right_before_is_wrong_after_and_the_other_way_round():
    for seed in SEEDS:
        for before, after in zip(drawn(seed, "before"), drawn(seed, "after"), strict=True):
            assert before.text != after.text
            assert not after.is_right(before.truth) and not before.is_right(after.truth)


A_PARAMETER = {"32-true": 16, "bf16-true": 8, "bf16-mixed": 16}  # parameter, gradient and both of AdamW's averages
WEIGHT = {"32-true": 4, "bf16-true": 2, "bf16-mixed": 4}
ENDS = {
    "signal 9": "host memory", "Killed process": "host memory", "code 124": "time", "TIMEOUT": "time",
    "Tried to allocate": "device memory", "CUBLAS_STATUS_ALLOC_FAILED": "device memory",
}  # fmt: skip


def saved(parameters, gradients, state, activations, frozen):
    """What each change saves at most: recomputed activations, state in 8 bits of 16, 0.5625 bytes of 2 a weight."""
    return {
        "checkpointing": activations, "8-bit adam": state / 2, "4 bits": parameters * (2 - 0.5625) / 2 * frozen,
    }  # fmt: skip


def worked_out(kind, text):
    """What is right, from the words alone, and what is usually answered in place of it."""
    numbers = [float(found) for found in re.findall(r"(?<![\w*-])\d+(?:\.\d+)?(?!-bit|\*\*)", text)]
    if kind in ("states", "precision"):
        each = (A_PARAMETER if kind == "states" else WEIGHT)[next(name for name in WEIGHT if name in text)]
        usual = [other for other in (2, 4, 6, 8, 12, 16) if other != each]
        return numbers[0] * each, [numbers[0] * other for other in usual]
    if kind == "optimizers":
        each = 6 if "8-bit Adam" in text else 4
        return numbers[0] * each, [numbers[0] * other for other in (1, 2, 3, 4, 5, 6, 8) if other != each]
    if kind == "activations":
        held, batch, other = numbers
        return held / batch * other, [held, held + other - batch, held * other]
    if kind == "accumulation":
        batch, times, each = numbers
        return batch * each, [batch * times * each, each, times * each] if batch != times else [batch * times * each]
    if kind == "LoRA":
        rank, inputs, outputs = numbers
        return rank * (inputs + outputs), [rank * inputs, rank * inputs * outputs, inputs * outputs, rank * rank]
    if kind == "4 bits":
        size = numbers[0]
        return size * (0.5 + 4 / 64), [size * 0.5, size * 4, size * 4.5, size * 0.53]
    if kind == "offload":
        return numbers[0] * 2, [numbers[0] * 4, numbers[0] * 8, numbers[0] * 12]
    if kind == "what helps":
        most = saved(*numbers[:4], frozen="frozen weights" in text or "weights frozen" in text)
        right = max(most, key=most.get)
        assert most[right] >= 2 * sorted(most.values())[-2], "it has to be clear which one"
        return right, [choice for choice in most if choice != right]
    right = next(end for words, end in ENDS.items() if words in text)
    return right, [end for end in set(ENDS.values()) if end != right]


def test_what_is_right_follows_from_the_words_alone_and_usual_mistakes_are_wrong():
    for seed in SEEDS:
        for kind, item in zip(KINDS, drawn(seed, "before"), strict=True):
            truth, mistakes = worked_out(kind, item.text)
            assert item.truth == pytest.approx(truth) if not item.choices else item.truth == truth, item
            assert mistakes and not any(item.is_right(mistake) for mistake in mistakes), item


def test_a_ledger_keeps_its_seed_and_two_have_different_ones(quiz, tmp_path):
    seed = quiz.answers().seed
    assert Quiz(Journal(tmp_path), "12_compare").answers().seed == seed
    assert len({Quiz(Journal(tmp_path / str(n)), "00_setup").answers().seed for n in range(20)}) == 20


def test_before_says_neither_right_nor_wrong_and_after_says_both(quiz):
    assert "open: 1, 2, 3" in quiz.hand_in("before", [...] * 10)[0]
    wrong = ["pass" if isinstance(truth, str) else truth * 3 for truth in truths(quiz, "before")]
    (said,) = quiz.hand_in("before", wrong)
    assert "all ten are stored" in said and "right before" not in said
    head, *lines = quiz.hand_in("after", truths(quiz, "after"))
    assert head == (
        "before the labs: 0 right, 8 wrong, 2 passed. After them: 10 right, 0 wrong, 0 passed"
    )  # eight ask for a number
    assert [line.split(" ", 1)[1] for line in lines[:10]] == [
        *["wrong before, right now"] * 8, *["passed before, right now"] * 2,
    ]  # fmt: skip


def test_what_is_right_is_said_when_nothing_is_open_that_works_it_out(quiz):
    quiz.hand_in("before", ["pass"] * 10)
    *lines, last = quiz.hand_in("after", ["pass"] * 10)
    whys = [item.why for item in drawn(quiz.answers().seed, "after")]
    assert not any(why in line for why in whys for line in lines)
    assert (
        last.startswith("What is right, and why, is said when nothing is open in 00_setup, 01_") and "13_" not in last
    )
    all_is_done(quiz)
    _, *lines = quiz.hand_in("after", [...] * 10)
    assert len(lines) == 10 and all(why in line for why, line in zip(whys, lines, strict=True))


def test_the_first_answer_to_each_counts_and_what_is_open_can_follow(quiz):
    right = truths(quiz, "before")
    quiz.hand_in("before", ["pass", *[...] * 9])
    quiz.hand_in("before", right)
    assert quiz.answers().marks("before") == ["passed", *["right"] * 9]


def test_after_waits_for_before(quiz):
    with pytest.raises(ConfigError, match="questions before are open"):
        quiz.hand_in("after", [1] * 10)


@pytest.mark.parametrize(
    ("when", "given", "said"),
    [("during", [...] * 10, "neither 'before' nor 'after'"), ("before", [1], "1 answers to 10 questions")],
)
def test_what_is_no_answer_to_ten_questions_is_refused_and_nothing_is_kept(when, given, said, quiz):
    quiz.answers()
    with pytest.raises(ConfigError, match=said):
        quiz.hand_in(when, given)
    assert quiz.answers().before == (None,) * 10


@pytest.mark.parametrize(
    ("number", "answer", "said"),
    [
        (1, "many", "question 1: 'many' is not a number"), (1, float("nan"), "question 1: nan is not a number"),
        (1, True, "question 1: True is not a number"), (1, 10**400, "is not a number"),
        (1, [], "question 1: [] is not a number"), (10, "memory", "question 10: 'memory' is not one of 'host memory'"),
        (10, 3, "question 10: 3 is not one of 'host memory'"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_is_named_and_the_others_are_kept(number, answer, said, quiz):
    given = ["pass"] * 10
    given[number - 1] = answer
    named, still_open = quiz.hand_in("before", given)
    assert named.startswith(f"not stored, question {number}: ") and said in named
    assert still_open.startswith(f"open: {number}.")
    assert quiz.answers().before == tuple(None if at == number - 1 else "pass" for at in range(10))


def test_a_notebook_shows_the_questions_and_keeps_the_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    monkeypatch.setenv("LABKIT_MODE", "plan")
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    lab = Lab("00_setup")
    assert all(f"{number}. " in lab.quiz("before").text() for number in range(1, 11))
    assert "all ten are stored" in lab.quiz("before", ["pass"] * 10).text()
    assert lab.quiz("before", [1]).text().startswith("[not done]")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)
LINES = st.lists(
    st.fixed_dictionaries({}, optional={
        "seed": ANYTHING, "when": st.sampled_from(["before", "after", "x", 3]), "answers": ANYTHING,
    }), max_size=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(LINES)
def test_a_journal_by_a_stranger_gives_ten_marks_or_nothing(lines):
    found = read_answers(lines)
    if found is not None:
        marks = [found.marks("before"), found.marks("after")]
        assert [len(ten) for ten in marks] == [10, 10]
        assert json.loads(json.dumps(marks)) == marks
