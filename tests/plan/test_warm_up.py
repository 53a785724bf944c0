"""Loading a checkpoint onto a GPU reserves one block as large as the model: predictions have it, and say so."""

import dataclasses

import pytest
import torch
from transformers import modeling_utils

from labkit.cli import main
from labkit.config.layers import resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.plan.advise import advise
from labkit.plan.allocator import CachingAllocator
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict, warm_up_bytes
from labkit.train.weights import find_weights, load_model

BASE = "tiny/blip2-opt-base"
CACHE = TraceCache(None)


def config_of(**values):
    keys = {"model_name": BASE, "weights": "pretrained", "dataset": "fluent_emoji_food", "device": "cuda"}
    return RunConfig(**(keys | {"capacity_gib": 80, "batch_size": 2} | values))


FOUR_BITS = {"use_qlora": True, "precision": "bf16-true"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", [{}, {"precision": "bf16-true"}, FOUR_BITS, FOUR_BITS | {"double_quant": True}], ids=str
)
def test_the_block_is_what_transformers_counts(values, monkeypatch):
    """Asked of transformers itself, about the real checkpoint, with its parameters said to go to a GPU."""
    config, counted = config_of(**values), []

    def count(model, names, quantizer):
        on_gpu = {name: torch.device("cuda", 0) for name in names}
        counted.append(sum(modeling_utils.get_total_byte_count(model, on_gpu, quantizer).values()))

    monkeypatch.setattr(modeling_utils, "caching_allocator_warmup", count)
    model = load_model(dataclasses.replace(config, device="simulated"), find_weights(BASE), "cpu")
    if not config.use_qlora:  # into host memory transformers loads without a device map, and counts nothing
        assert counted == []
        count(model, model.state_dict(), None)
    assert [warm_up_bytes(config, CACHE.trace(config))] == counted


@pytest.mark.slow
@pytest.mark.parametrize(("model_name", "stays"), [(BASE, False), ("tiny/blip2-opt-small", True)])
def test_the_weights_are_cut_from_one_segment_which_goes_back_if_all_are_small(model_name, stays):
    found, random = (
        predict(config_of(weights=weights, model_name=model_name), cache=CACHE) for weights in ("pretrained", "random")
    )
    trace = CACHE.trace(config_of(model_name=model_name))
    assert found.warm_up_bytes == trace.loaded_bytes > 0
    assert found.reserved_without_warm_up_bytes == random.reserved_bytes
    assert (random.warm_up_bytes, random.reserved_without_warm_up_bytes) == (0, None)
    assert found.peak_bytes == random.peak_bytes, "what is allocated at once is not more"
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(found.warm_up_bytes))
    assert allocator.reserved_bytes >= found.warm_up_bytes
    if stays:
        assert found.phases[0].reserved_bytes >= allocator.reserved_bytes
    else:  # up to 1 MiB each, so none is in it, and Lightning empties the cache
        assert found.phases[0].reserved_bytes == random.phases[0].reserved_bytes < allocator.reserved_bytes


def test_a_model_that_is_larger_than_the_capacity_ends_where_it_would():
    found = predict(config_of(capacity_gib=10 / 1024), cache=CACHE)
    assert (found.verdict, found.died_in["phase"]) == ("out of memory", "load_model")
    assert found.died_in["operation"] == "caching_allocator_warmup"
    assert found.requested_bytes == found.warm_up_bytes


@pytest.mark.parametrize(
    "values", [{"device": "simulated"}, {"weights": "random"}, {"strategy": "fsdp", "devices": 2},
               {"strategy": "pipeline", "devices": 2}],
)  # fmt: skip
def test_nothing_is_reserved_where_nothing_is_loaded_onto_a_gpu(values):
    assert warm_up_bytes(config_of(**values), CACHE.trace(config_of())) == 0


@pytest.mark.slow
def test_the_command_and_the_advice_have_it(capsys):
    assert main(["plan", "bf16_true", "--gpu", "h100-94gb", f"model_name={BASE}", "weights=pretrained"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "loading the weights reserves" in said
    assert "with random weights reserved is" in said
    assert main(["plan", "bf16_true", "--gpu", "h100-94gb", f"model_name={BASE}", "weights=random"]) == 0
    assert "loading the weights" not in capsys.readouterr().out
    config = resolve(Workspace.find(), "bf16_true", {"model_name": BASE, "weights": "pretrained"}, "h100-94gb").config
    assert advise(config, cache=CACHE).prediction.warm_up_bytes == CACHE.trace(config).loaded_bytes
