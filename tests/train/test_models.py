"""Models: sizes, dtypes, frozen parts, dropout, seeds, checkpointing, and a folder that transformers loads."""

import json
import math
import subprocess
import sys

import pytest
import torch

from labkit import assets
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import Collator
from labkit.train.build import build_model
from labkit.train.data import EmojiZip
from labkit.train.step import step_loss

torch.set_num_threads(1)

OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-small"
FULL_SIZES = {  # billions of parameters, vocabulary
    "Salesforce/blip2-opt-2.7b": (3.745, 50304), "Salesforce/blip2-opt-6.7b": (7.753, 50304),
    "Salesforce/blip2-flan-t5-xl": (3.942, 32128), "Salesforce/blip2-flan-t5-xxl": (12.230, 32128),
}  # fmt: skip
STAND_INS = {
    "tiny/blip2-opt-small": "Salesforce/blip2-opt-2.7b", "tiny/blip2-opt-medium": "Salesforce/blip2-opt-6.7b",
    "tiny/blip2-t5-small": "Salesforce/blip2-flan-t5-xl", "tiny/blip2-t5-large": "Salesforce/blip2-flan-t5-xxl",
}  # fmt: skip
PART_OF = {
    "vision_model": "vision", "qformer": "connector", "query_tokens": "connector", "language_projection": "connector",
    "language_model": "language",
}  # fmt: skip
both = pytest.mark.parametrize("name", [OPT, T5])


def build(name, device="cpu", **keys):
    return build_model(RunConfig(model_name=name, **({"capacity_gib": 1, "weights": "random"} | keys)), device)


def make_batch(name, model, samples=4):
    arch, emoji = architecture(name), EmojiZip(assets.FLUENT_EMOJI)
    processor = Blip2Family().processor(arch)
    collate = Collator(processor, arch.language, 16, arch.num_query_tokens, model.config.image_token_id)
    return collate([emoji[i] for i in range(samples)])


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", FULL_SIZES)
def test_a_full_size_model_has_the_published_size_and_costs_no_memory_on_meta(name):
    model = build(name, "meta")
    assert (round(size(model) / 1e9, 3), model.config.text_config.vocab_size) == FULL_SIZES[name]
    assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"meta"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FULL_SIZES, *STAND_INS])
def test_t5_has_an_output_layer_of_its_own_and_opt_shares_it(name):
    model = build(name, "meta")
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert table.shape == head.shape
    assert table.shape[0] == model.config.text_config.vocab_size
    shared = architecture(name).language == "opt"
    assert (table is head) == shared
    # what saving and sharding go by
    assert any(key.endswith("lm_head.weight") for key in model.all_tied_weights_keys) == shared


@pytest.mark.slow
@pytest.mark.parametrize("name", STAND_INS)
def test_a_stand_in_has_a_thousandth_of_the_parameters(name):
    assert size(build(name, "meta")) == pytest.approx(size(build(STAND_INS[name], "meta")) / 1000, rel=0.1)


def test_stand_ins_keep_the_order_of_sizes():
    t5_small, opt_small, opt_medium, t5_large = (
        size(build(f"tiny/blip2-{name}", "meta")) for name in ("t5-small", "opt-small", "opt-medium", "t5-large")
    )
    assert t5_small == pytest.approx(opt_small, rel=0.1)
    assert max(t5_small, opt_small) * 1.45 < opt_medium < t5_large / 1.45


@both
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32), ("bf16-mixed", torch.float32), ("16-mixed", torch.float32),
        ("bf16-true", torch.bfloat16), ("16-true", torch.float16),
    ],
)  # fmt: skip
def test_every_parameter_has_the_dtype_of_the_precision(name, precision, dtype):
    config = RunConfig(
        model_name=name, weights="random", device="cuda", precision=precision, optim="sgd"
    )  # half precision needs CUDA
    model = build_model(config, "cpu")
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.get_default_dtype() == torch.float32


@both
def test_a_model_is_built_in_train_mode(name):
    assert all(module.training for module in build(name).modules())


@both
@pytest.mark.parametrize("parts", [(), ("vision",), ("connector",), ("language",), ("vision", "language")])
def test_frozen_parts_and_only_they_require_no_gradients(name, parts):
    model = build(name, **{f"freeze_{part}": True for part in parts})
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (PART_OF[key.split(".")[0]] not in parts), key


@both
@pytest.mark.parametrize("act_ckpt", [False, True])
def test_gradients_reach_the_connector_between_two_frozen_parts(name, act_ckpt):
    model = build(name, freeze_vision=True, freeze_language=True, act_ckpt=act_ckpt)
    step_loss(model, make_batch(name, model))[0].backward()
    for key, parameter in model.named_parameters():
        if PART_OF[key.split(".")[0]] == "connector":
            assert parameter.grad is not None, key
            assert parameter.grad.abs().sum() > 0, key
        else:
            assert parameter.grad is None, key


