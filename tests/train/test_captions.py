"""Captions: what is generated from, for both backbones, and a model left as it came."""

import pytest
import torch
from PIL import Image

from labkit.config.catalogue.models import architecture
from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import PROMPT, Collator
from labkit.families.tokenizer import BOS, IMAGE, TOKEN_IDS, embedded_tokenizer
from labkit.train.adapters import add_lora
from labkit.train.build import build_model
from labkit.train.captions import exact_share, images_of, write_captions

torch.set_num_threads(1)

OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-small"
QUERIES = 8
both = pytest.mark.parametrize("name", [OPT, T5])


def config(name, **keys):
    return RunConfig(model_name=name, weights="random", capacity_gib=1, dropout=0.0, **keys)


def collator(name):
    arch = architecture(name)
    return Collator(Blip2Family().processor(arch), arch.language, 12, arch.num_query_tokens, TOKEN_IDS[IMAGE])


def pictures(count=5):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 64, 64, 3), generator=draw, dtype=torch.uint8)
    return [Image.fromarray(p.numpy()) for p in pixels]


def seeing(name):
    """A random model with weights large enough for its words to depend on the image."""
    model = build_model(config(name), "cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2)
    return model


def test_opt_continues_from_the_placeholders_and_the_start_mark():
    batch = collator(OPT).prompts(pictures(2))
    assert batch["input_ids"].tolist() == [[TOKEN_IDS[IMAGE]] * QUERIES + [TOKEN_IDS[BOS]]] * 2


def test_t5_reads_what_it_reads_in_training():
    batch = collator(T5).prompts(pictures(2))
    prompt = embedded_tokenizer("t5")(PROMPT)["input_ids"]
    assert batch["input_ids"].tolist() == [[TOKEN_IDS[IMAGE]] * QUERIES + prompt] * 2


@both
def test_a_prompt_is_the_beginning_of_a_training_batch(name):
    images = [pictures(1)[0], Image.new("RGBA", (40, 30), "red"), Image.new("L", (64, 64), 7)]
    prompt, batch = collator(name).prompts(images), collator(name)([(image, "a b") for image in images])
    assert set(prompt) == {"pixel_values", "input_ids", "attention_mask"}
    assert torch.equal(prompt["pixel_values"], batch["pixel_values"])
    length = prompt["input_ids"].shape[1]
    assert torch.equal(prompt["input_ids"], batch["input_ids"][:, :length])
    assert torch.equal(prompt["attention_mask"], batch["attention_mask"][:, :length])
    assert prompt["attention_mask"].all()


@pytest.mark.slow
@both
def test_a_caption_is_the_likeliest_token_again_and_again(name):
    model, collate, images = seeing(name).eval(), collator(name), pictures()
    captions = write_captions(model, collate, images, max_length=6)
    assert len(set(captions)) > 1, "the image must reach the words"
    for image, caption in zip(images, captions, strict=True):
        batch = collate.prompts([image])
        said: list[int] = []
        with torch.no_grad():
            while len(said) < 6 and 1 not in said:
                if name == OPT:
                    ids = torch.cat([batch["input_ids"], torch.tensor([said], dtype=torch.long)], 1)
                    step = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                else:
                    step = {**batch, "decoder_input_ids": torch.tensor([[0, *said]])}
                step |= {"pixel_values": batch["pixel_values"]}
                said.append(int(model(**step, use_cache=False).logits[0, -1].argmax()))
        assert caption == collate.tokenizer.decode(said, skip_special_tokens=True).strip()
        assert len(said) <= 6


@pytest.mark.slow
@both
def test_captions_do_not_depend_on_how_images_are_batched(name):
    model, images = seeing(name), pictures()
    whole = write_captions(model, collator(name), images, max_length=6)
    assert whole == write_captions(model, collator(name), images, max_length=6, batch_size=2)
    assert whole[::-1] == write_captions(model, collator(name), images[::-1], max_length=6, batch_size=2)


def test_no_image_no_caption():
    assert write_captions(seeing(OPT), collator(OPT), []) == []


@both
@pytest.mark.parametrize("adapters", [False, True])
def test_the_model_is_left_as_it_came(name, adapters):
    model = build_model(config(name), "cpu")
    if adapters:
        model = add_lora(model, config(name, use_lora=True))
    next(m for n, m in model.named_modules() if n.endswith("qformer")).eval()
    before = {module: module.training for module in model.modules()}
    assert set(before.values()) == {False, True}
    write_captions(model, collator(name), pictures(1), max_length=2)
    assert {module: module.training for module in model.modules()} == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_is_restored_after_an_error():
    model = build_model(config(OPT), "cpu")
    with pytest.raises(AttributeError):
        write_captions(model, collator(OPT), ["no image"])
    assert all(module.training for module in model.modules())


@pytest.mark.slow
@both
def test_adapters_are_heard_and_can_be_switched_off(name):
    base, images = seeing(name), pictures()
    before = write_captions(base, collator(name), images, max_length=6)
    model = add_lora(base, config(name, use_lora=True, lora_dropout=0.5))
    assert write_captions(model, collator(name), images, max_length=6) == before  # lora_B starts at zero
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0.0, 1.0)
    assert write_captions(model, collator(name), images, max_length=6) != before
    with model.disable_adapter():
        assert write_captions(model, collator(name), images, max_length=6) == before


@both
def test_a_bf16_model_writes_captions_too(name):
    captions = write_captions(seeing(name).to(torch.bfloat16), collator(name), pictures(2), max_length=3)
    assert len(captions) == 2


def test_exact_is_exact():
    assert exact_share(["a b", "a c"], ["a b", "a b"]) == 0.5
    assert exact_share(["a b ", "A b"], ["a b", "a b"]) == 0.0
    with pytest.raises(ValueError, match="zip"):
        exact_share(["a"], ["a", "b"])


def test_images_of_a_data_set_are_written_and_come_with_their_captions(tmp_path):
    paths, captions = images_of("fluent_emoji_food", 3, tmp_path, tmp_path / "images")
    assert [path.name for path in paths] == [f"fluent_emoji_food-{i}.png" for i in range(3)]
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (64, 64)
    assert len(set(captions)) == 3 and all(captions)
    assert images_of("fluent_emoji_food", 3, tmp_path, tmp_path / "images") == (paths, captions)


def test_a_data_set_that_is_not_here_is_named(tmp_path):
    with pytest.raises(ConfigError, match="emojis"):
        images_of("emojis", 3, tmp_path, tmp_path / "images")
