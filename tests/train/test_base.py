"""The base that ships: it is what its card says, LoRA teaches it the food, and without the adapter nothing changed."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from labkit import assets
from labkit.cli import main
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.ledger.ledger import Ledger
from labkit.runs.runner import run
from labkit.train import pretrain, trained
from labkit.train.build import build_model
from labkit.train.captions import exact_share, write_captions

torch.set_num_threads(1)

FIGURES = json.loads((assets.BASE / "figures.json").read_text())
EXACT = FIGURES["exact_captions"]


@pytest.fixture(scope="module")
def base():
    """Model and collator, as anyone loads them; in fp32, as the figures were measured."""
    model = Blip2ForConditionalGeneration.from_pretrained(assets.BASE, dtype=torch.float32).eval()
    processor = Blip2Processor.from_pretrained(assets.BASE)
    return model, Blip2Family().collate(processor, model.config, 25)


@pytest.fixture(scope="module")
def renderings():
    return {part: pretrain.Renderings(f"fluent_emoji_{part}", 64) for part in ("rest", "food")}


@pytest.fixture(scope="module")
def food_run(tmp_path_factory):
    """The experiment food_lora, run once."""
    with pytest.MonkeyPatch.context() as patch:
        runs = tmp_path_factory.mktemp("food")
        patch.setenv("LABKIT_RUNS", str(runs))
        record = run("food_lora")
        yield record, Ledger(runs).find(record.id).path


def share(model, collate, images, captions) -> float:
    return exact_share(write_captions(model, collate, images, 25, 256), captions)


# -- the base as it ships


def test_every_file_has_the_checksum_it_shipped_with():
    lines = (assets.BASE / "SHA256SUMS").read_text().splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    assert set(sums) == {path.name for path in assets.BASE.iterdir()} - {"SHA256SUMS"}
    for name, expected in sums.items():
        assert hashlib.sha256((assets.BASE / name).read_bytes()).hexdigest() == expected, name


def test_no_file_is_larger_than_5_mb():
    assert max(path.stat().st_size for path in assets.BASE.iterdir()) < 5e6


def test_it_is_stored_in_16_bits_and_loads_in_them():
    model = Blip2ForConditionalGeneration.from_pretrained(assets.BASE)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert sum(p.numel() for p in model.parameters()) == FIGURES["parameters"]


@pytest.mark.slow
def test_it_names_what_it_was_trained_on(base, renderings):
    known = renderings["rest"]
    trained_on = pretrain.pictures(known.epoch(pretrain.CAPTION_EPOCHS - 1))
    found = share(*base, trained_on, known.captions)
    assert found >= 0.8
    assert found == pytest.approx(EXACT["trained_renderings"], abs=0.01)  # sums differ a little between machines


@pytest.mark.slow
def test_unseen_renderings_are_as_its_card_says(base, renderings):
    known = renderings["rest"]
    assert share(*base, known.images, known.captions) == pytest.approx(EXACT["unseen_renderings"], abs=0.01)


@pytest.mark.slow
def test_it_does_not_know_the_food(base, renderings):
    food = renderings["food"]
    found = share(*base, food.images, food.captions)
    assert found < 0.05
    assert found == pytest.approx(EXACT["unseen_subjects"], abs=0.01)


def test_the_card_has_the_figures_of_the_measurement():
    card = (assets.BASE / "README.md").read_text()
    for value in EXACT.values():
        assert f"{value:.1%}" in card


# -- what LoRA teaches it


@pytest.mark.slow
def test_lora_teaches_it_the_food_and_it_forgets_the_rest_meanwhile(food_run, base, renderings):
    record, folder = food_run
    assert record.status == "ok"
    model, _ = trained.load(RunConfig(**record.config), folder)
    food, known = renderings["food"], renderings["rest"]
    assert share(model, base[1], food.images, food.captions) > 0.9
    assert share(model, base[1], known.images, known.captions) < EXACT["unseen_renderings"] / 2


@pytest.mark.slow
def test_without_the_adapter_it_is_the_base_again_bit_by_bit(food_run, base, renderings):
    record, folder = food_run
    model, collate = base
    learnt, _ = trained.load(RunConfig(**record.config), folder)
    known, food = renderings["rest"], renderings["food"]
    images = known.images[::10] + food.images[::10]
    batch = collate([(image, caption) for image, caption in zip(food.images[:16], food.captions[:16], strict=True)])
    with torch.no_grad():
        plain = model(**batch).logits
        assert not torch.equal(learnt(**batch).logits, plain)
        with learnt.disable_adapter():
            assert torch.equal(learnt(**batch).logits, plain)
            again = write_captions(learnt, collate, images, 25, 256)
    assert again == write_captions(model, collate, images, 25, 256)


@pytest.mark.slow
def test_the_adapter_loads_with_plain_peft(food_run, renderings):
    record, folder = food_run
    base = Blip2ForConditionalGeneration.from_pretrained(assets.BASE, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, folder / "adapter").eval()
    ours, _ = trained.load(RunConfig(**record.config), folder)
    collate = Blip2Family().collate(Blip2Processor.from_pretrained(folder / "adapter"), base.config, 25)
    batch = collate([(renderings["food"].images[0], renderings["food"].captions[0])])
    with torch.no_grad():
        assert torch.equal(plain(**batch).logits, ours(**batch).logits)


PLAIN = """
import sys
import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

