"""Architectures by name: the numbers that BLIP-2 is built from, without importing transformers.

Full sizes: the published ``config.json`` of each checkpoint. Tiny stand-ins: the same parts at about one thousandth
of the parameters, so that 2.7b, 6.7b and xxl (3.7, 7.8 and 12.2 billion) become 4.0, 8.1 and 12.0 million.
Stand-ins for smaller GPUs: full sizes with a share of the layers, such as ``quarter/blip2-opt-2.7b``.
Their layers have widths that are multiples of 64, as the real ones: NF4 quantizes in blocks of 64, and bitsandbytes
0.50 reads a layer of another width back wrongly on a CPU.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labkit.config.errors import ConfigError, nearest
from labkit.config.regular_file import read_regular


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One BLIP-2: a vision tower, a Q-Former and a language model (``opt``, decoder only, or ``t5``)."""

    name: str
    language: Literal["opt", "t5"]
    vision: dict[str, Any]
    qformer: dict[str, Any]
    text: dict[str, Any]
    num_query_tokens: int = 32

    @property
    def image_px(self) -> int:
        """Side of the square input image."""
        return self.vision["image_size"]


def _opt(hidden: int, layers: int, heads: int, vocab: int, positions: int = 2048) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "word_embed_proj_dim": hidden, "ffn_dim": 4 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "vocab_size": vocab, "max_position_embeddings": positions,
    }  # fmt: skip


def _t5(hidden: int, feed_forward: int, layers: int, heads: int, head_size: int, vocab: int) -> dict[str, Any]:
    # flan-t5 is T5 v1.1: gated GELU, and an output layer of its own
    return {
        "d_model": hidden, "d_ff": feed_forward, "num_layers": layers, "num_decoder_layers": layers,
        "num_heads": heads, "d_kv": head_size, "vocab_size": vocab, "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }  # fmt: skip


def _full(name: str, language: Literal["opt", "t5"], text: dict[str, Any]) -> Architecture:
    vision = {  # EVA-CLIP g/14
        "hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 14, "qkv_bias": True,
    }  # fmt: skip
    qformer = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "cross_attention_frequency": 2, "vocab_size": 30523,
    }  # fmt: skip
    return Architecture(name=name, language=language, vision=vision, qformer=qformer, text=text)


def _tiny(name: str, language: Literal["opt", "t5"], text: dict[str, Any]) -> Architecture:
    vision = {
        "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 56, "patch_size": 14, "qkv_bias": True,
    }  # fmt: skip
    qformer = {
        "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "cross_attention_frequency": 2, "vocab_size": 1000,
    }  # fmt: skip
    return Architecture(name=name, language=language, vision=vision, qformer=qformer, text=text, num_query_tokens=8)


def _base(name: str) -> Architecture:
    """Small enough to ship, large enough to name most of 1,724 emoji; labkit.train.pretrain trains it."""
    vision = {
        "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": 64, "patch_size": 16, "qkv_bias": True,
    }  # fmt: skip
    qformer = {
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "cross_attention_frequency": 1, "vocab_size": 1000,
    }  # fmt: skip
    text = _opt(128, 2, 4, 1000, 64)
    # as its checkpoint has it: a prediction with the classes' own 0.1 keeps masks that no run has
    qformer |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text |= {"dropout": 0.0, "attention_dropout": 0.0}
    return Architecture(name=name, language="opt", vision=vision, qformer=qformer, text=text, num_query_tokens=8)


