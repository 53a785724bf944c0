"""Models of several families, tiny: what forward and backward hold on ``meta`` is what they hold on a CPU.

LLaVA, Idefics2, Qwen2-VL, Qwen2.5-VL and Gemma 3 read placeholders, masks and grids from their inputs; mixtures of
experts send tokens by numbers that they compute.
"""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from labkit.config.schema import RunConfig
from labkit.memory.tracker import Tracker
from labkit.plan.semantics import DeviceSemantics, replacing
from labkit.plan.shapes import ShapeTracker
from labkit.plan.values import Values

pytestmark = pytest.mark.slow

SHARE = 0.01
"""What is claimed. Measured with torch 2.13 and transformers 5.23: 0.2%, most are equal."""

PLACE, BEFORE, AFTER, VIDEO = 999, 998, 997, 996
TEXT = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 1000,
}  # fmt: skip
VISION = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56,
    "patch_size": 14,
}  # fmt: skip
QWEN = {
    "text_config": TEXT | {"rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}}, "image_token_id": PLACE,
    "vision_start_token_id": BEFORE, "vision_end_token_id": AFTER, "video_token_id": VIDEO,
}  # fmt: skip
ONE, WITH_PICTURES = AutoModelForCausalLM, AutoModelForImageTextToText


def text(places=0, padding=5):
    """A batch of two, the second padded, with places for the patches of a picture."""
    ids = torch.randint(5, 900, (2, 32))
    ids[:, 1 : 1 + places] = PLACE
    if places:
        ids[:, 0] = BEFORE
    mask = torch.ones_like(ids)
    if padding:
        mask[1, -padding:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.clone()}


def pictures(*shape):
    return {"pixel_values": torch.randn(2, *shape, 56, 56)}


def grid():
    batch = text(places=4)
    patches = {"pixel_values": torch.randn(32, 1176), "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]])}
    return batch | patches | {"mm_token_type_ids": (batch["input_ids"] == PLACE).int()}


def typed():
    batch = text(places=4)
    return batch | pictures(3) | {"token_type_ids": (batch["input_ids"] == PLACE).long()}


EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": True}
MODELS = {
    "llama": (ONE, TEXT, text),
    "llama, packed": (ONE, TEXT, lambda: text(padding=0)),
    "gemma3_text": (ONE, TEXT | {"head_dim": 32}, text),
    "mixtral": (ONE, TEXT | EXPERTS | {"num_local_experts": 4}, text),
    "qwen3_moe": (
        ONE, TEXT | EXPERTS | {"num_experts": 8, "moe_intermediate_size": 128, "head_dim": 32}, text,
    ),
    "llava": (
        WITH_PICTURES,
        {"vision_config": VISION | {"model_type": "clip_vision_model", "projection_dim": 64},
         "text_config": TEXT | {"model_type": "llama"}, "image_token_index": PLACE},
        lambda: text(places=16) | pictures(3),
    ),
    "idefics2": (
        WITH_PICTURES,
        {"vision_config": VISION, "text_config": TEXT | {"model_type": "mistral"}, "image_token_id": PLACE,
         "perceiver_config": {"hidden_size": 256, "resampler_n_latents": 8, "resampler_depth": 2,
                              "resampler_n_heads": 4, "num_key_value_heads": 2, "resampler_head_dim": 16}},
        lambda: text(places=8) | pictures(1, 3) | {"pixel_attention_mask": torch.ones(2, 1, 56, 56).bool()},
    ),
    "qwen2_vl": (
        WITH_PICTURES,
        QWEN | {"vision_config": {"depth": 2, "embed_dim": 64, "num_heads": 4, "hidden_size": 256, "patch_size": 14}},
        grid,
    ),
    "qwen2_5_vl": (
        WITH_PICTURES,
        QWEN | {"vision_config": {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4,
                                  "out_hidden_size": 256, "patch_size": 14, "window_size": 56,
                                  "fullatt_block_indexes": [1]}},
        grid,
    ),
    "gemma3": (
        WITH_PICTURES,
        {"vision_config": VISION, "text_config": TEXT | {"head_dim": 32}, "mm_tokens_per_image": 4,
         "image_token_index": PLACE, "boi_token_index": BEFORE, "eoi_token_index": AFTER},
        typed,
    ),
}  # fmt: skip


def two_steps(model, batch, tracker):
    """Bytes after forward, at the peak, and after backward, of two steps."""
    tracker.assign((*model.parameters(), *model.buffers()), "parameters")
    found = []
    for _ in range(2):
        tracker.peak_bytes = tracker.allocated_bytes
        loss = model(**batch, use_cache=False).loss
        found.append(tracker.allocated_bytes)
        loss.backward()
        del loss
        found += [tracker.peak_bytes, tracker.allocated_bytes]
    return found


def config_of(name):
    kind, values, batch = MODELS[name]
    torch.manual_seed(0)
    return kind, AutoConfig.for_model(name.partition(",")[0], **values), batch()


def on_meta(kind, config, batch, routing="balanced"):
    machine = RunConfig(device="simulated", capacity_gib=1)
    with replacing(), DeviceSemantics(machine), ShapeTracker() as tracker:
        tracker.values = Values(routing)
        with torch.device("meta"):
            model = kind.from_config(config).train()
        return two_steps(model, {key: value.to("meta") for key, value in batch.items()}, tracker)


def on_cpu(kind, config, batch):
    with Tracker() as tracker:
        model = kind.from_config(config).train()
        return two_steps(model, {key: value.clone() for key, value in batch.items()}, tracker)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_holds_what_it_holds_on_a_cpu(name):
    kind, config, batch = config_of(name)
    assert on_meta(kind, config, batch) == pytest.approx(on_cpu(kind, config, batch), rel=SHARE)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_one_after_the_other_hold_between_the_two_ways_to_route(name):
    kind, config, batch = config_of(name)
    config._experts_implementation = "eager"
    planned = sorted(max(on_meta(kind, config, batch, routing)) for routing in ("balanced", "one-sided"))
    real = max(on_cpu(kind, config, batch))
    assert planned[0] * (1 - SHARE) <= real <= planned[1] * (1 + SHARE)
    assert planned[0] < planned[1]
