"""Architectures: the published sizes, the stand-ins at a thousandth, and numbers that fit each other."""

import pytest

from labkit.config.architectures import ARCHITECTURES, architecture
from labkit.config.errors import ConfigError

BILLIONS = {
    "Salesforce/blip2-opt-2.7b": 3.7, "Salesforce/blip2-opt-6.7b": 7.8, "Salesforce/blip2-flan-t5-xl": 3.9,
    "Salesforce/blip2-flan-t5-xxl": 12.2,
}  # fmt: skip
MILLIONS = {
    "tiny/blip2-opt-small": 3.9, "tiny/blip2-opt-medium": 7.8, "tiny/blip2-t5-small": 3.75, "tiny/blip2-t5-large": 12.3,
}  # fmt: skip


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
    assert set(ARCHITECTURES) == set(BILLIONS) | set(MILLIONS)


@pytest.mark.parametrize("name", BILLIONS)
def test_a_full_size_is_the_published_one(name):
    assert weights(ARCHITECTURES[name]) == pytest.approx(BILLIONS[name] * 1e9, rel=0.02)


@pytest.mark.parametrize("name", MILLIONS)
def test_a_stand_in_has_about_a_thousandth(name):
    assert weights(ARCHITECTURES[name]) == pytest.approx(MILLIONS[name] * 1e6, rel=0.02)


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
    assert (a.image_px, a.num_query_tokens) == ((56, 8) if name.startswith("tiny/") else (224, 32))


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
