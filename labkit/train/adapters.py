"""Adapters: LoRA on the layers that fit the backbone and its parts.

PEFT brings bitsandbytes, and that torch's compiler: two seconds, which only a run with adapters waits for.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from labkit.config.errors import ConfigError, nearest
from labkit.config.regular_file import read_regular
from labkit.config.schema import RunConfig
from labkit.memory.exhaustion import is_exhausted
from labkit.train.errors import CheckpointError
from labkit.train.model_files import LONGEST_BYTES, check_files

if TYPE_CHECKING:
    from peft import PeftModel

_WEIGHTS, _SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
"""What PEFT puts in front of the names of the layers it adapts."""


def add_lora(model: PreTrainedModel, config: RunConfig) -> "PeftModel":
    """The model with LoRA adapters; the base is frozen, the adapters alone are trained.

    Without ``lora_targets`` the query and value projections of the language model are adapted. Named targets are
    looked for in every part that is not frozen. Raises ``ConfigError`` for a name that no layer has.
    """
    from peft import LoraConfig, get_peft_model

    parts = config.architecture.parts
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    if config.lora_targets is None:
        wanted, where = config.architecture.lora_targets, tuple(f"{name}." for name in parts["language"])
    else:
        wanted = config.lora_targets
        where = tuple(prefix for names in parts.values() for prefix in names if prefix not in config.frozen)
    known = sorted({name.rpartition(".")[2] for name in layers if name.startswith(where)})
    for target in wanted:
        if target not in known:
            raise ConfigError(
                f"lora_targets={target!r} names no layer of {config.model_name} that is not frozen."
                f"{nearest(target, known)} Its layers: {', '.join(known)}."
            )
    targets = [name for name in layers if name.startswith(where) and name.rpartition(".")[2] in wanted]
    lora = LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout, target_modules=targets
    )
    adapted = get_peft_model(model, lora)
    # PEFT notes the folder that the weights came from, for a hub model one in this machine's cache
    adapted.peft_config["default"].base_model_name_or_path = config.model_name
    return adapted


def save_adapter(model: "PeftModel", folder: Path, whole: dict[str, torch.Tensor] | None = None) -> None:
    """Write the adapter alone, in PEFT's format: ``PeftModel.from_pretrained(base, folder)`` loads it.

    ``whole`` has the weights where the model's own are in pieces.
    """
    # 'auto' would look on the hub whether the vocabulary has changed
    model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=whole)


def load_adapter(model: PreTrainedModel, folder: Path, base_name: str) -> "PeftModel":
    """``model`` with the adapter in ``folder``, whose every layer it must have.

    Raises ``CheckpointError`` for an adapter that is damaged, or was trained on another model than ``base_name``.
    """
    from peft import PeftModel, get_peft_model_state_dict

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    settings, shapes = _read_adapter(folder)
    trained_on = settings.get("base_model_name_or_path") or "another model"
    for name, (rows, columns) in shapes.items():
        layer, _, side = name.removeprefix(_PREFIX).rpartition(".lora_")
        found = layers.get(layer)
        if side[:1] not in ("A", "B"):
            raise CheckpointError(
                f"the adapter in {folder} adapts {layer}, which is not a linear layer; labkit's never do."
            )
        fits = found is not None and {"A": found.in_features == columns, "B": found.out_features == rows}[side[0]]
        if not fits:
            has = f"one of {found.in_features} to {found.out_features}" if found is not None else "none"
            raise CheckpointError(
                f"the adapter in {folder} does not fit {base_name}: it was trained on {trained_on} and adapts "
                f"{layer} (lora_{side[0]} {rows} x {columns}), of which {base_name} has {has}; give the base it was "
                "trained on."
            )
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError) as error:  # another rank than its settings say, say
        if is_exhausted(error):
            raise
        raise CheckpointError(f"the adapter in {folder} does not load ({_line(error)}); train it again.") from error
    lacking = sorted(set(get_peft_model_state_dict(adapted, save_embedding_layers=False)) - set(shapes))
    if lacking:  # PEFT warns, and takes what it would begin to train with
        raise CheckpointError(f"the adapter in {folder} has no weights for {lacking[0]}; train it again.")
    return adapted


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    for name in (_SETTINGS, _WEIGHTS):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} has no {name} and so no adapter; train it again with save_model=true.")
    check_files(folder)
    try:
        settings = json.loads(read_regular(folder / _SETTINGS, LONGEST_BYTES))
        if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
            raise ValueError(f"{_SETTINGS} is not LoRA's")
        if settings.get("megatron_config"):  # with which PEFT imports the module that another setting names
            raise ValueError(f"{_SETTINGS} has megatron_config, which has a module imported; labkit's never do")
        with safe_open(str(folder / _WEIGHTS), "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys() if ".lora_" in name}  # noqa: SIM118
    except RecursionError:
        raise CheckpointError(
            f"the adapter in {folder} is damaged ({_SETTINGS} nests too deep); train it again."
        ) from None
    except (ValueError, OSError, SafetensorError) as error:
        raise CheckpointError(f"the adapter in {folder} is damaged ({error}); train it again.") from error
    return settings, shapes
