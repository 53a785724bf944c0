"""Checkpoint folders for tests: tiny ones as save_pretrained writes them, and one of a wanted size."""

import json
import math

import torch
from transformers import Blip2ForConditionalGeneration

from labkit.config.catalogue.blip2 import Blip2
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.train.build import build_model

NAMES = {"opt": "tiny/blip2-opt-small", "t5": "tiny/blip2-t5-small"}


def save_tiny(folder, language, max_shard_size="50GB", dtype=torch.float32):
    """A tiny model and its processor, saved; the model in eval mode."""
    name = NAMES[language]
    model = build_model(RunConfig(model_name=name, weights="random", capacity_gib=1), "cpu").to(dtype).eval()
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    Blip2Family().processor(architecture(name)).save_pretrained(folder)
    return model


def write_large(folder, file_dtype, total_bytes, shards):
    """A BLIP-2 of about ``total_bytes`` on disk, without ever having it in memory; its number of parameters."""
    vision = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6, "num_attention_heads": 16,
        "image_size": 56, "patch_size": 14, "qkv_bias": True,
    }  # fmt: skip
    qformer = architecture(NAMES["opt"]).qformer
    text = {
        "hidden_size": 2048, "word_embed_proj_dim": 2048, "ffn_dim": 8192, "num_attention_heads": 16,
        "vocab_size": 20000, "max_position_embeddings": 128,
    }  # fmt: skip
    per_layer = 12 * 2048**2
    rest = 6 * 12 * 1024**2 + 20000 * 2048
    layers = round((total_bytes / file_dtype.itemsize - rest) / per_layer)
    arch = Blip2(
        name="large", language="opt", vision=vision, qformer=qformer, text=text | {"num_hidden_layers": layers},
        num_query_tokens=8,
    )  # fmt: skip
    config = Blip2Family().config(arch)
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config)
    folder.mkdir()
    config.save_pretrained(folder)
    Blip2Family().processor(arch).save_pretrained(folder)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    noise = (torch.randn(2**20) * 0.02).to(file_dtype).view(torch.uint8).numpy().tobytes()
    names = list(shapes)
    size = -(-len(names) // shards)
    files = {}
    for i in range(shards):
        part = names[i * size : (i + 1) * size]
        file = "model.safetensors" if shards == 1 else f"model-{i + 1:05}-of-{shards:05}.safetensors"
        files |= dict.fromkeys(part, file)
        write_safetensors(folder / file, {name: shapes[name] for name in part}, file_dtype, noise)
    if shards > 1:
        index = {"metadata": {}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(math.prod(shape) for shape in shapes.values())


def write_safetensors(path, shapes, dtype, noise):
    """A safetensors file whose tensors are all cut from ``noise``, over and over."""
    word = {torch.float32: "F32", torch.bfloat16: "BF16"}[dtype]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": word, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for left in range(end, 0, -len(noise)):
            file.write(noise[:left])
