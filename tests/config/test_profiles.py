"""Profiles: what is committed is sound, what is broken is named, and when a run ended as expected."""

from pathlib import Path

import pytest
import yaml
from errors_of import error_of

from labkit.config.catalogue.models import ARCHITECTURES
from labkit.config.layers import course, resolve
from labkit.config.profiles import ACTIVITIES, STATUSES, Expected, Profile, load_profile, profile_names
from labkit.config.schema import RunConfig, coerce
from labkit.config.workspace import Workspace

WORKSPACE = Workspace(Path(__file__).parents[2] / "workspace")
PROFILES = sorted(path.stem for path in WORKSPACE.profiles.glob("*.yaml"))
EXPERIMENTS = [experiment.name for experiment in course(WORKSPACE) if experiment.number <= 15]


# -- what is committed


def test_the_profiles_are_the_files():
    assert profile_names(WORKSPACE) == PROFILES
    assert {"a100-80gb", "h100-94gb", "tiny"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_says_what_it_is_and_what_every_experiment_does(name):
    profile = load_profile(WORKSPACE, name)
    assert profile.name == name
    assert profile.about
    assert list(profile.expected) == list(profile.experiments) == EXPERIMENTS
    assert set(profile.skip) <= set(EXPERIMENTS)
    assert {"device", "capacity_gib"} <= set(profile.values)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_restates_nothing(name):
    profile = load_profile(WORKSPACE, name)
    experiments = {experiment.name: experiment.values for experiment in course(WORKSPACE)}
    for experiment, values in profile.experiments.items():
        below = {**experiments["baseline"], **experiments[experiment], **profile.values}
        same = [k for k, v in values.items() if below.get(k, getattr(RunConfig, k)) == coerce(k, v)]
        assert same == [], experiment


@pytest.mark.parametrize("name", PROFILES)
def test_the_same_experiments_run_out_of_memory_everywhere(name):
    expected = load_profile(WORKSPACE, name).expected
    assert {e for e in expected if expected[e].status == "oom"} == {"baseline", "xxl", "xxl_smallest_batch"}
    assert {expected[e].status for e in expected} == {"ok", "oom"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROFILES)
def test_a_global_batch_has_the_size_it_has_in_the_experiment_file(name):
    """A profile moves samples between batch and accumulation; what one step learns from stays.

    Not where the batch itself is the lesson: the baseline, and what comes after it.
    """
    for experiment in EXPERIMENTS[2:]:
        here = resolve(WORKSPACE, experiment, profile_name=name).config
        source = resolve(WORKSPACE, experiment, profile_name="h100-94gb").config
        samples = source.batch_size * source.accumulate_grad_batches
        assert here.batch_size * here.accumulate_grad_batches == samples, experiment


def test_stand_ins_keep_larger_larger_and_the_language_model():
    models = load_profile(WORKSPACE, "tiny").models
    assert set(models) == {name for name in ARCHITECTURES if not name.startswith("tiny/")}
    small = {name for name in ARCHITECTURES if name.startswith("tiny/")}
    assert sorted(models.values()) == sorted(small - {"tiny/blip2-opt-base"})  # which stands for itself
    for model, stand_in in models.items():
        assert ARCHITECTURES[stand_in].language == ARCHITECTURES[model].language


@pytest.mark.parametrize(("name", "device"), [("tiny", "simulated"), ("h100-94gb", "cuda"), ("a100-80gb", "cuda")])
def test_a_profile_has_its_device(name, device):
    assert load_profile(WORKSPACE, name).values["device"] == device


def test_tiny_is_a_thousandth_of_the_h100():
    tiny, h100 = (load_profile(WORKSPACE, name).values["capacity_gib"] for name in ("tiny", "h100-94gb"))
    assert tiny == pytest.approx(h100 / 1000, rel=0.01)


# -- a smallest profile, and broken ones


def test_a_profile_may_leave_everything_out(scratch):
    (scratch.profiles / "mine.yaml").write_text("about: my machine\n")
    assert load_profile(scratch, "mine") == Profile(name="mine", about="my machine")


def test_a_section_without_entries_is_an_empty_one(scratch):
    path = scratch.profiles / "mine.yaml"
    path.write_text(
        "about:\nvalues:\nmodels:\ndatasets:\nstand_in_values:\ncaps:\nlr_multiplier:\nexperiments:\nskip:\n"
    )
    assert load_profile(scratch, "mine") == Profile(name="mine")


def test_an_experiment_in_a_profile_is_expected_to_fit_unless_it_says_otherwise(scratch):
    (scratch.profiles / "mine.yaml").write_text("experiments: {xxl: , baseline: {expect: {status: oom}}}\n")
    profile = load_profile(scratch, "mine")
    assert profile.expected == {"xxl": Expected(), "baseline": Expected(status="oom")}
    assert profile.experiments == {"xxl": {}, "baseline": {}}


@pytest.mark.parametrize(("typo", "meant"), [("h100-96gb", "h100-94gb"), ("tinny", "tiny"), ("nothing-like-it", None)])
def test_an_unknown_profile_is_named_with_the_nearest_and_all_others(typo, meant):
    text = error_of(load_profile, WORKSPACE, typo)
    assert f"'{typo}'" in text
    assert meant is None or f"Did you mean '{meant}'?" in text
    for name in PROFILES:
        assert name in text


BROKEN = {
    "empty": (b"", "key: value"),
    "a list": (b"- about: x\n", "key: value"),
    "binary": (bytes(range(256)), "not"),
    "control characters": (b"about: \x00\n", "not YAML"),
    "not YAML": (b"values: {\n", "not YAML"),
    "unknown section": (b"valves: {}\n", "Did you mean 'values'?"),
    "unknown key": (b"values: {batchsize: 3}\n", "Did you mean 'batch_size'?"),
    "unknown key of a cap": (b"caps: {max_step: 3}\n", "Did you mean 'max_steps'?"),
    "unknown key of an experiment": (b"experiments: {xxl: {batchsize: 3}}\n", "Did you mean 'batch_size'?"),
    "unknown experiment": (b"experiments: {xll: {batch_size: 3}}\n", "Did you mean 'xxl'?"),
    "unknown experiment to skip": (b"skip: {xll: too large}\n", "Did you mean 'xxl'?"),
    "wrong type of a value": (b"values: {batch_size: four}\n", "batch_size='four'"),
    "wrong type of a value of an experiment": (b"experiments: {xxl: {batch_size: four}}\n", "batch_size='four'"),
    "a cap that is text": (b"caps: {max_steps: few}\n", "max_steps='few'"),
    "a cap on a key that is not a number": (b"caps: {optim: sgd}\n", "optim"),
    "a cap that is empty": (b"caps: {max_steps: }\n", "max_steps"),
    "values is a list": (b"values: [device]\n", "values"),
    "values is text": (b"values: device\n", "values"),
    "caps is a list": (b"caps: [max_steps]\n", "caps"),
    "models is a list": (b"models: [tiny/blip2-opt-small]\n", "models"),
    "experiments is a list": (b"experiments: [xxl]\n", "experiments"),
    "an experiment is a number": (b"experiments: {xxl: 3}\n", "xxl"),
    "an experiment is a list": (b"experiments: {xxl: [batch_size]}\n", "xxl"),
    "skip is a list": (b"skip: [xxl]\n", "skip"),
    "a reason that is not text": (b"skip: {xxl: [1]}\n", "xxl"),
    "about is a list": (b"about: [x]\n", "about"),
    "lr_multiplier is text": (b"lr_multiplier: large\n", "lr_multiplier='large'"),
    "lr_multiplier is zero": (b"lr_multiplier: 0\n", "lr_multiplier=0"),
    "lr_multiplier is not finite": (b"lr_multiplier: .nan\n", "lr_multiplier=nan"),
    "unknown model": (b"models: {Salesforce/blip2-opt-2.7: tiny/blip2-opt-small}\n", "'Salesforce/blip2-opt-2.7b'?"),
    "unknown stand-in": (b"models: {Salesforce/blip2-opt-2.7b: tiny/blip2-opt-smal}\n", "'tiny/blip2-opt-small'?"),
    "unknown data set": (b"datasets: {gourmetgram_captions: fluent_emoji}\n", "'gourmetgram_caption'?"),
    "unknown stand-in for data": (b"datasets: {gourmetgram_caption: fluent_emoj}\n", "'fluent_emoji'?"),
    "stand_in_values is a list": (b"stand_in_values: [12]\n", "stand_in_values"),
    "an unknown key beside a stand-in": (b"stand_in_values: {max_lenght: 12}\n", "'max_length'?"),
    "datasets is text": (b"datasets: fluent_emoji\n", "datasets"),
    "a stand-in that is a list": (b"models: {Salesforce/blip2-opt-2.7b: [tiny]}\n", "models"),
    "expect is text": (b"experiments: {xxl: {expect: oom}}\n", "xxl.expect"),
    "expect has an unknown key": (b"experiments: {xxl: {expect: {state: oom}}}\n", "xxl.expect"),
    "expect has no status": (b"experiments: {xxl: {expect: {step: 1}}}\n", "xxl.expect"),
    "expect has an unknown status": (b"experiments: {xxl: {expect: {status: boom}}}\n", "boom"),
    "expect has an unknown phase": (b"experiments: {xxl: {expect: {status: oom, phase: lunch}}}\n", "lunch"),
    "expect has a step that is text": (b"experiments: {xxl: {expect: {status: oom, step: first}}}\n", "first"),
    "expect has a step below zero": (b"experiments: {xxl: {expect: {status: oom, step: -1}}}\n", "-1"),
    "expect has a list for a status": (b"experiments: {xxl: {expect: {status: [oom]}}}\n", "xxl.expect"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_profile_is_named_on_one_line_with_what_is_wrong(scratch, what):
    content, part = BROKEN[what]
    path = scratch.profiles / "broken.yaml"
    path.write_bytes(content)
    text = error_of(resolve, scratch, "xxl", {"device": "cuda"}, "broken")
    assert str(path) in text
    assert part in text


# -- expectations


@pytest.mark.parametrize(
    ("expected", "status", "died_in", "matches"),
    [
        (Expected(), "ok", None, True),
        (Expected(), "oom", {"step": 0, "phase": "forward"}, False),
        (Expected(status="oom"), "oom", {"step": 3, "phase": "backward"}, True),
        (Expected(status="oom"), "oom", None, True),
        (Expected(status="oom"), "killed", None, False),
        (Expected(status="oom", step=1, phase="forward"), "oom", {"step": 1, "phase": "forward"}, True),
        (Expected(status="oom", step=1, phase="forward"), "oom", {"step": 0, "phase": "forward"}, False),
        (Expected(status="oom", step=1, phase="forward"), "oom", {"step": 1, "phase": "backward"}, False),
        (Expected(status="oom", step=1, phase="forward"), "oom", None, False),
        (Expected(status="oom", step=0), "oom", {"step": 0, "phase": "backward"}, True),
        (Expected(status="oom", step=0), "oom", {"step": 1, "phase": "backward"}, False),
    ],
)
def test_a_run_is_as_expected_where_status_step_and_phase_are(expected, status, died_in, matches):
    assert expected.matches(status, **died_in or {}) is matches


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Expected(), "ok"), (Expected(status="oom"), "oom"),
        (Expected(status="oom", step=0, phase="optimizer_step"), "oom, optimizer step of step 0"),
        (Expected(status="oom", step=2), "oom, step 2"),
        (Expected(status="oom", phase="load_model"), "oom, load model"),
    ],
)  # fmt: skip
def test_an_expectation_in_words(expected, words):
    assert str(expected) == words


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("phase", ACTIVITIES)
def test_every_status_and_activity_can_be_expected(scratch, status, phase):
    expect = {"status": status, "step": 0, "phase": phase}
    (scratch.profiles / "mine.yaml").write_text(yaml.safe_dump({"experiments": {"xxl": {"expect": expect}}}))
    assert load_profile(scratch, "mine").expected["xxl"] == Expected(**expect)


@pytest.mark.parametrize("name", ["../profiles/tiny", "/etc/passwd", "..", ".hidden", "a/b", "x" * 5000])
def test_a_profile_is_named_and_not_a_path_for_runs_lie_in_a_folder_of_that_name(name):
    text = error_of(load_profile, Workspace.find(), name)
    assert "no profile" in text
    assert len(text) < 2200


@pytest.mark.parametrize(
    ("typed", "name"),
    [("A100 80GB", "a100-80gb"), ("H100-94GB", "h100-94gb"), ("4090", "rtx4090-24gb"), ("24gib", "24GiB")],
)
def test_a_profile_of_a_gpu_is_called_by_the_name_that_the_gpu_is_known_by(typed, name):
    """Runs of one machine lie in one folder of the ledger, however its name was typed."""
    assert load_profile(WORKSPACE, typed).name == name
