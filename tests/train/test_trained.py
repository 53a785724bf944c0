"""What a run has trained: saved whole or not at all, loaded as it was, merged onto another base."""

import dataclasses
import shutil
from collections import namedtuple

import pytest
import torch
from peft import PeftModel
from tiny import OPT, T5, config_of, logits_of, plain
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from labkit.config.catalogue.models import architecture
from labkit.families.blip2.family import Blip2Family
from labkit.train import trained
from labkit.train.adapters import add_lora
from labkit.train.errors import CheckpointError

torch.set_num_threads(1)

both = pytest.mark.parametrize("name", [OPT, T5])
Usage = namedtuple("Usage", "total used free")


def processor_of(name):
    return Blip2Family().processor(architecture(name))


def saved_adapter(name, folder, **keys):
    """A run's folder with an adapter that does something, and the model it is on."""
    config = config_of(name, use_lora=True, **keys)
    model = add_lora(plain(name, use_lora=True, **keys), config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(0.0, 0.05)
    trained.save(model, processor_of(name), config, folder)
    return config, model.eval()


def line(call, *args, **keys) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args, **keys)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.slow
@both
def test_a_whole_model_comes_back_as_it_was(name, tmp_path):
    config, model = config_of(name), plain(name).eval()
    assert trained.save(model, processor_of(name), config, tmp_path) == tmp_path / "model"
    again, processor = trained.load(config, tmp_path)
    assert not again.training
    assert torch.equal(logits_of(name, again), logits_of(name, model))
    assert processor.tokenizer("cat")["input_ids"] == processor_of(name).tokenizer("cat")["input_ids"]


@pytest.mark.slow
@both
def test_an_adapter_comes_back_on_its_base(name, tmp_path):
    config, model = saved_adapter(name, tmp_path)
    again, _ = trained.load(config, tmp_path)
    assert isinstance(again, PeftModel)
    assert torch.equal(logits_of(name, again), logits_of(name, model))


@pytest.mark.slow
@both
def test_a_merged_model_gives_what_the_adapter_gave(name, tmp_path):
    config, model = saved_adapter(name, tmp_path)
    target = trained.merge(config, tmp_path, tmp_path / "merged")
    merged = Blip2ForConditionalGeneration.from_pretrained(target).eval()
    assert not [key for key in merged.state_dict() if "lora" in key]
    torch.testing.assert_close(logits_of(name, merged), logits_of(name, model), rtol=1e-4, atol=1e-4)
    with model.disable_adapter():
        assert not torch.allclose(logits_of(name, merged), logits_of(name, model), atol=1e-3)
    assert len(Blip2Processor.from_pretrained(target).tokenizer) == len(processor_of(name).tokenizer)


@pytest.mark.slow
def test_the_adapter_of_a_pipeline_is_merged_as_any_other(tmp_path):
    config, model = saved_adapter(OPT, tmp_path)
    config = dataclasses.replace(config, devices=2, strategy="pipeline", save_model=True)  # not without an adapter
    merged = Blip2ForConditionalGeneration.from_pretrained(trained.merge(config, tmp_path, tmp_path / "merged")).eval()
    torch.testing.assert_close(logits_of(OPT, merged), logits_of(OPT, model), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_adapter_merges_onto_a_base_that_lies_elsewhere(tmp_path):
    config, model = saved_adapter(OPT, tmp_path)
    base = tmp_path / "base"
    plain(OPT).save_pretrained(base)
    processor_of(OPT).save_pretrained(base)
    target = trained.merge(config, tmp_path, tmp_path / "merged", str(base))
    merged = Blip2ForConditionalGeneration.from_pretrained(target).eval()
    torch.testing.assert_close(logits_of(OPT, merged), logits_of(OPT, model), rtol=1e-4, atol=1e-4)


# -- what cannot be done


def test_a_folder_that_exists_is_never_written_over(tmp_path):
    config, _ = saved_adapter(OPT, tmp_path)
    (tmp_path / "merged").mkdir()
    assert f"{tmp_path / 'merged'} exists" in line(trained.merge, config, tmp_path, tmp_path / "merged")


def test_a_run_that_trained_all_weights_has_nothing_to_merge(tmp_path):
    config = config_of(OPT)
    trained.save(plain(OPT), processor_of(OPT), config, tmp_path)
    told = line(trained.merge, config, tmp_path, tmp_path / "merged")
    assert "whole model" in told
    assert str(tmp_path / "model") in told


@pytest.mark.parametrize("call", ["load", "merge"])
def test_a_run_that_kept_nothing_says_how_to_keep_it(call, tmp_path):
    more = (tmp_path / "merged",) if call == "merge" else ()
    assert "save_model=true" in line(getattr(trained, call), config_of(OPT, use_lora=True), tmp_path, *more)


def test_random_weights_that_exist_in_4_bits_only_ask_for_a_base(tmp_path):
    config, _ = saved_adapter(OPT, tmp_path)
    config = dataclasses.replace(config, use_lora=False, use_qlora=True)
    assert "--base" in line(trained.merge, config, tmp_path, tmp_path / "merged")


@pytest.mark.parametrize("what", ["model", "adapter", "merged"])
def test_a_disk_without_room_is_told_with_both_sizes_and_nothing_is_written(what, tmp_path, monkeypatch):
    config, model = saved_adapter(OPT, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 10**12 - 1000, 1000))
    match what:
        case "model":
            told = line(trained.save, plain(OPT), processor_of(OPT), config_of(OPT), tmp_path)
        case "adapter":
            told = line(trained.save, model, processor_of(OPT), config, tmp_path)
        case "merged":
            told = line(trained.merge, config, tmp_path, tmp_path / "merged")
    assert "1000 bytes are free" in told
    assert "MiB on disk" in told or "KiB on disk" in told
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(target, state_dict=None):
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    model = plain(OPT)
    monkeypatch.setattr(model, "save_pretrained", full)
    told = line(trained.save, model, processor_of(OPT), config_of(OPT), tmp_path)
    assert "No space left on device" in told
    assert not (tmp_path / "model").exists()
