"""Tasks and usual wrong answers: what is right passes, what is wrong fails, and the usual ones get their sentence."""

import pytest

from labkit.config.workspace import Workspace
from labkit.lab import spoken
from labkit.lab.counts import Rounding
from labkit.lab.four_bits import packed_bytes
from labkit.lab.lab import Lab
from labkit.lab.lesson import LABS, PASS, Case, Check, Derivation, Lesson, Usual, lesson_of
from labkit.lab.one_layer import kept_bytes
from labkit.lab.reference import read_reference, read_told
from labkit.lab.session import Session

WORKSPACE = Workspace.find()
PROFILES = ("tiny", "h100-94gb", "a100-80gb")
QUESTIONS = [pytest.param(lab, one, id=f"{lab}-{one.id}") for lab in LABS for one in lesson_of(lab).questions]
DERIVATIONS = [pytest.param(one, id=f"{lab}-{one.id}") for lab in LABS for one in lesson_of(lab).derivations]


@pytest.fixture(scope="module")
def shipped():
    """The runs of each profile by name."""
    return {profile: {one.name: one for one in read_reference(WORKSPACE, profile)} for profile in PROFILES}


def truth_of(lab, question, profile, shipped):
    """What is right there; None where nothing tells."""
    if any(name.startswith("?") for name in question.about):
        return read_told(WORKSPACE, profile).get(f"{lab}/{question.id}")
    return question.truth(shipped[profile])


def said(usual, answer, truth):
    return [one.says for one in usual if one.meets(answer, truth)]


@pytest.mark.parametrize(("lab", "question"), QUESTIONS)
def test_a_usual_wrong_answer_has_a_sentence_and_a_right_one_has_none(lab, question, shipped):
    truths = [truth_of(lab, question, profile, shipped) for profile in PROFILES]
    assert truths[0] is not None
    for truth in filter(lambda one: one is not None, truths):
        if question.unit == "choice":
            assert not said(question.usual, truth, truth)
            for choice in question.choices if truth == truths[0] else ():
                assert choice == truth or len(said(question.usual, choice, truth)) == 1, choice
            continue
        for factor in (0.5, 2, 1000):
            answer = truth * factor if truth else factor
            assert question.is_right(answer, truth) or said(question.usual, answer, truth), (answer, truth)
        for factor in (1 - question.within, 1, 1 + question.within):
            assert not said(question.usual, truth * factor, truth), factor


@pytest.mark.parametrize("derivation", DERIVATIONS)
@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_derived_passes_and_any_wrong_case_fails(derivation, profile, shipped):
    cases = derivation.cases(shipped[profile])
    right = [case.truth for case in cases]
    if not cases:
        assert derivation.outcome([], shipped[profile]) == "not available"
        return
    assert derivation.outcome(right, shipped[profile]) == "passed"
    assert derivation.outcome(right[:-1], shipped[profile]) == "failed"
    for at in range(len(cases)):
        for factor in (0.5, 0.9, 1.11, 2):
            other = [*right[:at], right[at] * factor, *right[at + 1 :]]
            assert derivation.outcome(other, shipped[profile]) == "failed"
        assert derivation.outcome([*right[:at], None, *right[at + 1 :]], shipped[profile]) == "failed"
    for truth in right:
        assert not said(derivation.usual, truth, truth)
        for factor in (0.5, 2):
            assert said(derivation.usual, truth * factor, truth), (truth, factor)


@pytest.mark.parametrize("lab", LABS)
def test_names_of_what_earns_points_are_each_their_own(lab):
    lesson = lesson_of(lab)
    ids = [one.id for one in lesson.all]
    assert len(set(ids)) == len(ids)
    assert len(lesson.tasks) >= 2


def test_a_layer_keeps_sixteen_times_its_width_for_each_token():
    for samples, tokens, width, number_bytes in ((1, 64, 128, 4), (2, 96, 192, 4), (4, 512, 1024, 2)):
        numbers = kept_bytes(samples, tokens, width, number_bytes) / (samples * tokens * width * number_bytes)
        assert numbers == pytest.approx(16, rel=0.01)
    assert kept_bytes(2, 64, 128, 2) < kept_bytes(2, 64, 128, 4) < kept_bytes(3, 64, 128, 4)


