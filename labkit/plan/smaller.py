"""Smaller: the next smaller known model."""

from labkit.config.architectures import ARCHITECTURES, Architecture, architecture
from labkit.config.schema import RunConfig


def smaller_model(config: RunConfig) -> str | None:
    """The next smaller known model of the same scale and language model, whose layers have the same names."""
    scale = config.model_name.partition("/")[0]
    if config.model_name not in ARCHITECTURES:
        return None
    here, language = rough_size(architecture(config.model_name)), architecture(config.model_name).language
    same = {name: arch for name, arch in ARCHITECTURES.items() if name.partition("/")[0] == scale}
    sizes = {name: rough_size(arch) for name, arch in same.items() if arch.language == language}
    sizes = {name: size for name, size in sizes.items() if size < here and "-base" not in name}
    return max(sizes, key=lambda name: sizes[name], default=None)


def rough_size(arch: Architecture) -> int:
    """Weights of the language model's layers and words; enough to tell which of two models is larger."""
    text = arch.text
    if arch.language == "opt":
        return text["num_hidden_layers"] * 12 * text["hidden_size"] ** 2 + text["vocab_size"] * text["hidden_size"]
    attention = 4 * text["d_model"] * text["num_heads"] * text["d_kv"]
    layer = 3 * attention + 6 * text["d_model"] * text["d_ff"]  # an encoder's and a decoder's
    return text["num_layers"] * layer + 2 * text["vocab_size"] * text["d_model"]
