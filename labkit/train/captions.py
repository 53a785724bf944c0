"""Captions: let a model say what it sees, greedily."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from labkit.config.schema import RunConfig
from labkit.families.batch import Collate
from labkit.families.known import family_of
from labkit.train.attention import kernels
from labkit.train.data import load_samples
from labkit.train.images import open_image
from labkit.train.trained import load


@torch.no_grad()
def write_captions(
    model: torch.nn.Module, collate: Collate, images: Sequence[Image.Image], max_length: int = 50,
    batch_size: int = 64, cudnn_attention: bool = False,
) -> list[str]:  # fmt: skip
    """The caption of each image, of at most ``max_length`` new tokens: always the likeliest one next.

    ``model`` is of any family, or a ``PeftModel`` around one. It runs in eval mode and is left in the mode it came in.
    """
    modes = {module: module.training for module in model.modules()}
    parameter = next(model.parameters())
    model.eval()
    captions: list[str] = []
    try:
        for start in range(0, len(images), batch_size):
            batch = collate.prompts(images[start : start + batch_size])
            batch = {name: tensor.to(parameter.device) for name, tensor in batch.items()}
            batch["pixel_values"] = batch["pixel_values"].to(parameter.dtype)
            with kernels(cudnn_attention):
                ids = model.generate(**batch, max_new_tokens=max_length, do_sample=False, num_beams=1)
            prompt = batch["input_ids"]
            # releases differ in whether they give the prompt back
            if torch.equal(ids[:, : prompt.shape[1]], prompt):
                ids = ids[:, prompt.shape[1] :]
            captions += [text.strip() for text in collate.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    finally:
        # part by part, since one of them alone may be in eval mode
        for module, training in modes.items():
            module.training = training
    return captions


def exact_share(captions: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of the captions that are the wanted ones, letter by letter."""
    return sum(found == right for found, right in zip(captions, wanted, strict=True)) / len(wanted)


def captions_of_run(config: RunConfig, folder: Path, images: Sequence[Path]) -> list[dict[str, str]]:
    """Captions of image files by the model that a run has trained; ``folder`` is the run's.

    Each row has ``image`` and ``caption``, and for a run with adapters ``base_caption``, the base's own. Raises
    ``DataError`` for a file that is not an image, ``CheckpointError`` for a run that has kept no weights.
    """
    opened = [open_image(path) for path in images]
    model, processor = load(config, folder)
    collate = family_of(model.config).collate(processor, model.config, config.max_length)
    limits = {"max_length": config.max_length, "cudnn_attention": config.cudnn_attention}
    captions = write_captions(model, collate, opened, **limits)
    rows = [{"image": str(path), "caption": caption} for path, caption in zip(images, captions, strict=True)]
    if config.use_lora or config.use_qlora:
        with model.disable_adapter():
            for row, caption in zip(rows, write_captions(model, collate, opened, **limits), strict=True):
                row["base_caption"] = caption
    return rows


def images_of(dataset: str, count: int, data_folder: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """The first images of a data set in the order of a seed, written below ``folder``, and their own captions.

    Raises ``ConfigError`` for an unknown data set and ``DataError`` for one that cannot be read.
    """
    config = RunConfig(dataset=dataset, num_train_samples=count, batch_size=1, device="cuda")
    samples, _ = load_samples(config, data_folder)
    paths, captions = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(len(samples)):
        image, caption = samples[index]
        path = folder / f"{Path(dataset).name}-{index}.png"
        image.save(path)
        paths.append(path)
        captions.append(caption)
    return paths, captions