def test_a_number_in_4_bits_carries_its_share_of_a_scale():
    assert [packed_bytes(block) for block in (64, 128, 256)] == [0.5625, 0.53125, 0.515625]


def test_what_is_no_multiple_of_nothing_is_more_than_any():
    assert Usual(low=1.1, says="some").meets(3, 0)
    assert not Usual(low=0, high=0.5, says="few").meets(3, 0)
    assert not Usual(low=0, says="any").meets(0, 0)


# -- choices

CHOICES = {
    "yours_takes_less": (
        ("reduced_batch", {"max_steps": 2, "batch_size": 4}), [{"batch_size": 16}, {"batch_size": 99}],
    ),
    "yours_is_led_by_activations": (
        ("baseline", {"max_steps": 2, "batch_size": 16}), [{"batch_size": 8}, {"batch_size": 32}],
    ),
    "yours_fits_and_uses_more": (("reduced_batch", {"batch_size": 18}), [{"batch_size": 16}, {"batch_size": 40}]),
    "yours_has_few_temporaries": (
        ("xxl_smallest_batch", {"optim_impl": "for-loop"}),
        [{"optim_impl": "foreach"}, {"optim": "sgd"}, {"batch_size": 2}],
    ),
    "yours_fills_the_device": (("xxl_adam8bit", {"batch_size": 8}), [{"batch_size": 4}, {"batch_size": 10}]),
    "yours_uses_the_room": (("xxl_cpu_offload", {"batch_size": 24}), [{"batch_size": 16}, {"batch_size": 30}]),
    "yours_trains_twice_as_many": (("xxl_lora", {"lora_r": 32}), [{"lora_r": 16}, {"lora_r": 8}, {"lora_r": 64}]),
    "yours_holds_less": (("xxl_qlora", {"double_quant": True}), [{"double_quant": False}]),
    "yours_fits": (("baseline", {"batch_size": 8, "max_steps": 2}), [{"batch_size": 30}]),
    "advice_holds": (("baseline", {"batch_size": 16, "accumulate_grad_batches": 2}), [{"batch_size": 32}]),
    "yours_is_smaller_with_a_larger_model": (
        ("larger_model", {"use_lora": True}), [{"use_lora": False}, {"use_lora": False, "act_ckpt": True}],
    ),
    "yours_has_no_extra_gradients": (
        ("multi_ddp", {"global_batch_size": 32}), [{"global_batch_size": 64}, {"global_batch_size": 128}],
    ),
    "yours_keeps_a_fourth": (("multi_fsdp", {"devices": 4}), [{"devices": 2}, {"devices": 3}]),
}  # fmt: skip
"""For each choice a right one, as an experiment and its values, and values with which it is wrong."""
NOT_ASKED = {
    "yours_takes_less": [("reduced_batch", {"precision": "bf16-true"}), ("reduced_batch", {"optim": "sgd"})],
    "yours_is_led_by_activations": [("baseline", {"use_lora": True, "batch_size": 4}), ("reduced_batch", {})],
    "yours_fits_and_uses_more": [("reduced_batch", {"batch_size": 16, "act_ckpt": True}), ("larger_model", {})],
    "yours_has_few_temporaries": [("xxl_smallest_batch", {"use_lora": True}), ("xxl_sgd", {"batch_size": 1})],
    "yours_fills_the_device": [("xxl_sgd", {})], "yours_uses_the_room": [("xxl_sgd", {})],
    "yours_trains_twice_as_many": [("xxl_qlora", {"lora_r": 32})],
    "yours_holds_less": [("xxl_qlora", {"batch_size": 4, "double_quant": True})],
    "yours_fits": [("reduced_batch", {})], "advice_holds": [("reduced_batch", {})],
    "yours_is_smaller_with_a_larger_model": [("bf16_true", {})],
    "yours_has_no_extra_gradients": [("multi_single", {})], "yours_keeps_a_fourth": [("multi_ddp", {"devices": 4})],
}  # fmt: skip
"""Runs that would pass by their numbers, and are not what was asked for."""
BY_HAND = {"yours_needs_checkpointing", "yours_loses_about_half", "your_gpu_is_just_large_enough"}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Experiments, planned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("LABKIT_MODE", "plan")
        yield Session("tiny")


