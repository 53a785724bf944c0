"""The step: placeholders, labels and shapes of a batch for both backbones, and a loss that means what it says."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, processors
from torch.nn.functional import log_softmax
from transformers import Blip2Processor, PreTrainedTokenizerFast

from labkit import assets
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.batch import IGNORED
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import PROMPT, Collator
from labkit.families.tokenizer import EOS, IMAGE, PAD, TOKEN_IDS, embedded_tokenizer
from labkit.train.build import build_model
from labkit.train.data import EmojiZip
from labkit.train.step import step_loss

torch.set_num_threads(1)

OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-small"
QUERIES = 8
both = pytest.mark.parametrize("name", [OPT, T5])


def build(name, **keys):
    return build_model(
        RunConfig(model_name=name, capacity_gib=1, **({"dropout": 0.0, "weights": "random"} | keys)), "cpu"
    )


def collator(name, max_length=24):
    arch = architecture(name)
    return Collator(Blip2Family().processor(arch), arch.language, max_length, arch.num_query_tokens, TOKEN_IDS[IMAGE])


def blank(*captions):
    return [(Image.new("RGB", (64, 64), "white"), caption) for caption in captions]


def pictures(count=6):
    emoji = EmojiZip(assets.FLUENT_EMOJI)
    return [emoji[i * 100] for i in range(count)]


def scored_ids(name, caption):
    """What the model is to say: the caption and the end mark, for OPT with its start mark."""
    ids = embedded_tokenizer(architecture(name).language)(caption)["input_ids"]
    return ids + [TOKEN_IDS[EOS]] if name == OPT else ids


@both
def test_every_row_has_one_placeholder_a_query_and_they_come_first(name):
    ids = collator(name)(pictures())["input_ids"]
    assert (ids == TOKEN_IDS[IMAGE]).sum(1).tolist() == [QUERIES] * 6
    assert (ids[:, :QUERIES] == TOKEN_IDS[IMAGE]).all()


@both
def test_labels_are_the_caption_and_ignore_padding_and_placeholders(name):
    samples = pictures()
    batch = collator(name)(samples)
    for (_, caption), labels in zip(samples, batch["labels"], strict=True):
        assert labels[labels != IGNORED].tolist() == scored_ids(name, caption)
        assert TOKEN_IDS[PAD] not in labels
        assert TOKEN_IDS[IMAGE] not in labels


def test_t5_reads_placeholders_and_the_prompt():
    batch = collator(T5)(pictures())
    prompt = embedded_tokenizer("t5")(PROMPT)["input_ids"]
    assert prompt[-1] == TOKEN_IDS[EOS]
    assert batch["input_ids"].tolist() == [[TOKEN_IDS[IMAGE]] * QUERIES + prompt] * 6
    assert batch["attention_mask"].all()


@pytest.mark.parametrize("max_length", [1, 2, 3, 24])
def test_t5_reads_the_whole_prompt_whatever_captions_are_cut_to(max_length):
    assert torch.equal(collator(T5, max_length)(blank("a"))["input_ids"], collator(T5, 50)(blank("a"))["input_ids"])


def test_opt_reads_what_the_processor_of_transformers_makes_and_the_end_mark():
    processor = Blip2Family().processor(architecture(OPT))
    caption = "a 3d render of a red apple"
    made = processor(images=Image.new("RGB", (64, 64)), text=caption)["input_ids"][0]
    ids = collator(OPT)(blank(caption))["input_ids"][0].tolist()
    assert ids[: len(made) + 1] == made + [TOKEN_IDS[EOS]]
    assert set(ids[len(made) + 1 :]) == {TOKEN_IDS[PAD]}


@both
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_images_of_any_mode_and_size_become_pixels_of_one_shape(name, mode):
    batch = collator(name)([(Image.new(mode, (91, 17)), "a"), (Image.new("RGB", (8, 300)), "b")])
    assert batch["pixel_values"].shape == (2, 3, 56, 56)
    assert batch["pixel_values"].dtype == torch.float32


@both
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_the_scored_tokens_only(name, dropout):
    model = build(name, dropout=dropout)
    batch = collator(name)(pictures())
    torch.manual_seed(0)
    loss, tokens = step_loss(model, batch)
    torch.manual_seed(0)
    likelihoods = log_softmax(model(**batch).logits.double(), -1)
    assert likelihoods.shape[:2] == batch["labels"].shape
    shift = 1 if name == OPT else 0  # OPT says at each position what comes next
    by_hand = [
        -likelihoods[row, place - shift, label]
        for row, labels in enumerate(batch["labels"])
        for place, label in enumerate(labels)
        if label != IGNORED
    ]
    assert tokens.item() == len(by_hand) == sum(len(scored_ids(name, caption)) for _, caption in pictures())
    assert loss.item() == pytest.approx((sum(by_hand) / len(by_hand)).item(), abs=1e-5)


@both
def test_more_padding_does_not_change_the_loss(name):
    model = build(name)
    (short, count), (long, same) = (step_loss(model, collator(name, length)(pictures())) for length in (24, 50))
    assert count == same
    torch.testing.assert_close(short, long, rtol=0, atol=1e-6)


@both
def test_the_companions_of_a_row_do_not_change_its_loss(name):
    model, samples = build(name), pictures(3)
    losses = [step_loss(model, collator(name)([sample])) for sample in samples]
    together, tokens = step_loss(model, collator(name)(samples))
    assert sum(loss * count for loss, count in losses).item() == pytest.approx((together * tokens).item(), abs=1e-4)


@both
def test_another_image_changes_the_loss(name):
    model = build(name)
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    red, blue = (step_loss(model, collator(name)([(image, "a 3d render of a red apple")]))[0] for image in images)
    assert abs(red - blue) > 1e-5


@both
def test_images_swapped_between_rows_change_the_loss(name):
    model, (first, second) = build(name), pictures(2)
    right = step_loss(model, collator(name)([first, second]))[0]
    swapped = step_loss(model, collator(name)([(second[0], first[1]), (first[0], second[1])]))[0]
    assert abs(right - swapped) > 1e-6


@both
def test_gradients_reach_every_part_of_the_vision_tower_and_every_query(name):
    model = build(name)
    step_loss(model, collator(name)(pictures()))[0].backward()
    for key, parameter in model.vision_model.named_parameters():
        assert parameter.grad.abs().max() > 1e-9, key
    assert (model.query_tokens.grad.abs().amax(2) > 1e-9).all()


@both
def test_a_long_caption_is_cut_and_still_ends_with_the_end_mark(name):
    caption = "a 3d render of " + "red apples and " * 50
    labels = collator(name, 20)(blank(caption))["labels"][0]
    labels = labels[labels != IGNORED]
    assert len(labels) == 20
    assert labels.tolist() == scored_ids(name, caption)[:19] + [TOKEN_IDS[EOS]]


@both
@pytest.mark.parametrize("max_length", [1, 2, 3])
def test_the_smallest_lengths_that_a_config_takes_work(name, max_length):
    assert RunConfig(capacity_gib=1, max_length=max_length)
    batch = collator(name, max_length)(blank("a 3d render of a red apple", ""))
    assert batch["labels"].shape == (2, QUERIES + max_length if name == OPT else max_length)
    assert ((batch["labels"] != IGNORED).sum(1) <= max_length).all()
    assert step_loss(build(name), batch)[0].isfinite()


@both
def test_a_caption_that_spells_the_placeholder_adds_none(name):
    model = build(name)
    spelled = blank("a <image> of <image><image>", "<image>")
    batch = collator(name)(spelled)
    assert (batch["input_ids"] == TOKEN_IDS[IMAGE]).sum(1).tolist() == [QUERIES] * 2
    assert TOKEN_IDS[IMAGE] not in batch["labels"]
    assert step_loss(model, batch)[0].isfinite()


@both
def test_a_caption_that_spells_special_marks_is_plain_text(name):
    labels = collator(name)(blank("a </s> b <pad> c <s> d <unk>"))["labels"][0]
    inner = labels[labels != IGNORED][1 if name == OPT else 0 : -1]
    assert not {TOKEN_IDS[mark] for mark in TOKEN_IDS} & set(inner.tolist())


@both
def test_an_empty_caption_is_the_end_mark(name):
    batch = collator(name)(blank("", ""))
    loss, tokens = step_loss(build(name), batch)
    assert tokens == 2 * len(scored_ids(name, ""))
    assert loss.isfinite()
    assert batch["labels"][0][batch["labels"][0] != IGNORED][-1] == TOKEN_IDS[EOS]


anything = st.text(max_size=300) | st.lists(
    st.sampled_from([*TOKEN_IDS, "a", " ", "\n", "\0", "é", "字", "👩🏽‍🍳", "\u202e"]), max_size=40
).map("".join)
COLLATORS = {name: collator(name, 16) for name in (OPT, T5)}


@pytest.mark.slow
@both
@settings(deadline=None, max_examples=60, derandomize=True)
@given(captions=st.lists(anything, min_size=1, max_size=3))
def test_any_captions_give_one_shape(name, captions):
    batch = COLLATORS[name](blank(*captions))
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    prompt = len(embedded_tokenizer("t5")(PROMPT)["input_ids"])
    assert ids.shape == mask.shape == (len(captions), QUERIES + (16 if name == OPT else prompt))
    assert labels.shape == (ids.shape if name == OPT else (len(captions), 16))
    assert {t.dtype for t in (ids, mask, labels)} == {torch.int64}
    assert ((ids == TOKEN_IDS[IMAGE]).sum(1) == QUERIES).all()
    assert (mask.diff(dim=1) <= 0).all()  # ones, then zeros
    assert (ids[mask == 0] == TOKEN_IDS[PAD]).all()
    for row in labels:
        scored = row[row != IGNORED]
        assert 1 <= len(scored) <= 16
        assert scored[-1] == TOKEN_IDS[EOS]
        assert ((scored >= 0) & (scored < 1000)).all()
        start = QUERIES if name == OPT else 0
        assert torch.equal(row[start : start + len(scored)], scored)


def old_processor(language, folder):
    """As older releases left it on the hub: a tokenizer without an image token, and no number of queries."""
    data = json.loads(assets.TOKENIZER.read_text(encoding="utf-8"))
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != IMAGE]
    vocabulary = data["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] = vocabulary.pop(IMAGE)
    tokenizer = Tokenizer.from_str(json.dumps(data))
    single, mark = ("<s> $A", "<s>") if language == "opt" else ("$A </s>", "</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[(mark, vocabulary[mark])])
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    Blip2Family().processor(architecture(OPT)).image_processor.save_pretrained(folder)
    return Blip2Processor.from_pretrained(folder)


@both
def test_a_processor_saved_by_an_older_release_still_gives_every_row_its_placeholders(name, tmp_path):
    processor = old_processor(architecture(name).language, tmp_path)
    assert processor.num_query_tokens is None
    image_token_id = processor.tokenizer.convert_tokens_to_ids(IMAGE)
    assert image_token_id == 999  # added after the vocabulary
    alone = processor(images=[Image.new("RGB", (8, 8))], text=["a red apple"], return_tensors="pt")
    assert image_token_id not in alone["input_ids"]  # the silent mistake

    model = build(name)
    model.config.image_token_index = image_token_id
    collate = Collator(processor, architecture(name).language, 24, QUERIES, image_token_id)
    samples = [(image, f"{caption} <image>") for image, caption in pictures(3)]
    batch = collate(samples)
    assert (batch["input_ids"] == image_token_id).sum(1).tolist() == [QUERIES] * 3
    assert (batch["input_ids"][:, :QUERIES] == image_token_id).all()
    loss = step_loss(model, batch)[0]
    loss.backward()
    assert model.vision_model.embeddings.patch_embedding.weight.grad.abs().max() > 1e-9
    swapped = collate([(samples[i - 1][0], samples[i][1]) for i in range(3)])
    assert abs(step_loss(model, swapped)[0] - loss) > 1e-6
