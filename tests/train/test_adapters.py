"""Adapters: which layers get one, how large it is, that the base stays, and that it is saved and loaded whole."""

import json
import os
import shutil
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import OPT, T5, config_of, language_of, linear_shapes, logits_of, plain, train

from labkit.config.errors import ConfigError
from labkit.train.adapters import add_lora, load_adapter, save_adapter
from labkit.train.errors import CheckpointError
from labkit.train.models import weight_facts

torch.set_num_threads(1)

both = pytest.mark.parametrize("name", [OPT, T5])
RANK = 16
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"


def adapted(name, **keys):
    config = config_of(name, use_lora=True, **keys)
    return add_lora(plain(name, use_lora=True, **keys), config)


def trained_shapes(model):
    """Shapes of what is trained, by the layer it belongs to: {layer: [shape, shape]}."""
    found = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer, _, _ = key.removeprefix("base_model.model.").rpartition(".lora_")
            found.setdefault(layer, []).append(tuple(parameter.shape))
    return found


def expected_shapes(name, wanted, rank=RANK):
    """The same from the layers of a plain model: ``rank x in`` and ``out x rank`` for each layer that is wanted."""
    layers = linear_shapes(plain(name))
    return {key: [(rank, layers[key][1]), (layers[key][0], rank)] for key in layers if wanted(key)}


def count(shapes):
    return sum(rows * columns for pair in shapes.values() for rows, columns in pair)


def error_of(error, function, *arguments):
    """The text of the error, which must be one line."""
    with pytest.raises(error) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# -- which layers, and how large

OPT_DEFAULTS = [f"language_model.model.decoder.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qv"]
T5_DEFAULTS = [
    f"language_model.{stack}.block.{i}.layer.{layer}.{kind}.{p}"
    for stack, layer, kind in (
        ("encoder", 0, "SelfAttention"), ("decoder", 0, "SelfAttention"), ("decoder", 1, "EncDecAttention"),
    )
    for i in (0, 1)
    for p in "qv"
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rank", [RANK, 4])
@pytest.mark.parametrize(("name", "layers"), [(OPT, OPT_DEFAULTS), (T5, T5_DEFAULTS)])
def test_the_query_and_value_projections_of_the_language_model_are_adapted(name, layers, rank):
    model = adapted(name, lora_r=rank)
    expected = expected_shapes(name, lambda key: key in layers, rank)
    assert sorted(expected) == sorted(layers)
    assert trained_shapes(model) == expected
    shapes = linear_shapes(plain(name))
    assert weight_facts(model)["trainable"] == sum(rank * sum(shapes[layer]) for layer in layers)


@pytest.mark.slow
@both
def test_only_the_adapters_are_trained_and_the_model_has_them_on_top(name):
    model, base = adapted(name), plain(name)
    facts, before = weight_facts(model), weight_facts(base)
    assert facts["parameters"] == before["parameters"] + facts["trainable"]
    assert facts["parameter_bytes"] == before["parameter_bytes"] + 4 * facts["trainable"]
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (".lora_" in key), key


@pytest.mark.slow
@both
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does(name):
    model = adapted(name)
    before = logits_of(name, plain(name))
    assert torch.equal(logits_of(name, model), before)
    train(name, model)
    assert not torch.allclose(logits_of(name, model), before, atol=1e-3)


@both
def test_scale_and_dropout_are_the_configs(name):
    model = adapted(name, lora_r=4, lora_alpha=6, lora_dropout=0.25)
    layers = [m for m in model.modules() if hasattr(m, "lora_A")]
    assert len(layers) == len(OPT_DEFAULTS if name == OPT else T5_DEFAULTS)
    assert {m.scaling["default"] for m in layers} == {6 / 4}
    assert {m.lora_dropout["default"].p for m in layers} == {0.25}


@pytest.mark.slow
@both
def test_named_targets_are_found_in_vision_and_connector(name):
    shapes = trained_shapes(adapted(name, lora_targets=("qkv", "query")))
    vision = [f"vision_model.encoder.layers.{i}.self_attn.qkv" for i in (0, 1)]
    # every second layer of the Q-Former also looks at the image
    connector = [f"qformer.encoder.layer.{i}.attention.attention.query" for i in (0, 1)]
    connector += ["qformer.encoder.layer.0.crossattention.attention.query"]
    assert sorted(shapes) == sorted(vision + connector)
    assert shapes == expected_shapes(name, lambda key: key in vision + connector)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "targets", "frozen", "adapted_parts"),
    [
        # in OPT, language model and vision tower have layers of the same name
        (OPT, ("fc1",), (), {"vision_model", "language_model"}),
        (OPT, ("fc1",), ("vision",), {"language_model"}),
        (OPT, ("fc1",), ("language",), {"vision_model"}),
        (OPT, ("fc1", "query"), ("language",), {"vision_model", "qformer"}),
        (T5, ("qkv", "q"), ("connector",), {"vision_model", "language_model"}),
        (T5, ("query", "wo"), ("vision",), {"qformer", "language_model"}),
        (T5, ("language_projection",), ("vision", "language"), {"language_projection"}),
    ],
)  # fmt: skip
def test_a_frozen_part_gets_no_adapters(name, targets, frozen, adapted_parts):
    model = adapted(name, lora_targets=targets, **{f"freeze_{part}": True for part in frozen})
    shapes = trained_shapes(model)
    assert {layer.split(".")[0] for layer in shapes} == adapted_parts
    wanted = expected_shapes(name, lambda k: k.split(".")[0] in adapted_parts and k.rpartition(".")[2] in targets)
    assert shapes == wanted