def chosen(id):
    """A check of the course by its id."""
    return next(check for lab in LABS for check in lesson_of(lab).checks if check.id == id)


def test_every_choice_of_the_course_is_here():
    ids = {check.id for lab in LABS for check in lesson_of(lab).checks if check.is_task}
    assert ids == {*CHOICES} | BY_HAND


@pytest.mark.parametrize("id", CHOICES)
def test_a_choice_that_is_right_passes_and_any_other_fails(id, session, shipped):
    check, ((experiment, values), wrong) = chosen(id), CHOICES[id]
    runs = dict(shipped["tiny"])
    assert check.outcome(runs | {"?yours": session.predict(experiment, **values)})[0] == "passed"
    for other in wrong:
        made = session.predict(experiment, **(values | other))
        outcome = check.outcome(runs | {"?yours": made})
        assert outcome[0] in ("failed", "not available"), (other, outcome)
    for other_experiment, other in NOT_ASKED[id]:
        made = session.predict(other_experiment, **other)
        assert check.outcome(runs | {"?yours": made})[0] != "passed", (other_experiment, other)


def test_a_batch_that_needs_checkpointing_is_one_that_fits_only_with_it(session):
    check = chosen("yours_needs_checkpointing")

    def outcome(without, yours):
        found = (
            session.predict("xxl_adam8bit", batch_size=without),
            session.predict("xxl_checkpointing", batch_size=yours),
        )
        return check.outcome(dict(zip(("?without", "?yours"), found, strict=True)))[0]

    assert outcome(16, 16) == "passed"
    assert outcome(4, 4) == outcome(60, 60) == "failed"
    assert outcome(16, 4) == "not available"


@pytest.mark.parametrize(("on", "wanted"), [("44GiB", "passed"), ("24GiB", "failed"), ("80GiB", "failed")])
def test_a_gpu_is_just_large_enough(on, wanted, session):
    found = {"?yours_gpu": session.predict("bf16_true", on=on)}
    assert chosen("your_gpu_is_just_large_enough").outcome(found)[0] == wanted


@pytest.mark.parametrize(("lost", "wanted"), [(50, "passed"), (74, "failed"), (8, "failed")])
def test_a_rate_that_loses_about_half(lost, wanted):
    one = {"precision": "bf16-true", "updates": [100], "losses": [7.0, 6.0]}
    found = Rounding([one | {"lr": 1e-4, "lost": [90]}, one | {"lr": 6e-5, "lost": [lost]}])
    assert chosen("yours_loses_about_half").outcome({"?yours": found})[0] == wanted
    mixed = Rounding([one | {"precision": "bf16-mixed", "lr": 1e-4, "lost": [50]}])
    assert chosen("yours_loses_about_half").outcome({"?yours": mixed})[0] == "not available"


# -- in a notebook


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab over an empty ledger, with one derivation of a function and one of a number."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LABKIT_MODE", "plan")
    monkeypatch.setenv("LABKIT_PROFILE", "tiny")
    one = Lab("01_where_memory_goes")
    usual = (Usual(low=0.45, high=0.55, says="That is half."),)
    both = {"about": (), "because": "It is so.", "usual": usual}
    cases = [Case(inputs={"a": 1, "b": 2}, truth=300.0), Case(inputs={"a": 2, "b": 2}, truth=400.0)]
    one.lesson = Lesson(
        derivations=(
            Derivation(id="sum", text="The sum", cases=lambda runs: cases, **both),
            Derivation(id="size", text="The size", cases=lambda runs: [Case(inputs={}, truth=3 * 2**20)], **both),
        )
    )
    return one


def entries(lab):
    return [(one["outcome"], one["given"]) for one in lab.journal.entries("derived")]


def test_a_function_is_called_with_every_case_and_its_results_are_kept(lab):
    text = lab.derive("sum", lambda a, b: 100 * (a + b)).text()
    assert text.startswith("[passed] The sum") and "It is so." in text
    assert "a=1, b=2: 300 bytes, right" in text
    assert entries(lab) == [("passed", [300, 400])]


