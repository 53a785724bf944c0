"""QLoRA's base: which layers are in 4 bits, how many bytes that is, and that only the adapters are trained."""

import functools
import math

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from tiny import OPT, T5, config_of, linear_shapes, logits_of, plain, train
from torch import nn

from labkit.config.catalogue.blip2 import Blip2
from labkit.families.blip2.family import Blip2Family
from labkit.memory.capture import MemoryCapture
from labkit.memory.owners import quantization_tensors
from labkit.memory.tracker import Tracker
from labkit.train.adapters import add_lora
from labkit.train.models import weight_facts

torch.set_num_threads(1)

both = pytest.mark.parametrize("name", [OPT, T5])
doubled = pytest.mark.parametrize("double_quant", [False, True])
precisions = pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
BLOCK, SCALES_BLOCK = 64, 256
DTYPES = {"32-true": torch.float32, "bf16-true": torch.bfloat16}


def quantized(name, **keys):
    return plain(name, use_qlora=True, **keys)


unchanged = functools.cache(quantized)
"""A quantized model that no test changes, built once."""
whole_model = functools.cache(plain)


def layers_of(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


@functools.cache
def in_4_bits(name):
    """Numbers in each layer that is to be quantized, from the shapes of the plain model."""
    shapes = linear_shapes(whole_model(name))
    return {key: math.prod(shape) for key, shape in shapes.items() if not set(key.split(".")) & set(Blip2.unquantized)}


def nf4_bytes(numbers, double_quant, dtype):
    """Half a byte a number, a scale for each 64 of them, and a code book of 16 in the model's dtype.

    With double quantization a scale is one byte, with an fp32 scale for each 256, a table of 256 and an offset.
    """
    scales = -(-numbers // BLOCK)
    fixed = -(-numbers // 2) + 16 * dtype.itemsize
    if not double_quant:
        return fixed + 4 * scales
    return fixed + scales + 4 * -(-scales // SCALES_BLOCK) + 4 * 256 + 4


def rounded(size_bytes):
    return -(-size_bytes // 512) * 512


def held(model):
    """Every tensor of the weights: parameters, buffers, scales and code books."""
    return [
        *model.parameters(), *model.buffers(),
        *(tensor for parameter in model.parameters() for tensor in quantization_tensors(parameter)),
    ]  # fmt: skip


# -- what is in 4 bits


@pytest.mark.slow
@both
@precisions
@doubled
def test_linear_layers_are_in_4_bits_but_for_those_that_are_kept(name, precision, double_quant):
    model = unchanged(name, precision=precision, double_quant=double_quant)
    found = layers_of(model)
    assert set(found) == set(in_4_bits(name))
    for layer in found.values():
        state = layer.weight.quant_state
        assert (layer.weight.dtype, state.quant_type, state.blocksize) == (torch.uint8, "nf4", BLOCK)
        assert state.nested == double_quant
        assert state.shape == (layer.out_features, layer.in_features)
        assert (layer.compute_dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)
    packed = {f"{key}.weight" for key in found}
    for key, parameter in model.named_parameters():
        if key not in packed:
            assert parameter.dtype == DTYPES[precision], key


@pytest.mark.slow
@both
def test_what_is_kept_is_the_output_layer_the_q_former_and_wo(name):
    model = unchanged(name)
    kept = {key for key, module in model.named_modules() if type(module) is nn.Linear}
    assert kept == set(linear_shapes(whole_model(name))) - set(in_4_bits(name))
    assert {key.split(".")[0] for key in kept} == {"qformer", "language_model"}
    assert {key.rpartition(".")[2] for key in kept if key.startswith("language_model")} == (
        {"lm_head"} if name == OPT else {"lm_head", "wo"}
    )


@pytest.mark.slow
@both
@precisions
@doubled
def test_4_bit_weights_take_what_their_shapes_say(name, precision, double_quant):
    facts = weight_facts(unchanged(name, precision=precision, double_quant=double_quant))
    dtype = DTYPES[precision]
    numbers = in_4_bits(name).values()
    assert facts["quantized_bytes"] == sum(nf4_bytes(n, double_quant, dtype) for n in numbers)
    bits = 8 * facts["quantized_bytes"] / sum(numbers)
    # 4 bits, and 32 for each 64 numbers, or 8 for each 64 and 32 for each 64 x 256; the tables weigh in tiny layers
    assert bits == pytest.approx(4 + (8 / 64 + 32 / 64 / 256 if double_quant else 32 / 64), rel=0.05)


@both
@doubled
def test_the_whole_is_smaller_by_what_the_unquantized_parts_allow(name, double_quant):
    base = whole_model(name, precision="bf16-true")
    whole_bytes = weight_facts(base)["parameter_bytes"]
    numbers = in_4_bits(name).values()
    rest_bytes = whole_bytes - 2 * sum(numbers)
    facts = weight_facts(unchanged(name, precision="bf16-true", double_quant=double_quant))
    small_bytes = rest_bytes + sum(nf4_bytes(n, double_quant, torch.bfloat16) for n in numbers)
    factor = whole_bytes / facts["parameter_bytes"]
    assert factor == whole_bytes / small_bytes
    # had all of it been quantized it were 16 / 4.5 (4.13 with double quantization); the parts that are not hold it back
    ideal = 16 / (4 + (8 / 64 + 32 / 64 / 256 if double_quant else 32 / 64))
    share = 2 * sum(numbers) / whole_bytes
    assert factor == pytest.approx(1 / (share / ideal + (1 - share)), rel=0.02)
    assert 2 < factor < ideal


@both
@precisions
@doubled
def test_parameters_are_counted_as_the_plain_model_has_them(name, precision, double_quant):
    facts = weight_facts(unchanged(name, precision=precision, double_quant=double_quant))
    base = weight_facts(whole_model(name, precision=precision))
    assert facts["parameters"] == base["parameters"]
    assert "quantized_bytes" not in base
    assert facts["trainable"] == base["parameters"] - sum(in_4_bits(name).values()) - biases(name)


def biases(name):
    model = whole_model(name)
    return sum(model.get_submodule(k).bias.numel() for k in in_4_bits(name) if model.get_submodule(k).bias is not None)


@pytest.mark.slow
@both
@precisions
@doubled
def test_bytes_by_kind_add_up(name, precision, double_quant):
    keys = {"use_qlora": True, "precision": precision, "double_quant": double_quant}
    base = plain(name, **keys)
    before = weight_facts(base)
    model = add_lora(base, config_of(name, **keys))
    facts = weight_facts(model)
    adapters = [p for key, p in model.named_parameters() if ".lora_" in key]
    assert facts["trainable"] == sum(p.numel() for p in adapters)
    by_kind = facts["unquantized_bytes"]
    total = facts["quantized_bytes"] + sum(by_kind.values()) + sum(p.nbytes for p in adapters)
    assert total == facts["parameter_bytes"] == before["parameter_bytes"] + sum(p.nbytes for p in adapters)
    assert by_kind == before["unquantized_bytes"]
    whole = whole_model(name, precision=precision)
    sums = dict.fromkeys(("qformer", "lm_head", "wo", "embeddings", "norms, biases, other"), 0)
    for key, parameter in whole.named_parameters():
        path = key.split(".")
        owner = whole.get_submodule(".".join(path[:-1]))
        kind = next((kind for kind in ("qformer", "lm_head", "wo") if kind in path), "norms, biases, other")
        if kind == "norms, biases, other" and (isinstance(owner, nn.Embedding) or key.startswith("vision_model.embed")):
            kind = "embeddings"
        if ".".join(path[:-1]) not in in_4_bits(name) or path[-1] == "bias":
            sums[kind] += parameter.nbytes
    assert by_kind == {kind: size for kind, size in sums.items() if size}


# -- what it costs to build


@pytest.mark.slow
@both
@precisions
@doubled
def test_parameters_on_the_simulated_gpu_are_these_bytes_rounded_up(name, precision, double_quant):
    with Tracker() as tracker:
        model = quantized(name, precision=precision, double_quant=double_quant)
        for parameter in model.parameters():
            tracker.assign([parameter, *quantization_tensors(parameter)], "parameters")
        tracker.assign(model.buffers(), "parameters")
        found = tracker.breakdown()
        allocated = tracker.allocated_bytes
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held(model)}
    facts = weight_facts(model)
    assert found["parameters"] == sum(rounded(size) for size in sizes.values())
    assert facts["parameter_bytes"] + sum(b.nbytes for b in model.buffers()) == sum(sizes.values())
    # what else is alive are tables that bitsandbytes keeps from its first use on
    assert 0 <= allocated - found["parameters"] <= 4096


@pytest.mark.slow
@both
@precisions
@doubled
def test_never_more_than_the_quantized_model_and_one_layer_is_held(name, precision, double_quant):
    quantized(name, double_quant=double_quant)  # tables of the first use
    with Tracker() as tracker:
        model = quantized(name, precision=precision, double_quant=double_quant)
        assert len(layers_of(model)) == len(in_4_bits(name))
        built, peak = tracker.allocated_bytes, tracker.peak_bytes
    numbers = max(in_4_bits(name).values())
    one_layer = 2 * numbers
    if double_quant:  # its scales in fp32, and again less their mean
        one_layer += 2 * 4 * -(-numbers // BLOCK)
    assert peak <= built + one_layer + 1024
    # with all layers in bf16 at once it were this
    assert peak < built + sum(2 * n for n in in_4_bits(name).values()) / 2


@pytest.mark.slow
@both
@doubled
def test_memory_capture_finds_the_scales_among_the_parameters(name, double_quant):
    keys = {"use_qlora": True, "double_quant": double_quant}
    with Tracker() as tracker:
        model = add_lora(plain(name, **keys), config_of(name, **keys))
        capture = MemoryCapture(tracker)
        capture._module = model
        capture._assign_state()
        found = tracker.breakdown()
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held(model)}
    assert found["parameters"] == sum(rounded(size) for size in sizes.values())


# -- what the weights are


@pytest.mark.slow
def test_t5_keeps_an_output_layer_of_its_own_and_opt_shares_it():
    for name in (OPT, T5):
        model = unchanged(name)
        head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        assert (head is table) == (name == OPT)
        assert any(key.endswith("lm_head.weight") for key in model.all_tied_weights_keys) == (name == OPT)
        assert torch.equal(head, table) == (name == OPT)
        assert head.std().item() == pytest.approx(Blip2Family.weight_std, rel=0.05 if name == T5 else 10)


@both
@precisions
@doubled
def test_4_bit_weights_are_as_wide_as_they_were_drawn_and_differ_between_layers(name, precision, double_quant):
    seen = {}
    for key, layer in layers_of(unchanged(name, precision=precision, double_quant=double_quant)).items():
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        assert weight.shape == (layer.out_features, layer.in_features)
        assert weight.std().item() == pytest.approx(Blip2Family.weight_std, rel=0.05), key
        assert weight.mean().item() == pytest.approx(0, abs=0.001), key
        for other, before in seen.items():
            if before.shape == weight.shape:
                assert torch.corrcoef(torch.stack([before.ravel(), weight.ravel()]))[0, 1].abs() < 0.1, (key, other)
        seen[key] = weight
        if layer.bias is not None:
            assert layer.bias.count_nonzero() == 0
    assert len(seen) == len(in_4_bits(name))


@pytest.mark.slow
@both
@precisions
def test_weights_that_are_kept_are_drawn_as_in_the_plain_model(name, precision):
    base = dict(whole_model(name, precision=precision).named_parameters())
    model = unchanged(name, precision=precision)
    packed = {f"{key}.weight" for key in layers_of(model)}
    for key, weight in model.named_parameters():
        if key not in packed:
            weight, other = weight.float(), base[key].float()
            assert weight.isfinite().all(), key
            if other.numel() > 1 and other.std() > 0:
                assert weight.std().item() == pytest.approx(other.std().item(), rel=0.2), key
            else:
                assert torch.equal(weight, other), key


@pytest.mark.slow
@both
@doubled
def test_the_seed_decides_the_weights(name, double_quant):
    first, again, other = (held(quantized(name, seed=seed, double_quant=double_quant)) for seed in (1, 1, 2))
    assert len(first) == len(again) == len(other)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    changed = [not torch.equal(one, two) for one, two in zip(first, other, strict=True)]
    assert sum(changed) >= len(in_4_bits(name))


def test_the_default_dtype_is_left_as_it_was():
    quantized(OPT, precision="bf16-true")
    assert torch.get_default_dtype() == torch.float32


# -- use


def nearly_equal(one, other):
    """Up to what bf16 arithmetic in another order gives."""
    return torch.allclose(one.float(), other.float(), rtol=0.05, atol=0.02)


@pytest.mark.slow
@both
@precisions
@doubled
def test_eval_mode_leaves_the_4_bit_weights_as_they_are(name, precision, double_quant):
    # where a CPU has bf16 instructions, bitsandbytes would repack them and drop the second quantization
    model = quantized(name, precision=precision, double_quant=double_quant, dropout=0.0)
    before = [t.clone() for t in held(model)]
    logits = logits_of(name, model)
    assert all(torch.equal(one, two) for one, two in zip(before, held(model), strict=True))
    whole = plain(name, precision=precision, dropout=0.0)
    for key, layer in layers_of(model).items():  # the same weights in a plain model
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        whole.get_submodule(key).weight.data = weight.to(DTYPES[precision])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.removesuffix(".weight") not in in_4_bits(name):
                whole.get_parameter(key).copy_(parameter)
    assert nearly_equal(logits, logits_of(name, whole))
    assert not nearly_equal(logits, logits_of(name, plain(name, precision=precision)))


# -- training


@pytest.mark.slow
@both
@precisions
@pytest.mark.parametrize(("double_quant", "act_ckpt"), [(False, False), (True, True)])
def test_a_step_trains_the_adapters_and_leaves_the_4_bit_weights(name, precision, double_quant, act_ckpt):
    keys = {"use_qlora": True, "precision": precision, "double_quant": double_quant, "act_ckpt": act_ckpt}
    model = add_lora(plain(name, **keys), config_of(name, **keys))
    before = {key: p.clone() for key, p in model.named_parameters()}
    scales = [t.clone() for p in model.parameters() for t in quantization_tensors(p)]
    logits_of(name, model)  # as a validation between steps
    losses = train(name, model, steps=3)
    assert losses[0] == pytest.approx(math.log(1000), rel=0.1)
    assert losses[-1] < losses[0]
    for key, parameter in model.named_parameters():
        trained = ".lora_" in key
        assert parameter.requires_grad == trained, key
        assert (parameter.grad is not None) == trained, key
        assert torch.equal(parameter, before[key]) != trained, key
    after = [t for p in model.parameters() for t in quantization_tensors(p)]
    assert all(torch.equal(one, two) for one, two in zip(scales, after, strict=True))
    with model.disable_adapter():
        base = quantized(name, **{k: v for k, v in keys.items() if k not in ("use_qlora", "act_ckpt")})
        assert torch.equal(logits_of(name, model), logits_of(name, base))