@both
def test_with_all_parts_but_one_frozen_that_one_is_adapted(name):
    model = adapted(name, freeze_language=True, freeze_vision=True, lora_targets=("query", "value"))
    assert {layer.split(".")[0] for layer in trained_shapes(model)} == {"qformer"}
    assert len(trained_shapes(model)) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keys", "wrong", "meant", "unknown"),
    [
        (OPT, {"lora_targets": ("q_prj", "v_proj")}, "q_prj", "q_proj", "wi_0"),
        (T5, {"lora_targets": ("qkw",)}, "qkw", "qkv", "q_proj"),
        (T5, {"lora_targets": ("wi0",)}, "wi0", "wi_0", "fc9"),
        # a layer there is, but only in a part that is frozen
        (T5, {"lora_targets": ("q", "qkv"), "freeze_vision": True}, "qkv", "q", "fc1"),
        (OPT, {"lora_targets": ("query",), "freeze_connector": True}, "query", "q_proj", "dense"),
    ],
)
def test_an_unknown_target_is_named_with_its_nearest_and_what_there_is(name, keys, wrong, meant, unknown):
    text = error_of(ConfigError, lambda: adapted(name, **keys))
    assert text.startswith(f"lora_targets={wrong!r} names no layer of {name}")
    known = text.rpartition("Its layers: ")[2].rstrip(".").split(", ")
    assert meant in known
    assert wrong not in known
    assert unknown not in known
    hint = text.removesuffix(text[text.index(" Its layers") :])
    assert repr(meant) in hint or wrong in ("query", "qkv")
    frozen = tuple(prefix for prefix in ("vision_model", "qformer") if f"freeze_{prefix[:6]}" in keys)
    layers = {key.rpartition(".")[2] for key in linear_shapes(plain(name)) if not key.startswith(frozen)}
    assert set(known) <= layers


# -- the base stays as it was


@pytest.mark.slow
@both
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_without_the_adapter_a_trained_model_is_its_base_bit_by_bit(name, precision):
    model, base = adapted(name, precision=precision), plain(name, precision=precision)
    losses = train(name, model, steps=3)
    assert losses[-1] < losses[0]
    expected = logits_of(name, base)
    assert not torch.equal(logits_of(name, model), expected)
    with model.disable_adapter():
        assert torch.equal(logits_of(name, model), expected)
    weights = dict(base.named_parameters())
    for key, parameter in model.named_parameters():
        if ".lora_" not in key:
            key = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
            assert torch.equal(parameter, weights[key]), key
            assert parameter.grad is None, key


