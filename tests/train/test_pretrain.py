"""The script that makes the base: its renderings, and a short run of all its parts on a few images."""

import hashlib
import json

import pytest
import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration

from labkit import assets
from labkit.train import pretrain

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def food():
    return pretrain.Renderings("fluent_emoji_food", 64)


def test_an_epoch_is_the_same_again_and_no_other_is_nor_are_the_images(food):
    first = food.epoch(3)
    assert first.shape == food.pixels.shape == (128, 3, 64, 64)
    assert torch.equal(first, food.epoch(3))
    assert float((first - food.epoch(4)).abs().amax((1, 2, 3)).min()) > 0.05
    assert float((first - food.pixels).abs().amax((1, 2, 3)).min()) > 0.05
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


def test_what_comes_in_from_outside_is_white():
    white = pretrain.Renderings("fluent_emoji_food", 64)
    white.pixels = torch.ones_like(white.pixels)
    assert float(white.epoch(0).amin()) >= 1 - pretrain.LIGHT - 1e-6
    corners = white.epoch(0)[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float((corners - corners[:, :, :1]).abs().max()) < 1e-6


def test_pictures_and_pixels_are_each_others_way_back(food):
    picture = pretrain.pictures(food.pixels[:1])[0]
    assert picture.tobytes() == food.images[0].tobytes()
    assert isinstance(picture, Image.Image)


@pytest.mark.slow
def test_the_script_trains_writes_and_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain, "VISION_EPOCHS", 2)
    monkeypatch.setattr(pretrain, "CAPTION_EPOCHS", 2)
    monkeypatch.setattr(pretrain, "CAPTION_BATCH", 32)
    monkeypatch.setattr(assets, "BASE", tmp_path / "base")
    whole = pretrain.Renderings
    monkeypatch.setattr(pretrain, "Renderings", lambda dataset, px: whole("fluent_emoji_food", px))
    before, _ = pretrain.first_model()
    pretrain.main()
    figures = json.loads((tmp_path / "base" / "figures.json").read_text())
    assert set(figures["exact_captions"]) == {
        "trained_renderings", "unseen_renderings", "unseen_mirrored", "unseen_subjects",
    }  # fmt: skip
    after = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=torch.float32)
    assert figures["parameters"] == sum(p.numel() for p in after.parameters())
    changed = [n for (n, p), q in zip(before.named_parameters(), after.parameters(), strict=True) if not p.equal(q)]
    assert {name.split(".")[0] for name in changed} == {
        "query_tokens", "vision_model", "qformer", "language_projection", "language_model",
    }  # fmt: skip
    for entry in (tmp_path / "base" / "SHA256SUMS").read_text().splitlines():
        digest, name = entry.split("  ")
        assert hashlib.sha256((tmp_path / "base" / name).read_bytes()).hexdigest() == digest
    assert "is of no other use" in (tmp_path / "base" / "README.md").read_text()
    assert '"unseen_subjects"' in capsys.readouterr().out
