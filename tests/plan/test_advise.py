"""Advice: every proposal is planned again here, and types to the run that was planned."""

import dataclasses

import pytest

from labkit.config.catalogue.models import smaller
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.plan import advise as module
from labkit.plan.advise import advise
from labkit.plan.cache import TraceCache
from labkit.plan.expandable import ExpandableAllocator
from labkit.plan.fallback import KINDS, add, combine
from labkit.plan.fallbacks import BATCH, FALLBACKS
from labkit.plan.predict import judge, predict

WORKSPACE = Workspace.find()
CACHE = TraceCache(None)


def config_of(name, **overrides):
    return resolve(WORKSPACE, name, {key: str(value) for key, value in overrides.items()}).config


def advice_of(name, **overrides):
    return advise(config_of(name, **overrides), cache=CACHE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "typed"),
    [("baseline", {}), ("xxl_smallest_batch", {}), ("xxl_lora", {"batch_size": "32"}),
     ("xxl", {"capacity_gib": "0.04"}), ("grad_accumulation", {"global_batch_size": "64", "batch_size": "32"})],
)  # fmt: skip
def test_every_proposal_fits_when_it_is_typed(name, typed):
    found = advise(resolve(WORKSPACE, name, typed).config, cache=CACHE)
    assert not found.fits
    assert found.proposals
    for proposal in found.proposals:
        command = proposal.command(name, "tiny", typed).split()
        overrides = dict(word.split("=", 1) for word in command if "=" in word)
        config = resolve(WORKSPACE, name, overrides).config
        assert config == proposal.config
        again = predict(config, cache=CACHE)
        assert again.verdict == proposal.prediction.verdict == "fits"
        assert proposal.saved_bytes == found.prediction.peak_bytes - again.peak_bytes
        assert proposal.cost
    kinds = [KINDS.index(proposal.kind) for proposal in found.proposals]
    assert kinds == sorted(kinds)


@pytest.mark.slow
def test_the_cheapest_comes_first():
    first = advice_of("baseline").proposals[0]
    assert (first.changes, first.kind) == (("batch",), "time")
    assert first.overrides == {"batch_size": 16, "accumulate_grad_batches": 2}
    assert advice_of("xxl_lora", batch_size=32).proposals[0].changes == ("batch",)


@pytest.mark.slow
def test_no_change_of_a_combination_can_be_left_out():
    found = advice_of("xxl", capacity_gib=0.04)
    combined = [proposal for proposal in found.proposals if len(proposal.changes) > 1]
    assert combined
    for proposal in combined:
        fallbacks = tuple(fallback for fallback in FALLBACKS if fallback.name in proposal.changes)
        for fallback in fallbacks:
            rest = tuple(r for r in fallbacks if r is not fallback)
            config = combine(found.config, rest)
            if config is not None:
                assert predict(config, cache=CACHE).verdict != "fits", fallback.name


@pytest.mark.slow
def test_a_run_that_fits_gets_its_largest_batch():
    found = advice_of("reduced_batch")
    assert found.fits
    assert (found.proposals, found.nearest) == ([], None)
    assert found.largest.batch_size > 16
    assert found.largest.above.verdict != "fits"


@pytest.mark.slow
def test_where_nothing_fits_it_is_said_what_is_missing():
    found = advice_of("xxl", capacity_gib=0.002)
    assert found.proposals == []
    assert found.nearest.prediction.verdict == "out of memory"
    assert found.missing_bytes == found.nearest.prediction.peak_bytes - found.prediction.capacity_bytes > 0


@pytest.mark.slow
def test_a_gpu_without_bf16_gets_none_proposed():
    room_gib = 0.0926 + 2 * 8.125 / 1024  # and two workspaces of cuBLAS
    config = dataclasses.replace(config_of("baseline"), device="cuda", capacity_gib=room_gib, compute_capability=8.0)
    for bf16 in (True, False):
        found = advise(config, cache=CACHE, bf16=bf16).proposals
        assert found
        said = any("bf16" in str(p.overrides) or "use_qlora" in p.overrides for p in found)
        assert said is bf16
    with pytest.raises(ConfigError, match="precision=bf16-true"):
        advise(config_of("xxl"), "v100-16gb", CACHE)


@pytest.mark.slow
def test_expandable_segments_are_proposed_where_only_holes_are_in_the_way(monkeypatch):
    def holes(trace, capacity, kind, warm_up_bytes):
        found = judge(trace, capacity, kind, warm_up_bytes)
        return found if kind is ExpandableAllocator else dataclasses.replace(found, verdict="out of memory")

    monkeypatch.setattr(module, "judge", holes)
    config = dataclasses.replace(config_of("reduced_batch"), device="cuda", capacity_gib=1.0)
    first = advise(config, cache=CACHE).proposals[0]
    assert (first.kind, first.overrides) == ("none", {})
    assert judge(CACHE.trace(first.config), first.config.capacity_bytes, ExpandableAllocator).verdict == "fits"
    assert first.command("baseline", "24GiB").startswith("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True labkit run")


@pytest.mark.slow
def test_at_full_size_half_the_batch_makes_lora_fit_on_the_a100(monkeypatch):
    monkeypatch.setattr(module, "fallbacks_for", lambda bf16: (BATCH,))  # the others take a minute
    config = resolve(WORKSPACE, "xxl_lora", {"batch_size": "32"}, "a100-80gb").config
    (only,) = advise(config, cache=CACHE).proposals
    assert only.overrides == {"batch_size": 16, "accumulate_grad_batches": 8}
    assert predict(only.config, cache=CACHE).verdict == "fits"
    assert 15 * 2**30 < only.saved_bytes < 25 * 2**30


def test_without_a_capacity_there_is_nothing_to_advise():
    config = RunConfig(**(config_of("baseline").to_dict() | {"device": "cuda", "capacity_gib": None}))
    with pytest.raises(ConfigError, match="capacity_gib"):
        advise(config, cache=CACHE)
    with pytest.raises(ConfigError, match="a100-80gb"):
        advise(config, "a100-81gb", CACHE)


def test_fallbacks_of_a_group_replace_each_other_and_nothing_refused_is_proposed():
    by_name = {fallback.name: fallback for fallback in FALLBACKS}
    config = config_of("xxl")
    offload = add(config, (), by_name["offload"])
    assert add(config, offload, by_name["8-bit optimizer"]) == (by_name["8-bit optimizer"],)
    assert add(config, offload, by_name["qlora"]) == (by_name["qlora"],)  # whose precision is not offload's
    assert add(config_of("xxl_qlora"), (), by_name["lora"]) is None
    assert combine(config_of("baseline"), (by_name["offload"],)) is None  # 32 bits do not go with it here


def test_a_smaller_model_is_the_next_of_its_scale():
    assert smaller(config_of("xxl").model_name) == "tiny/blip2-t5-small"  # whose layers have the same names
    assert smaller(RunConfig(device="cuda").model_name) is None
    xxl = RunConfig(device="cuda", model_name="Salesforce/blip2-flan-t5-xxl")
    assert smaller(xxl.model_name) == "Salesforce/blip2-flan-t5-xl"