@both
def test_the_dropout_key_reaches_every_dropout_layer_and_rate(name):
    model = build(name, dropout=0.3)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert layers
    assert {layer.p for layer in layers} == {0.3}
    rates = {  # attention and OPT hold a number instead of a layer
        f"{key}.{attribute}": getattr(module, attribute)
        for key, module in model.named_modules()
        for attribute in ("dropout", "attention_dropout")
        if PART_OF.get(key.split(".")[0]) != "vision" and isinstance(getattr(module, attribute, None), float)
    }
    assert {key.split(".")[0] for key in rates} == {"qformer", "language_model"}
    assert set(rates.values()) == {0.3}


@both
def test_without_the_dropout_key_the_architecture_keeps_its_own(name):
    model = build(name)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    text = model.config.text_config
    assert (text.dropout_rate if name == T5 else text.dropout) == 0.1


@both
@pytest.mark.parametrize(("dropout", "same"), [(0.0, True), (0.1, False)])
def test_only_without_dropout_two_passes_are_the_same(name, dropout, same):
    model = build(name, dropout=dropout)
    batch = make_batch(name, model)
    assert (step_loss(model, batch)[0].item() == step_loss(model, batch)[0].item()) == same


@both
def test_the_seed_decides_the_weights(name):
    first, again, other = (dict(build(name, seed=seed).named_parameters()) for seed in (1, 1, 2))
    for key, weight in first.items():
        assert torch.equal(weight, again[key]), key
        if weight.std() > 0:  # biases start at zero and norms at one, whatever the seed
            assert not torch.equal(weight, other[key]), key


@both
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_weights_are_finite_and_no_matrix_is_constant(name, precision):
    for key, weight in build(name, precision=precision).named_parameters():
        assert weight.isfinite().all(), key
        if weight.ndim > 1:
            assert weight.float().std() > 0.01, key


@both
def test_query_tokens_differ_from_each_other(name):
    queries = build(name).query_tokens[0]
    assert len(queries) == 8
    assert torch.pdist(queries).min() > 1


@both
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_fresh_model_guesses_all_tokens_alike(name, precision):
    model = build(name, precision=precision)
    loss = step_loss(model, make_batch(name, model))[0]
    assert loss.item() == pytest.approx(math.log(1000), rel=0.1)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


INNER_LAYERS = {
    OPT: ["language_model.model.decoder.layers.1.fc1"],
    T5: [
        "language_model.encoder.block.1.layer.1.DenseReluDense.wi_0",
        "language_model.decoder.block.1.layer.2.DenseReluDense.wi_0",
    ],
}


@both
@pytest.mark.parametrize(("act_ckpt", "calls"), [(False, 1), (True, 2)])
def test_activation_checkpointing_computes_every_layer_again(name, act_ckpt, calls):
    model = build(name, act_ckpt=act_ckpt)
    layers = [
        "vision_model.encoder.layers.1.mlp.fc1", "qformer.encoder.layer.1.intermediate_query.dense",
        *INNER_LAYERS[name],
    ]  # fmt: skip
    counts = dict.fromkeys(layers, 0)

    def count(key):
        counts[key] += 1

    for key in layers:
        model.get_submodule(key).register_forward_pre_hook(lambda *_, key=key: count(key))
    step_loss(model, make_batch(name, model))[0].backward()
    assert counts == dict.fromkeys(layers, calls)


@pytest.mark.slow
@both
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activation_checkpointing_changes_neither_loss_nor_gradients(name, dropout):
    losses, gradients = [], []
    for act_ckpt in (False, True):
        model = build(name, act_ckpt=act_ckpt, dropout=dropout)
        batch = make_batch(name, model)
        torch.manual_seed(0)
        loss = step_loss(model, batch)[0]
        loss.backward()
        losses.append(loss.item())
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    assert losses[0] == losses[1]
    # gradients that come from several layers are added up in another order
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


LOAD = """
import json, sys
import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration
from PIL import Image
torch.set_num_threads(1)
shapes = []
for folder in sys.argv[1:]:
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    torch.save(model(**torch.load(folder + "/batch.pt")).logits, folder + "/logits.pt")
    seen = processor(images=Image.new("RGB", (40, 60)), text="a red apple", return_tensors="pt")
    shapes.append([list(seen["pixel_values"].shape), (seen["input_ids"] == model.config.image_token_id).sum().item()])
print(json.dumps({"shapes": shapes, "labkit": any(name.split(".")[0] == "labkit" for name in sys.modules)}))
"""


@pytest.mark.slow
def test_a_saved_model_gives_the_same_logits_in_plain_transformers(tmp_path):
    expected = {}
    for name in (OPT, T5):
        folder = tmp_path / architecture(name).language
        model = build(name).eval()
        model.save_pretrained(folder)
        Blip2Family().processor(architecture(name)).save_pretrained(folder)
        batch = make_batch(name, model)
        torch.save(batch, folder / "batch.pt")
        with torch.no_grad():
            expected[folder] = model(**batch).logits
    command = [sys.executable, "-c", LOAD, *map(str, expected)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"shapes": [[[1, 3, 56, 56], 8]] * 2, "labkit": False}
    for folder, logits in expected.items():
        torch.testing.assert_close(torch.load(folder / "logits.pt"), logits, rtol=0, atol=1e-6)
