"""BLIP-2: the numbers its models are built from, without importing transformers.

Full sizes: the published ``config.json`` of each checkpoint. Tiny stand-ins: the same parts at about one thousandth
of the parameters, so that 2.7b, 6.7b and xxl (3.7, 7.8 and 12.2 billion) become 4.0, 8.1 and 12.0 million.
Stand-ins for smaller GPUs: full sizes with a share of the layers, such as ``quarter/blip2-opt-2.7b``.
Their layers have widths that are multiples of 64, as the real ones: NF4 quantizes in blocks of 64, and bitsandbytes
0.50 reads a layer of another width back wrongly on a CPU.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from labkit.config.catalogue.architecture import Architecture
from labkit.config.catalogue.model_json import numbers
from labkit.config.errors import ConfigError

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


@dataclass(frozen=True, kw_only=True)
class Blip2(Architecture):
    """One BLIP-2: a vision tower, a Q-Former and a language model (``opt``, decoder only, or ``t5``)."""

    title: ClassVar[str] = "BLIP-2"
    model_type: ClassVar[str] = "blip-2"
    prefix: ClassVar[str] = "blip2-"
    parts: ClassVar[dict[str, tuple[str, ...]]] = {
        "vision": ("vision_model",),
        "connector": ("qformer", "query_tokens", "language_projection"),
        "language": ("language_model",),
    }
    unquantized: ClassVar[tuple[str, ...]] = ("lm_head", "qformer", "query_tokens", "wo")
    """The output layer, the Q-Former, and ``wo`` of every T5 layer: what transformers leaves out too."""

    language: Literal["opt", "t5"]
    vision: dict[str, Any]
    qformer: dict[str, Any]
    text: dict[str, Any]
    num_query_tokens: int = 32

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """As OPT and T5 call them."""
        return ("q_proj", "v_proj") if self.language == "opt" else ("q", "v")

    @property
    def image_px(self) -> int:
        """Side of the square input image."""
        return self.vision["image_size"]

    @property
    def image_tokens(self) -> int:
        """One position a query of the Q-Former."""
        return self.num_query_tokens

    @property
    def positions(self) -> int | None:
        """OPT's position embeddings; T5's positions are relative."""
        return self.text.get("max_position_embeddings")

    @property
    def rough_size(self) -> int:
        """Weights of the language model's layers and words; enough to tell which of two models is larger."""
        text = self.text
        if self.language == "opt":
            return text["num_hidden_layers"] * 12 * text["hidden_size"] ** 2 + text["vocab_size"] * text["hidden_size"]
        attention = 4 * text["d_model"] * text["num_heads"] * text["d_kv"]
        layer = 3 * attention + 6 * text["d_model"] * text["d_ff"]  # an encoder's and a decoder's
        return text["num_layers"] * layer + 2 * text["vocab_size"] * text["d_model"]

    def with_fewer_layers(self, name: str, parts: int) -> "Blip2":
        """As wide, with one of ``parts`` of the layers of every part."""

        def cut(part: dict[str, Any]) -> dict[str, Any]:
            return {k: max(1, round(v / parts)) if k.endswith("_layers") or k == "num_layers" else v
                    for k, v in part.items()}  # fmt: skip

        return dataclasses.replace(
            self, name=name, vision=cut(self.vision), qformer=cut(self.qformer), text=cut(self.text)
        )

    @classmethod
    def from_json(cls, name: str, data: dict[str, Any], needed: str) -> "Blip2":
        """The BLIP-2 in the folder ``name``; its language model must be OPT or T5."""
        where = f"model_name={name!r}"
        parts = {key: data.get(f"{key}_config") or {} for key in ("vision", "qformer", "text")}
        for key, part in parts.items():
            if not isinstance(part, dict):
                raise ConfigError(f"{where}: its config.json has {key}_config={part!r}; {needed}.")
        language = parts["text"].get("model_type", "opt")
        if language not in _TEXT_DEFAULTS:
            raise ConfigError(f"{where}: its language model is {language!r}; labkit trains BLIP-2 with 'opt' or 't5'.")
        vision = numbers(where, "vision_config", parts["vision"], _VISION_DEFAULTS)
        text = numbers(where, "text_config", parts["text"], _TEXT_DEFAULTS[language])
        if language == "t5":
            # transformers writes tie_word_embeddings=true for every T5; the second key says what it means
            own_head = (
                parts["text"].get("scale_decoder_outputs", parts["text"].get("tie_word_embeddings", True)) is False
            )
            text["tie_word_embeddings"] = not own_head
        return cls(
            name=name, language=language, vision={"qkv_bias": True} | vision, text=text,
            qformer=numbers(where, "qformer_config", parts["qformer"], _QFORMER_DEFAULTS),
            num_query_tokens=numbers(where, "config", data, {"num_query_tokens": 32})["num_query_tokens"],
        )  # fmt: skip


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


def _full(name: str, language: Literal["opt", "t5"], text: dict[str, Any]) -> Blip2:
    vision = {  # EVA-CLIP g/14
        "hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 14, "qkv_bias": True,
    }  # fmt: skip
    qformer = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "cross_attention_frequency": 2, "vocab_size": 30523,
    }  # fmt: skip
    return Blip2(name=name, language=language, vision=vision, qformer=qformer, text=text)


def _tiny(name: str, language: Literal["opt", "t5"], text: dict[str, Any]) -> Blip2:
    vision = {
        "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 56, "patch_size": 14, "qkv_bias": True,
    }  # fmt: skip
    qformer = {
        "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "cross_attention_frequency": 2, "vocab_size": 1000,
    }  # fmt: skip
    return Blip2(name=name, language=language, vision=vision, qformer=qformer, text=text, num_query_tokens=8)


def _base(name: str) -> Blip2:
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
    return Blip2(
        name=name, language="opt", vision=vision, qformer=qformer, text=text, num_query_tokens=8, packaged=True
    )


PUBLISHED = (
    _full("Salesforce/blip2-opt-2.7b", "opt", _opt(2560, 32, 32, 50304)),
    _full("Salesforce/blip2-opt-6.7b", "opt", _opt(4096, 32, 32, 50304)),
    _full("Salesforce/blip2-flan-t5-xl", "t5", _t5(2048, 5120, 24, 32, 64, 32128)),
    _full("Salesforce/blip2-flan-t5-xxl", "t5", _t5(4096, 10240, 24, 64, 64, 32128)),
)
TINY = (
    _tiny("tiny/blip2-opt-small", "opt", _opt(320, 2, 4, 1000, 128)),
    _tiny("tiny/blip2-opt-medium", "opt", _opt(512, 2, 4, 1000, 128)),
    _tiny("tiny/blip2-t5-small", "t5", _t5(192, 512, 2, 4, 48, 1000)),
    _base("tiny/blip2-opt-base"),
    _tiny("tiny/blip2-t5-large", "t5", _t5(448, 960, 2, 4, 112, 1000)),
)