_ALL = (
    _full("Salesforce/blip2-opt-2.7b", "opt", _opt(2560, 32, 32, 50304)),
    _full("Salesforce/blip2-opt-6.7b", "opt", _opt(4096, 32, 32, 50304)),
    _full("Salesforce/blip2-flan-t5-xl", "t5", _t5(2048, 5120, 24, 32, 64, 32128)),
    _full("Salesforce/blip2-flan-t5-xxl", "t5", _t5(4096, 10240, 24, 64, 64, 32128)),
    _tiny("tiny/blip2-opt-small", "opt", _opt(320, 2, 4, 1000, 128)),
    _tiny("tiny/blip2-opt-medium", "opt", _opt(512, 2, 4, 1000, 128)),
    _tiny("tiny/blip2-t5-small", "t5", _t5(192, 512, 2, 4, 48, 1000)),
    _base("tiny/blip2-opt-base"),
    _tiny("tiny/blip2-t5-large", "t5", _t5(448, 960, 2, 4, 112, 1000)),
)
ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in _ALL}

SCALES = {"half": 2, "third": 3, "quarter": 4, "sixth": 6, "eighth": 8, "sixteenth": 16}
"""Shares of a full size's layers that a stand-in for a smaller GPU has; labkit.plan.tune picks one."""


def _fewer_layers(word: str, parts: int, full: Architecture) -> Architecture:
    """A full size with a share of its layers, as wide as they were: nearly that share of weights and activations."""

    def cut(part: dict[str, Any]) -> dict[str, Any]:
        return {k: max(1, round(v / parts)) if k.endswith("_layers") or k == "num_layers" else v
                for k, v in part.items()}  # fmt: skip

    return Architecture(
        name=f"{word}/{full.name.partition('/')[2]}", language=full.language, vision=cut(full.vision),
        qformer=cut(full.qformer), text=cut(full.text), num_query_tokens=full.num_query_tokens,
    )  # fmt: skip


STAND_INS: dict[str, Architecture] = {
    a.name: a
    for full in _ALL if full.name.startswith("Salesforce/")
    for a in (_fewer_layers(word, parts, full) for word, parts in SCALES.items())
}  # fmt: skip
"""Full sizes with fewer layers, for a real GPU that is smaller than the course's. They have no checkpoint."""


def architecture(name: str) -> Architecture:
    """The architecture called ``name``, or of the model in the folder ``name`` that ``save_pretrained`` wrote.

    Raises ``ConfigError`` with the nearest known name, or with what the folder lacks.
    """
    if name in ARCHITECTURES or name in STAND_INS:
        return ARCHITECTURES.get(name) or STAND_INS[name]
    if os.path.isdir(name):  # noqa: PTH112 - says no to a name that is too long, where Path raises
        return _from_folder(name)
    raise ConfigError(
        f"model_name={name!r} is not a model that labkit plans or trains, nor a folder.{nearest(name, ARCHITECTURES)} "
        "It knows BLIP-2 only; 'labkit configs --models' lists its sizes. For any other model of the hub "
        "'accelerate estimate-memory OWNER/MODEL' estimates weights, gradients and Adam's state."
    )


# What transformers takes where a config.json leaves a value out. None stands for the value of the key before it.
_VISION_DEFAULTS = {
    "hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14,
}  # fmt: skip
_QFORMER_DEFAULTS = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "cross_attention_frequency": 2, "vocab_size": 30522,
}  # fmt: skip
_TEXT_DEFAULTS = {
    "opt": {
        "hidden_size": 768, "word_embed_proj_dim": None, "ffn_dim": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "vocab_size": 50272, "max_position_embeddings": 2048,
    },
    "t5": {
        "d_model": 512, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": None, "num_heads": 8, "d_kv": 64,
        "vocab_size": 32128,
    },
}  # fmt: skip
_LONGEST_BYTES = 16 * 2**20
"""What a config.json may have; those with the names of 21,000 classes have about one MiB."""

_MOST_LAYERS, _MOST = 1000, 2**24
"""More than any model has, and few enough to be planned: layers are built one by one."""

_COUNTED = {"num_labels": 2**16, "extra_ids": 2**16}
"""Keys with which transformers makes a list of names, in a model's config or its tokenizer's."""

_MORE_KEYS = ("qkv_bias", "do_layer_norm_before", "activation_function", "enable_bias", "feed_forward_proj")
"""Keys that change what is built and have no number; taken when they are there."""