# -- saved and loaded


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Trained adapters of both backbones in folders, and the logits of their models."""
    root, found = tmp_path_factory.mktemp("adapters"), {}
    for name in (OPT, T5):
        model, folder = adapted(name), root / language_of(name)
        train(name, model)
        save_adapter(model, folder)
        found[name] = folder, logits_of(name, model)
    return found


@pytest.mark.slow
@both
def test_a_saved_adapter_gives_the_same_logits_bit_by_bit(name, saved):
    folder, expected = saved[name]
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".md") == [SETTINGS, WEIGHTS]
    assert torch.equal(logits_of(name, load_adapter(plain(name), folder, name)), expected)


@pytest.mark.slow
@both
def test_plain_peft_loads_a_saved_adapter(name, saved):
    folder, expected = saved[name]
    assert torch.equal(logits_of(name, PeftModel.from_pretrained(plain(name), str(folder))), expected)


@both
def test_an_adapter_is_as_large_as_its_numbers_and_names_its_base(name, saved):
    folder, _ = saved[name]
    numbers = count(trained_shapes(adapted(name)))
    size = (folder / WEIGHTS).stat().st_size
    assert 4 * numbers < size < 4 * numbers + 10_000  # and a header
    assert json.loads((folder / SETTINGS).read_text())["base_model_name_or_path"] == name


@pytest.mark.slow
@both
def test_an_adapter_of_vision_and_connector_is_loaded_too(name, tmp_path):
    model = adapted(name, lora_targets=("qkv", "query", "language_projection"))
    train(name, model)
    save_adapter(model, tmp_path)
    assert torch.equal(logits_of(name, load_adapter(plain(name), tmp_path, name)), logits_of(name, model))


@pytest.mark.parametrize(
    ("trained_on", "loaded_on"),
    [(OPT, T5), (T5, OPT), (OPT, "tiny/blip2-opt-medium"), (T5, "tiny/blip2-t5-small")],
    ids=["opt on t5", "t5 on opt", "another size of opt", "another size of t5"],
)
def test_an_adapter_for_another_model_names_both(trained_on, loaded_on, saved):
    folder, _ = saved[trained_on]
    base = plain(loaded_on)
    text = error_of(CheckpointError, load_adapter, base, folder, loaded_on)
    assert str(folder) in text
    assert text.index(loaded_on) < text.index(trained_on)
    adapts = next(layer for layer in (OPT_DEFAULTS if trained_on == OPT else T5_DEFAULTS) if layer in text)
    out, wide = linear_shapes(plain(trained_on))[adapts]
    assert f"lora_A {RANK} x {wide}" in text or f"lora_B {out} x {RANK}" in text
    same_kind = language_of(trained_on) == language_of(loaded_on)
    has = linear_shapes(base)[adapts] if same_kind else None
    assert (f"one of {has[1]} to {has[0]};" if same_kind else "has none;") in text
    assert not any(".lora_" in key for key in base.state_dict())  # nothing was changed


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_early(path):
    path.write_bytes(path.read_bytes()[:20])


def empty(path):
    path.write_bytes(b"")


def garble(path):
    path.write_bytes(bytes(reversed(path.read_bytes())))


@pytest.mark.parametrize("spoil", [cut, cut_early, empty, garble])
@pytest.mark.parametrize("file", [WEIGHTS, SETTINGS])
def test_a_damaged_adapter_is_told_in_one_line(file, spoil, saved, tmp_path):
    shutil.copytree(saved[OPT][0], tmp_path / "adapter")
    spoil(tmp_path / "adapter" / file)
    text = error_of(CheckpointError, load_adapter, plain(OPT), tmp_path / "adapter", OPT)
    assert f"the adapter in {tmp_path / 'adapter'} is damaged" in text


@pytest.mark.parametrize("file", [WEIGHTS, SETTINGS])
def test_an_adapter_whose_file_is_a_pipe_or_a_link_outwards_is_refused(file, saved, tmp_path):
    folder = shutil.copytree(saved[OPT][0], tmp_path / "adapter")
    (folder / file).rename(tmp_path / file)
    (folder / file).symlink_to(tmp_path / file)
    told = error_of(CheckpointError, load_adapter, plain(OPT), folder, OPT)
    assert f"{file} links to {tmp_path / file}, outside its folder" in told
    (folder / file).unlink()
    os.mkfifo(folder / file)
    assert f"{file} is a pipe" in error_of(CheckpointError, load_adapter, plain(OPT), folder, OPT)


def test_an_adapter_that_names_code_is_refused_and_a_pickle_beside_it_is_not_read(saved, tmp_path):
    folder = shutil.copytree(saved[OPT][0], tmp_path / "adapter")
    (folder / "adapter_model.bin").write_bytes(b"cposix\nsystem\n(S'touch " + bytes(tmp_path / "marker") + b"'\ntR.")
    load_adapter(plain(OPT), folder, OPT)
    settings = json.loads((folder / SETTINGS).read_text())
    code = {"megatron_config": {"a": 1}, "megatron_core": "megatron.evil"}
    (folder / SETTINGS).write_text(json.dumps(settings | code))
    told = error_of(CheckpointError, load_adapter, plain(OPT), folder, OPT)
    assert f"{SETTINGS} has megatron_config, which has a module imported" in told
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("text", ["[]", "null", "{}", "[" * 100_000, '{"peft_type": "IA3"}'])
def test_settings_that_are_not_of_an_adapter_are_told_in_one_line(text, saved, tmp_path):
    shutil.copytree(saved[OPT][0], tmp_path / "adapter")
    (tmp_path / "adapter" / SETTINGS).write_text(text)
    told = error_of(CheckpointError, load_adapter, plain(OPT), tmp_path / "adapter", OPT)
    assert f"the adapter in {tmp_path / 'adapter'} is damaged ({SETTINGS}" in told


@pytest.mark.parametrize("file", [WEIGHTS, SETTINGS])
def test_a_folder_without_an_adapter_names_what_it_lacks(file, saved, tmp_path):
    shutil.copytree(saved[OPT][0], tmp_path / "adapter")
    (tmp_path / "adapter" / file).unlink()
    text = error_of(CheckpointError, load_adapter, plain(OPT), tmp_path / "adapter", OPT)
    assert text.startswith(f"{tmp_path / 'adapter'} has no {file}")


def test_an_adapter_that_lacks_a_layer_says_which(saved, tmp_path):
    shutil.copytree(saved[OPT][0], tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    gone = sorted(tensors)[-1]
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, tmp_path / "adapter" / WEIGHTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT's own, before ours
        text = error_of(CheckpointError, load_adapter, plain(OPT), tmp_path / "adapter", OPT)
    assert gone in text


def test_an_adapter_of_another_rank_than_its_settings_is_told_in_one_line(saved, tmp_path):
    shutil.copytree(saved[OPT][0], tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / SETTINGS).read_text())
    (tmp_path / "adapter" / SETTINGS).write_text(json.dumps(settings | {"r": settings["r"] + 1}))
    text = error_of(CheckpointError, load_adapter, plain(OPT), tmp_path / "adapter", OPT)
    assert "does not load" in text