model = Blip2ForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
processor = Blip2Processor.from_pretrained(sys.argv[1])
inputs = processor(images=Image.open(sys.argv[2]), text="", return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=25, do_sample=False)
print(processor.batch_decode(ids, skip_special_tokens=True)[0].strip())
assert not [name for name in sys.modules if name.split(".")[0] in ("labkit", "peft")]
"""


@pytest.mark.slow
def test_the_merged_model_captions_in_a_process_without_labkit(food_run, renderings, tmp_path, capsys):
    record, _ = food_run
    food = renderings["food"]
    index = 0
    picture = tmp_path / "food.png"
    food.images[index].save(picture)
    assert main(["caption", record.id, str(picture), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["caption"] == food.captions[index]
    assert row["base_caption"] != row["caption"]
    assert main(["merge", record.id, str(tmp_path / "merged")]) == 0
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "merged"), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == food.captions[index]


@pytest.mark.slow
def test_a_run_of_4_bits_merges_onto_the_weights_in_full(ledger, base, tmp_path, capsys):
    record = run("food_lora", {"use_lora": "false", "use_qlora": "true", "max_steps": "2", "lora_targets": ""})
    assert record.status == "ok", record.reason
    assert main(["merge", record.id, str(tmp_path / "merged")]) == 0
    merged = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    plain = dict(base[0].named_parameters())
    changed = {name for name, p in merged.named_parameters() if not torch.equal(p, plain[name])}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in changed} == {"q_proj", "v_proj"}
    largest = max(float((p - plain[name]).detach().abs().max()) for name, p in merged.named_parameters())
    assert largest < 0.1  # weights that came through 4 bits would differ everywhere


# -- what cannot be done


@pytest.mark.slow
def test_a_picture_that_is_none_is_one_line(food_run, tmp_path, capsys):
    record, _ = food_run
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "missing.png"):
        assert main(["caption", record.id, str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {tmp_path / name} cannot be read as an image")
        assert error.count("\n") == 1


@pytest.mark.slow
def test_a_run_without_weights_says_how_to_keep_them(ledger, tmp_path, capsys):
    record = run("reduced_batch", {"max_steps": "1"})
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    for command in (["caption", record.id, str(tmp_path / "x.png")], ["merge", record.id, str(tmp_path / "merged")]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "save_model=true" in error
        assert error.count("\n") == 1


@pytest.mark.slow
def test_an_adapter_for_another_model_is_one_line_with_both(food_run, tmp_path, capsys):
    record, _ = food_run
    other = tmp_path / "other"
    name = "tiny/blip2-t5-small"
    build_model(RunConfig(model_name=name, weights="random", device="cuda"), "cpu").save_pretrained(other)
    Blip2Family().processor(architecture(name)).save_pretrained(other)
    assert main(["merge", record.id, str(tmp_path / "merged"), "--base", str(other)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(other) in error
    assert "tiny/blip2-opt-base" in error
    assert not (tmp_path / "merged").exists()
