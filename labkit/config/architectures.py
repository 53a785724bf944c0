"""Architectures by name: the numbers that BLIP-2 is built from, without importing transformers.

Full sizes: the published ``config.json`` of each checkpoint. Tiny stand-ins: the same parts at about one thousandth
of the parameters, so that 2.7b, 6.7b and xxl (3.7, 7.8 and 12.2 billion) become 3.9, 7.8 and 12.3 million.
"""

from dataclasses import dataclass
from typing import Any, Literal

from labkit.config.errors import ConfigError, nearest


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
        "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4,
        "cross_attention_frequency": 2, "vocab_size": 1000,
    }  # fmt: skip
    return Architecture(name=name, language=language, vision=vision, qformer=qformer, text=text, num_query_tokens=8)


_ALL = (
    _full("Salesforce/blip2-opt-2.7b", "opt", _opt(2560, 32, 32, 50304)),
    _full("Salesforce/blip2-opt-6.7b", "opt", _opt(4096, 32, 32, 50304)),
    _full("Salesforce/blip2-flan-t5-xl", "t5", _t5(2048, 5120, 24, 32, 64, 32128)),
    _full("Salesforce/blip2-flan-t5-xxl", "t5", _t5(4096, 10240, 24, 64, 64, 32128)),
    _tiny("tiny/blip2-opt-small", "opt", _opt(304, 2, 4, 1000, 128)),
    _tiny("tiny/blip2-opt-medium", "opt", _opt(496, 2, 4, 1000, 128)),
    _tiny("tiny/blip2-t5-small", "t5", _t5(192, 512, 2, 4, 48, 1000)),
    _tiny("tiny/blip2-t5-large", "t5", _t5(432, 1080, 2, 4, 108, 1000)),
)
ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in _ALL}


def architecture(name: str) -> Architecture:
    """The architecture called ``name``; ``ConfigError`` with the nearest known name."""
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"model_name={name!r} is not a known model.{nearest(name, ARCHITECTURES)} "
            "'labkit configs --models' lists them."
        )
    return ARCHITECTURES[name]