_RATES = ("dropout", "attention_dropout", "dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob")
"""Keys of dropout, by the names of all parts. A mask is memory, so a rate of 0 counts."""


def _from_folder(name: str) -> Architecture:
    where = f"model_name={name!r}"
    needed = "needed is a folder of a BLIP-2 that save_pretrained wrote"
    path = Path(name) / "config.json"
    try:
        data = json.loads(read_regular(path, _LONGEST_BYTES))
    except FileNotFoundError:
        raise ConfigError(f"{where} is a folder without a config.json; {needed}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: its config.json cannot be read ({error}); {needed}.") from None
    if (odd := odd_count(data)) is not None:
        raise ConfigError(f"{where}: its config.json has {odd}.")
    kind = data.get("model_type") if isinstance(data, dict) else None
    if kind != "blip-2":
        raise ConfigError(f"{where}: its config.json has model_type={kind!r}; {needed}, with model_type='blip-2'.")
    parts = {key: data.get(f"{key}_config") or {} for key in ("vision", "qformer", "text")}
    for key, part in parts.items():
        if not isinstance(part, dict):
            raise ConfigError(f"{where}: its config.json has {key}_config={part!r}; {needed}.")
    language = parts["text"].get("model_type", "opt")
    if language not in _TEXT_DEFAULTS:
        raise ConfigError(f"{where}: its language model is {language!r}; labkit trains BLIP-2 with 'opt' or 't5'.")
    vision = _numbers(where, "vision_config", parts["vision"], _VISION_DEFAULTS)
    text = _numbers(where, "text_config", parts["text"], _TEXT_DEFAULTS[language])
    if language == "t5":
        # transformers writes tie_word_embeddings=true for every T5; the second key says what it means
        own_head = parts["text"].get("scale_decoder_outputs", parts["text"].get("tie_word_embeddings", True)) is False
        text["tie_word_embeddings"] = not own_head
    return Architecture(
        name=name, language=language, vision={"qkv_bias": True} | vision, text=text,
        qformer=_numbers(where, "qformer_config", parts["qformer"], _QFORMER_DEFAULTS),
        num_query_tokens=_numbers(where, "config", data, {"num_query_tokens": 32})["num_query_tokens"],
    )  # fmt: skip


def odd_count(data: Any) -> str | None:
    """What is wrong with a number in a model's JSON, however deep, of which as many things are made when it is read."""
    pending = [data]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        for key, value in part.items() if isinstance(part, dict) else ():
            most = _MOST_LAYERS if key.endswith("layers") else _COUNTED.get(key)
            if most is not None and isinstance(value, int | float) and not (type(value) is int and value <= most):
                return f"{key}={value!r:.50}; it may be a whole number up to {most:,}"
            pending.append(value)
    return None


def _numbers(where: str, part: str, data: dict[str, Any], defaults: dict[str, int | None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, default in defaults.items():
        value = data.get(key)
        if value is None:
            value = next(reversed(found.values())) if default is None else default
        if isinstance(value, list) and value and len(set(map(str, value))) == 1:
            value = value[0]  # height and width
        most = _MOST_LAYERS if key.endswith("layers") else _MOST
        if type(value) is not int or not 1 <= value <= most:
            raise ConfigError(
                f"{where}: its config.json has {part}.{key}={value!r:.50}; a whole number from 1 to {most:,} is needed."
            )
        found[key] = value
    rates = {key: data[key] for key in _RATES if data.get(key) is not None}
    for key, rate in rates.items():
        if type(rate) not in (int, float) or not 0 <= rate < 1:
            raise ConfigError(
                f"{where}: its config.json has {part}.{key}={rate!r:.50}; a number from 0 to below 1 is needed."
            )
    return found | rates | {key: data[key] for key in _MORE_KEYS if data.get(key) is not None}
