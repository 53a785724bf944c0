"""A profile for a GPU that no one tuned for: what is written is what planning it again predicts."""

import shutil

import pytest

from labkit.config.catalogue.models import ARCHITECTURES, STAND_INS, architecture
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict
from labkit.plan.profile_file import check_free, profile_yaml, write_profile
from labkit.plan.tune import REAL, _nearest_scales, stand_ins, tune

COURSE = list(load_profile(Workspace.find(), "tiny").expected)
OUT_OF_MEMORY = {"baseline", "xxl", "xxl_smallest_batch"}


def tiny_models(scale):
    """Stand-ins that are planned in no time; on a GPU's allocator all the same."""
    return load_profile(Workspace.find(), "tiny").models


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return TraceCache(tmp_path_factory.mktemp("predictions"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    for folder in ("configs", "profiles"):
        shutil.copytree(Workspace.find().root / folder, root / folder)
    return Workspace(root)


@pytest.fixture(scope="module")
def tuned(workspace, cache):
    return tune(workspace, "24GiB", cache, scales=["quarter"])


@pytest.fixture(scope="module")
def written(tuned, workspace):
    write_profile(tuned, workspace.profiles / "small.yaml")
    return load_profile(workspace, "small")


@pytest.mark.slow
def test_every_lesson_holds(tuned):
    assert [lesson.experiment for lesson in tuned.lessons] == COURSE
    assert tuned.skipped == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSE)
def test_what_is_written_holds_when_it_is_planned_again(name, written, workspace, cache):
    resolved = resolve(workspace, name, {}, "small")
    found = predict(resolved.config, cache=cache)
    assert found.verdict == ("out of memory" if name in OUT_OF_MEMORY else "fits")
    died = found.died_in or {}
    assert resolved.expected.matches("oom" if died else "ok", died.get("step"), died.get("phase"))
    assert resolved.config.model_name.startswith("quarter/")
    assert resolved.config.weights == "random"
    assert written.expected[name].phase is not None or name not in OUT_OF_MEMORY


def test_what_is_compared_has_the_same_batch_and_steps_keep_their_samples(tuned):
    batches = {lesson.experiment: lesson.config.batch_size for lesson in tuned.lessons}
    assert batches["reduced_batch"] == batches["grad_accumulation"] == batches["bf16_mixed"] < batches["baseline"]
    assert batches["xxl"] == batches["xxl_sgd"] == batches["xxl_cpu_offload"]
    for lesson in tuned.lessons:
        source = resolve(Workspace.find(), lesson.experiment, {}, "h100-94gb").config
        if lesson.experiment not in ("baseline", "reduced_batch"):
            samples = lesson.config.batch_size * lesson.config.accumulate_grad_batches
            assert samples == source.batch_size * source.accumulate_grad_batches
        else:
            assert lesson.config.accumulate_grad_batches == 1


def test_every_value_that_differs_has_its_reason_beside_it(tuned):
    for line in profile_yaml(tuned).partition("experiments:")[2].splitlines():
        assert "batch_size" not in line or "# original: " in line


@pytest.mark.slow
def test_a_gpu_without_bf16_says_which_lessons_it_cannot_have(workspace):
    found = tune(
        workspace, "v100-16gb", TraceCache(None), scales=[None], models_of=tiny_models, capacity_bytes=150 * 2**20
    )
    assert {"bf16_true", "larger_model", "xxl_qlora"} <= set(found.skipped)
    assert all("bf16" in found.skipped[name] for name in ("bf16_true", "larger_model", "xxl_qlora"))
    for lesson in found.held:
        assert not lesson.config.precision.startswith("bf16")
    write_profile(found, workspace.profiles / "v100.yaml")
    profile = load_profile(workspace, "v100")
    assert profile.skip == found.skipped
    assert profile.expected["bf16_true"].status == "skipped"
    assert profile.experiments["bf16_mixed"]["precision"] == "16-mixed"


@pytest.mark.slow
def test_what_cannot_be_had_names_the_bytes(workspace):
    found = tune(workspace, "2GiB", TraceCache(None), scales=[None], models_of=tiny_models, capacity_bytes=40 * 2**20)
    assert "GiB are there" in found.skipped["xxl_lora"]
    assert found.lessons[0].reason is None  # out of memory it runs anyway


def test_a_file_is_not_overwritten_unasked(tuned, tmp_path):
    path = tmp_path / "a.yaml"
    write_profile(tuned, path)
    with pytest.raises(ConfigError, match="--force"):
        write_profile(tuned, path)
    write_profile(tuned, path, force=True)
    with pytest.raises(ConfigError, match="no folder"):
        check_free(tmp_path / "none" / "a.yaml", force=False)


def test_the_nearest_share_comes_first():
    gib = 2**30
    assert [_nearest_scales(size * gib)[0] for size in (12, 16, 24, 32, 48, 94)] == [
        "eighth", "sixth", "quarter", "third", "half", None,
    ]  # fmt: skip


def test_stand_ins_keep_larger_larger_and_the_language_model():
    for scale in ("half", "sixteenth"):
        models = stand_ins(scale)
        assert set(models.values()) <= set(STAND_INS)
        order = sorted(REAL, key=lambda name: ARCHITECTURES[name].rough_size)
        sizes = [architecture(models[name]).rough_size for name in order]
        assert sizes == sorted(sizes)
        assert all(architecture(a).language == architecture(b).language for a, b in models.items())
        assert all(architecture(a).text["vocab_size"] == architecture(b).text["vocab_size"] for a, b in models.items())