def test_a_usual_mistake_in_one_case_gets_its_sentence_and_no_right_result_is_told(lab):
    text = lab.derive("sum", lambda a, b: 300 if a == 1 else 200).text()
    assert text.startswith("[failed]") and "That is half." in text and "-50.0% off" in text
    assert "400" not in text and "It is so." not in text
    assert entries(lab) == [("failed", [300, 200])]


def test_a_number_is_in_the_unit_of_the_machine(lab):
    assert lab.unit[0] == "MiB"
    assert lab.derive("size", 3).text().startswith("[passed]")
    assert "That is half." in lab.derive("size", 1.5).text()


@pytest.mark.parametrize("empty", [..., None, lambda a, b: ..., lambda a, b: None])
def test_what_is_not_filled_in_says_what_is_wanted_and_is_no_try(empty, lab):
    text = lab.derive("sum", empty).text()
    assert text.startswith("[open]") and "a function of a, b, in bytes" in text
    assert not entries(lab)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda a, b: a / 0, "ZeroDivisionError"),
        (lambda a: a, "TypeError"),
        (lambda a, b: "three", "three"),
        (lambda a, b: float("nan"), "nan is no number"),
        (lambda a, b: True, "True is no number"),
    ],
)
def test_what_raises_or_gives_no_number_fails_and_says_so(function, said, lab):
    text = lab.derive("sum", function).text()
    assert text.startswith("[failed]") and said in text
    assert entries(lab) == [("failed", [None, None])]


def test_a_student_may_pass_and_sees_the_answer_which_is_recorded(lab):
    lab.lesson = lesson_of(lab.name)
    lab.commitments.lesson = lab.lesson
    assert lab.predict("baseline").text().startswith("[not yet shown]")
    assert lab.run("baseline").text().startswith("[not yet shown]")
    assert lab.advise("baseline").text().startswith("[not yet shown]")
    assert lab.explain("does_it_fit").text().startswith("[not yet shown]")
    assert lab.full_size("baseline").text().startswith("[not yet shown]")
    assert lab.table(reference=True).text().startswith("[not yet shown]")
    assert lab.ask("does_it_fit", " Pass ").text().startswith("[passed over]")
    assert lab.journal.entries("answer")[0]["answer"] == PASS
    assert "out of memory" in lab.predict("baseline").text()


def test_a_run_that_has_to_fit_and_does_not_is_said_as_that():
    def never(runs):
        raise AssertionError("a number of a run that did not fit")

    check = Check(id="fits", claim="It fits", about=("?yours",), left=never, right=never, names=("it", "that"),
                  relation="below", why="", hint="smaller", fitting="?yours")  # fmt: skip

    class Ended:
        status, planned = "oom", False

    runs = {"?yours": Ended()}
    assert check.is_task and check.outcome(runs) == ("failed", None, None)
    text = spoken.checked(check, runs, *check.outcome(runs)).text()
    assert "it does not fit: out of memory" in text and "smaller" in text


@pytest.mark.slow
def test_what_ships_with_the_course_tells_too(lab, monkeypatch):
    monkeypatch.delenv("LABKIT_MODE")  # a table of what is planned would tell by itself
    other = Lab("00_setup")
    other.ask("share_of_parameters", 20)
    assert "shipped" in other.table(reference=True).text()
    lab.lesson = lab.commitments.lesson = lesson_of(lab.name)
    lab.ask("does_it_fit", "fits")
    assert lab.journal.entries("answer", question="does_it_fit")[0]["committed"] == "after"


def test_a_question_about_several_runs_is_withheld_only_with_the_last_of_them(lab):
    one = Lab("02_batch_and_accumulation")
    assert one.predict("reduced_batch").text().startswith("reduced_batch")
    assert one.predict("grad_accumulation").text().startswith("[not yet shown] Four micro batches")
    assert one.predict("baseline").text().startswith("[not yet shown] How many times the activations")
    assert one.full_size("baseline", "grad_accumulation").text().startswith("[not yet shown]")
    one.ask("accumulation_memory", 1)
    assert one.predict("grad_accumulation").text().startswith("grad_accumulation")
