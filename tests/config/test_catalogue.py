"""Architectures: the published sizes, the stand-ins at a thousandth, and numbers that fit each other."""

import json

import pytest
from errors_of import error_of

from labkit.config.catalogue.blip2 import Blip2
from labkit.config.catalogue.models import ARCHITECTURES, architecture
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace

BILLIONS = {
    "Salesforce/blip2-opt-2.7b": 3.7, "Salesforce/blip2-opt-6.7b": 7.8, "Salesforce/blip2-flan-t5-xl": 3.9,
    "Salesforce/blip2-flan-t5-xxl": 12.2,
}  # fmt: skip
MILLIONS = {
    "tiny/blip2-opt-small": 4.0, "tiny/blip2-opt-medium": 8.1, "tiny/blip2-t5-small": 3.6, "tiny/blip2-t5-large": 12.0,
}  # fmt: skip


BASE_MILLIONS = {"tiny/blip2-opt-base": 2.2}
"""Stands in for no other: it ships with its checkpoint, so it is small."""


def weights(a):
    """Entries of the weight matrices, counted by hand; biases and norms are under a hundredth."""
    vision, qformer, text = a.vision, a.qformer, a.text
    v, q = vision["hidden_size"], qformer["hidden_size"]
    crossed = qformer["num_hidden_layers"] // qformer["cross_attention_frequency"]
    count = vision["num_hidden_layers"] * (4 * v * v + 2 * v * vision["intermediate_size"])
    count += 3 * vision["patch_size"] ** 2 * v + (a.image_px // vision["patch_size"]) ** 2 * v
    count += qformer["num_hidden_layers"] * (4 * q * q + 2 * q * qformer["intermediate_size"])
    count += crossed * (2 * q * q + 2 * q * v)
    if a.language == "opt":
        h = text["hidden_size"]
        count += text["num_hidden_layers"] * (4 * h * h + 2 * h * text["ffn_dim"])
        return count + (text["vocab_size"] + text["max_position_embeddings"]) * h + q * h
    h, inner = text["d_model"], text["num_heads"] * text["d_kv"]
    feed_forward = 3 * h * text["d_ff"]  # gated
    count += text["num_layers"] * (4 * h * inner + feed_forward)
    count += text["num_decoder_layers"] * (8 * h * inner + feed_forward)
    return count + 2 * text["vocab_size"] * h + q * h  # the output layer is not tied


def test_there_are_four_models_and_a_stand_in_for_each():
    assert set(ARCHITECTURES) == set(BILLIONS) | set(MILLIONS) | set(BASE_MILLIONS)


@pytest.mark.parametrize("name", BILLIONS)
def test_a_full_size_is_the_published_one(name):
    assert weights(ARCHITECTURES[name]) == pytest.approx(BILLIONS[name] * 1e9, rel=0.02)


@pytest.mark.parametrize("name", MILLIONS)
def test_a_stand_in_has_about_a_thousandth(name):
    assert weights(ARCHITECTURES[name]) == pytest.approx(MILLIONS[name] * 1e6, rel=0.02)


def test_the_base_is_small_enough_to_ship_in_16_bits():
    (name, millions), *_ = BASE_MILLIONS.items()
    assert weights(ARCHITECTURES[name]) == pytest.approx(millions * 1e6, rel=0.03)
    assert 2 * weights(ARCHITECTURES[name]) < 5e6


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_numbers_of_an_architecture_fit_each_other(name):
    a = architecture(name)
    assert a.name == name
    assert a.image_px % a.vision["patch_size"] == 0
    for part in (a.vision, a.qformer):
        assert part["hidden_size"] % part["num_attention_heads"] == 0
    if a.language == "opt":
        assert a.text["hidden_size"] % a.text["num_attention_heads"] == 0
        assert a.text["ffn_dim"] == 4 * a.text["hidden_size"]
    else:
        assert a.text["d_kv"] * a.text["num_heads"] == a.text["d_model"]
    assert a.language in name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_full_sizes_see_224_px_and_ask_32_questions_and_stand_ins_fewer(name):
    a = architecture(name)
    tiny = (64 if name in BASE_MILLIONS else 56, 8)
    assert (a.image_px, a.num_query_tokens) == (tiny if name.startswith("tiny/") else (224, 32))


@pytest.mark.parametrize(
    ("typo", "meant"), [("blip2-opt-2.7b", "Salesforce/blip2-opt-2.7b"), ("tiny/blip2-t5", "tiny/blip2-t5-small")]
)
def test_an_unknown_model_is_named_with_the_nearest(typo, meant):
    with pytest.raises(ConfigError) as caught:
        architecture(typo)
    assert f"model_name={typo!r}" in str(caught.value)
    assert f"Did you mean '{meant}'?" in str(caught.value)


def test_an_unknown_model_is_refused_on_one_line_whatever_its_name():
    with pytest.raises(ConfigError) as caught:
        architecture("a\nb")
    assert len(str(caught.value).splitlines()) == 1


# -- folders


def write(folder, data):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return str(folder)


def saved_config(a):
    """A config.json with the values of an architecture, as transformers lays it out."""
    return {
        "model_type": "blip-2", "num_query_tokens": a.num_query_tokens, "vision_config": a.vision,
        "qformer_config": {"hidden_dropout_prob": 0.1, **a.qformer},
        "text_config": {"model_type": a.language, "dropout": 0.1, **a.text},
    }  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_folder_gives_the_architecture_that_is_written_in_it(name, tmp_path):
    known, saved = architecture(name), saved_config(architecture(name))
    folder = write(tmp_path / "model", saved)
    vision, qformer, text = (
        {key: rate for key, rate in saved[f"{part}_config"].items() if "drop" in key and key != "layerdrop"}
        for part in ("vision", "qformer", "text")
    )
    assert (qformer["hidden_dropout_prob"] == 0) == (name in BASE_MILLIONS)  # whose checkpoint has none
    assert architecture(folder) == Blip2(
        name=folder, language=known.language, vision=vision | known.vision, qformer=qformer | known.qformer,
        text=text | known.text, num_query_tokens=known.num_query_tokens,
    )  # fmt: skip


@pytest.mark.parametrize(("language", "own_head"), [("opt", None), ("t5", False), ("t5", True)])
def test_what_a_folder_leaves_out_is_what_transformers_takes(language, own_head, tmp_path):
    from transformers import Blip2Config

    text = {"model_type": language} | ({} if own_head is None else {"tie_word_embeddings": not own_head})
    config = Blip2Config(text_config=text)
    found = architecture(write(tmp_path / "model", {"model_type": "blip-2", "text_config": text}))
    assert found.num_query_tokens == config.num_query_tokens
    for part, values in (("vision", found.vision), ("qformer", found.qformer), ("text", found.text)):
        theirs = getattr(config, f"{part}_config")
        for key, value in values.items():
            if key == "tie_word_embeddings":
                assert value == theirs.scale_decoder_outputs == (not own_head)
            else:
                assert value == getattr(theirs, key), key
    config.save_pretrained(tmp_path / "again")
    assert architecture(str(tmp_path / "again")).text == found.text | (
        {"feed_forward_proj": "relu", "dropout_rate": 0.1} if language == "t5" else
        {"do_layer_norm_before": True, "activation_function": "relu", "enable_bias": True, "dropout": 0.1,
         "attention_dropout": 0.0}
    )  # fmt: skip


BLIP2 = {"model_type": "blip-2"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "without a config.json"), ("{", "cannot be read"), ("[]", "model_type=None"),
        ({"model_type": "opt"}, "model_type='opt'"), ({}, "model_type=None"),
        (BLIP2 | {"text_config": {"model_type": "llama"}}, "'llama'"),
        (BLIP2 | {"text_config": 3}, "text_config=3"),
        (BLIP2 | {"vision_config": {"image_size": "big"}}, "vision_config.image_size='big'"),
        (BLIP2 | {"vision_config": {"image_size": [224, 112]}}, "[224, 112]"),
        (BLIP2 | {"qformer_config": {"num_hidden_layers": 0}}, "num_hidden_layers=0"),
        (BLIP2 | {"num_query_tokens": True}, "num_query_tokens=True"),
        (BLIP2 | {"text_config": {"dropout": 1}}, "text_config.dropout=1; a number from 0 to below 1"),
        (BLIP2 | {"qformer_config": {"hidden_dropout_prob": "much"}}, "qformer_config.hidden_dropout_prob='much'"),
        (BLIP2 | {"vision_config": {"attention_dropout": float("nan")}}, "vision_config.attention_dropout=nan"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_blip2_is_refused_on_one_line(data, words, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    if data is not None:
        write(folder, data)
    with pytest.raises(ConfigError) as caught:
        architecture(str(folder))
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert f"model_name={str(folder)!r}" in text
    assert words in text
    assert "blip-2" in text.lower() or "number from" in text


def test_height_and_width_that_are_equal_are_one_side(tmp_path):
    folder = write(tmp_path / "model", BLIP2 | {"vision_config": {"image_size": [56, 56], "patch_size": 14}})
    assert architecture(folder).image_px == 56


def test_a_name_that_is_neither_known_nor_a_folder_says_both(tmp_path):
    with pytest.raises(ConfigError, match="not a model that labkit plans or trains, nor a folder"):
        architecture(str(tmp_path / "nothing"))


def test_a_relative_folder_is_absolute_in_the_config_of_a_run(tmp_path, monkeypatch):
    workspace = Workspace.find()
    write(tmp_path / "model", saved_config(architecture("tiny/blip2-opt-small")))
    monkeypatch.chdir(tmp_path)
    found = resolve(workspace, "reduced_batch", {"model_name": "model"}).config
    assert found.model_name == str(tmp_path / "model")
    assert found.weights == "pretrained"


@pytest.mark.parametrize("part", ["vision", "qformer", "text"])
@pytest.mark.parametrize(
    "value", [10**9, 1001, 0, -1, 1e9, 1e99, float("nan"), float("inf"), "12", True, [2, 3], 10**400]
)
def test_a_number_of_layers_that_no_model_has_is_refused_at_once(part, value, tmp_path):
    data = json.loads(json.dumps(saved_config(architecture("tiny/blip2-opt-small"))))
    data[f"{part}_config"]["num_hidden_layers"] = value
    text = error_of(architecture, write(tmp_path, data))
    assert "num_hidden_layers=" in text
    assert len(text) < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", 2**24 + 1), ("vocab_size", 1e12), ("ffn_dim", -5), ("num_attention_heads", 10**18)],
)
def test_a_width_that_no_model_has_is_refused_at_once(key, value, tmp_path):
    data = json.loads(json.dumps(saved_config(architecture("tiny/blip2-opt-small"))))
    data["text_config"][key] = value
    assert f"text_config.{key}=" in error_of(architecture, write(tmp_path, data))


@pytest.mark.parametrize(
    "more",
    [
        {"num_labels": 10**9},
        {"text_config": {"num_labels": 2**17}},
        {"decoder": [{"encoder_layers": 10**9}]},
        {"vision_config": {"num_labels": float("nan")}},
        {"num_layers": 5000},
    ],
)
def test_a_number_that_transformers_makes_a_list_of_has_a_limit_wherever_it_stands(more, tmp_path):
    data = json.loads(json.dumps(saved_config(architecture("tiny/blip2-opt-small"))))
    for key, value in more.items():
        data[key] = data[key] | value if isinstance(data.get(key), dict) else value
    assert "it may be a whole number up to" in error_of(architecture, write(tmp_path, data))


def test_a_config_that_nests_without_end_is_refused(tmp_path):
    assert "cannot be read" in error_of(architecture, write(tmp_path, "[" * 100_000))
