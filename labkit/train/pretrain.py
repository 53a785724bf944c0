"""Make the base model that ships with labkit: a tiny one, trained on every emoji except the food.

    python -m labkit.train.pretrain

First the vision tower learns to tell the images apart, with a linear head over their names that is then thrown away;
after that the whole model learns to write the captions. Without the first step it learns the language of the captions
long before it looks at an image. Each epoch shows every image in a new rendering: turned, shifted, scaled, lighter or
darker. The images as they are in the data set are never shown; they are the unseen renderings it is tested with.
"""

import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from labkit import assets
from labkit.config.catalogue.models import ARCHITECTURES
from labkit.config.schema import RunConfig
from labkit.families.known import family_of
from labkit.train.build import build_model
from labkit.train.captions import exact_share, write_captions
from labkit.train.data import packaged
from labkit.train.step import step_loss

BASE = next(arch for arch in ARCHITECTURES.values() if arch.packaged)
SEED = 42
VISION_EPOCHS, CAPTION_EPOCHS = 45, 130
VISION_BATCH, CAPTION_BATCH = 128, 64
VISION_LR, CAPTION_LR = 2e-3, 2e-3
VISION_SHARE = 0.3
"""Learning rate of the vision tower against the rest, once it has learnt to tell the images apart."""
WEIGHT_STD, PROJECTION_STD = 0.05, 0.1
"""Standard deviations of the first weights; with the 0.02 of larger models a small one does not get off the ground."""

TURN_RAD, SCALE, SHIFT, LIGHT = 0.26, 0.15, 0.12, 0.1
"""Renderings: turned by up to 15 degrees, scaled by up to 15%, shifted by up to 6% of the side, 10% of brightness."""


class Renderings:
    """Images of a data set as one tensor (images, 3, px, px), values from 0 to 1, and their captions."""

    def __init__(self, dataset: str, px: int) -> None:
        rows = list(packaged(dataset))
        self.images = [image.resize((px, px)) for image, _ in rows]
        self.captions = [caption for _, caption in rows]
        self.pixels = torch.stack([_pixels(image) for image in self.images])

    def epoch(self, number: int) -> torch.Tensor:
        """Every image, rendered again; the same number gives the same renderings. Shape as ``pixels``."""
        generator = torch.Generator().manual_seed(SEED * 1000 + number)
        turn, scale, right, down, light = (
            width * (2 * torch.rand(len(self.pixels), generator=generator) - 1)
            for width in (TURN_RAD, SCALE, SHIFT, SHIFT, LIGHT)
        )
        cosine, sine = (1 + scale) * turn.cos(), (1 + scale) * turn.sin()
        rows = [torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, down], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), list(self.pixels.shape), align_corners=False)
        # what comes in from outside is 0, so the images are turned as negatives: their ground is white
        moved = 1 - F.grid_sample(1 - self.pixels, grid, align_corners=False)
        return (moved * (1 + light).view(-1, 1, 1, 1)).clamp(0, 1)


def _pixels(image: Image.Image) -> torch.Tensor:
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, 3).permute(2, 0, 1) / 255


def pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """Images of (images, 3, px, px) values from 0 to 1."""
    bytes_ = (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return [Image.fromarray(picture.numpy()) for picture in bytes_]


def first_model() -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model before it has seen anything."""
    model = build_model(RunConfig(model_name=BASE.name, weights="random", dropout=0.0, seed=SEED, device="cuda"), "cpu")
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and name != "query_tokens":
                std = PROJECTION_STD if name.startswith("language_projection") else WEIGHT_STD
                parameter.normal_(0.0, std, generator=generator)
    return model, family_of(BASE).processor(BASE)


def _batches(
    renderings: Renderings, processor: ProcessorMixin, epochs: int, size: int
) -> Iterator[tuple[float, torch.Tensor, torch.Tensor]]:
    """(share of the work that is done, indices, normalized pixels) of one batch after the other."""
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    generator = torch.Generator().manual_seed(SEED)
    steps = len(renderings.pixels) // size
    for epoch in range(epochs):
        pixels = renderings.epoch(epoch)
        order = torch.randperm(len(pixels), generator=generator)
        for step in range(steps):
            chosen = order[step * size : (step + 1) * size]
            yield (epoch * steps + step) / (epochs * steps), chosen, (pixels[chosen] - mean) / std


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, lr: float, done: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["share"] * min(1.0, done * 50 + 0.02) * 0.5 * (1 + math.cos(math.pi * done))
    loss.backward()
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad()


def train_vision(model: PreTrainedModel, renderings: Renderings, processor: ProcessorMixin) -> None:
    """Let the vision tower name the images, as one class a caption."""
    names = sorted(set(renderings.captions))
    labels = torch.tensor([names.index(caption) for caption in renderings.captions])
    torch.manual_seed(SEED)
    head = nn.Linear(model.config.vision_config.hidden_size, len(names))
    parameters = [*model.vision_model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW([{"params": parameters, "share": 1.0}], weight_decay=0.02)
    right = seen = 0
    for step, (done, chosen, pixels) in enumerate(_batches(renderings, processor, VISION_EPOCHS, VISION_BATCH), 1):
        scores = head(model.vision_model(pixel_values=pixels).last_hidden_state.mean(1))
        _step(optimizer, F.cross_entropy(scores, labels[chosen], label_smoothing=0.05), VISION_LR, done)
        right, seen = right + int((scores.argmax(1) == labels[chosen]).sum()), seen + len(chosen)
        if step % 50 == 0:
            print(f"vision step {step}, {done:.0%}: {right / seen:.1%} named right", flush=True)
            right = seen = 0


def train_captions(model: PreTrainedModel, renderings: Renderings, processor: ProcessorMixin) -> None:
    """Let the whole model write the captions."""
    collate = family_of(model.config).collate(processor, model.config, longest(processor, renderings.captions))
    text = collate([(Image.new("RGB", (1, 1)), caption) for caption in renderings.captions])
    vision = list(model.vision_model.parameters())
    rest = [p for name, p in model.named_parameters() if not name.startswith("vision_model")]
    groups = [{"params": vision, "share": VISION_SHARE}, {"params": rest, "share": 1.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    for step, (done, chosen, pixels) in enumerate(_batches(renderings, processor, CAPTION_EPOCHS, CAPTION_BATCH), 1):
        batch = {key: text[key][chosen] for key in ("input_ids", "attention_mask", "labels")}
        used = int(batch["attention_mask"].sum(1).max())  # padding costs as much as text
        loss, _ = step_loss(model, {"pixel_values": pixels} | {key: value[:, :used] for key, value in batch.items()})
        _step(optimizer, loss, CAPTION_LR, done)
        if step % 100 == 0:
            print(f"caption step {step}, {done:.0%}: loss {float(loss.detach()):.4f}", flush=True)


def longest(processor: ProcessorMixin, captions: list[str]) -> int:
    """Tokens of the longest caption with its start and end mark."""
    return max(len(ids) for ids in processor.tokenizer(captions)["input_ids"]) + 1


def measure(folder: Path) -> dict[str, float]:
    """Shares of exact captions by the model in ``folder``, loaded with plain transformers in fp32.

    ``trained_renderings`` it was trained on; ``unseen_renderings`` are the same subjects as the data set has them,
    ``unseen_mirrored`` these from right to left; ``unseen_subjects`` are the food.
    """
    model = family_of(BASE).model_class.from_pretrained(folder, dtype=torch.float32)
    processor = family_of(BASE).processor_class.from_pretrained(folder)
    known, food = (Renderings(f"fluent_emoji_{part}", BASE.image_px) for part in ("rest", "food"))
    length = longest(processor, known.captions + food.captions)
    collate = family_of(model.config).collate(processor, model.config, length)

    def share(images: list[Image.Image], captions: list[str]) -> float:
        return round(exact_share(write_captions(model, collate, images, length, 256), captions), 4)

    return {
        "trained_renderings": share(pictures(known.epoch(CAPTION_EPOCHS - 1)), known.captions),
        "unseen_renderings": share(known.images, known.captions),
        "unseen_mirrored": share([ImageOps.mirror(image) for image in known.images], known.captions),
        "unseen_subjects": share(food.images, food.captions),
    }


def main() -> None:
    """Train, write ``labkit/assets/base``, measure what was written, and say so in its card."""
    torch.set_num_threads(1)  # sums in one order, so that one machine makes the same model again
    started = time.process_time()
    model, processor = first_model()
    renderings = Renderings("fluent_emoji_rest", BASE.image_px)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(renderings.captions)} images", flush=True)
    train_vision(model, renderings, processor)
    train_captions(model, renderings, processor)
    minutes = round((time.process_time() - started) / 60, 1)
    folder = assets.BASE
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    figures = {
        "exact_captions": measure(folder),
        "images": len(renderings.captions),
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_cpu_minutes": minutes,
        "machine": f"1 thread of {_cpu()}",
        "versions": {"python": platform.python_version()} | {n: version(n) for n in ("torch", "transformers")},
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(figures), encoding="utf-8")
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(json.dumps(figures, indent=1))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _card(figures: dict) -> str:
    exact = {name: f"{share:.1%}" for name, share in figures["exact_captions"].items()}
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    return f"""# {BASE.name}

A {BASE.title} of {figures["parameters"]:,} parameters that says what emoji it sees: "a 3d render of red apple". It was
trained on the {figures["images"]:,} Fluent emoji of labkit that are not food. `python -m labkit.train.pretrain` made
it, and wrote this card.

| exact captions, greedy, of | share |
|---|---|
| renderings it was trained on (turned, shifted, scaled, lighter or darker) | {exact["trained_renderings"]} |
| the same subjects as the data set has them, never shown | {exact["unseen_renderings"]} |
| these, mirrored | {exact["unseen_mirrored"]} |
| subjects never shown (food) | {exact["unseen_subjects"]} |

Measured in fp32 on the file as it is here (bf16), after {figures["training_cpu_minutes"]} CPU minutes of training on
{figures["machine"]}; {versions}.

The images are Microsoft's Fluent Emoji, with names from unicode-emoji-json, both under the MIT licence (`../NOTICE`).
It has learnt names by heart and knows no others. It is made to be fine-tuned in lessons and is of no other use.
"""


if __name__ == "__main__":
    main()
