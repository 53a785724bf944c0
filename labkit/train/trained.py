"""What a run has trained: written at its end, loaded again, and merged into one model."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import ProcessorMixin

from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.memory.units import human_bytes
from labkit.train.adapters import load_adapter, save_adapter
from labkit.train.build import build_model
from labkit.train.errors import CheckpointError
from labkit.train.kept import ADAPTER, MODEL, adapter_of, check_target, weights_of
from labkit.train.weights import load_model, load_processor


def save(
    model: nn.Module, processor: ProcessorMixin, config: RunConfig, folder: Path, rank: int = 0,
    whole: dict[str, torch.Tensor] | None = None,
) -> Path:  # fmt: skip
    """Write what was trained below a run's folder: an adapter in PEFT's format, or the whole model in transformers'.

    Both come with the processor. Of several ranks all must call it, since each may hold a part; the first writes.
    ``whole`` is what was trained, where the model has only a part of it and cannot put it together.
    Raises ``CheckpointError`` when the disk has no room for it.
    """
    adapted = config.use_lora or config.use_qlora
    target = folder / (ADAPTER if adapted else MODEL)
    with _whole_parameters(model, config):
        whole = _gathered(model) if config.placement.shards else whole
        if rank:
            return target
        needed_bytes = sum(p.nbytes for p in model.parameters() if p.requires_grad or not adapted)
        with _room_for(needed_bytes, target):
            if adapted:
                save_adapter(model, target, whole)
            else:
                model.save_pretrained(target, state_dict=whole)
            processor.save_pretrained(target)
    return target


def load(config: RunConfig, folder: Path, device: str = "cpu") -> tuple[nn.Module, ProcessorMixin]:
    """Model and processor of a run that is over, with what it has learnt, in eval mode.

    ``folder`` is the run's. An adapter is put onto the base it was trained on, in 4 bits if it was so. Raises
    ``CheckpointError`` when the run has kept nothing, or its base is not here any more.
    """
    config = dataclasses.replace(config, act_ckpt=False)
    weights = weights_of(folder)
    if weights.name == MODEL:
        model = load_model(config, weights, device)
        return model.eval(), load_processor(weights, model.config)
    model = build_model(config, device)
    adapted = load_adapter(model, weights, config.model_name)
    return adapted.eval(), load_processor(weights, model.config)


def merge(config: RunConfig, folder: Path, target: Path, base: str | None = None) -> Path:
    """Add a run's adapter to the weights of its base and write the sum as one model, which needs no PEFT.

    The base is loaded unquantized in the run's dtype, also for QLoRA: its 4-bit weights are an approximation of these.
    ``base`` names another folder or checkpoint of the same model. Raises ``CheckpointError`` for a run without an
    adapter, an adapter for another model, a target that exists and a disk without room.
    """
    adapter = adapter_of(folder)
    check_target(target)
    name = base or config.model_name
    architecture(name)  # says what there is, if there is no such model
    if config.use_qlora and config.weights == "random" and base is None:
        raise CheckpointError(f"the random base of {folder.name} exists in 4 bits only; --base names another one.")
    weights = "pretrained" if base else config.weights
    plain = dataclasses.replace(
        config, model_name=name, weights=weights, use_lora=False, use_qlora=False, act_ckpt=False,
        save_model=False,  # which does not go with every strategy where there is no adapter
        freeze_vision=False, freeze_connector=False, freeze_language=False,
    )  # fmt: skip
    model = build_model(plain, "cpu")
    merged = load_adapter(model, adapter, name).merge_and_unload()
    processor = load_processor(adapter, merged.config)
    with _room_for(sum(p.nbytes for p in merged.parameters()), target):
        merged.save_pretrained(target)
        processor.save_pretrained(target)
    return target


@contextlib.contextmanager
def _whole_parameters(model: nn.Module, config: RunConfig) -> Iterator[None]:
    """ZeRO's stage 3 has the parameters in pieces, which are put together while this lasts."""
    if config.placement.zero_stage != 3:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        yield


def _gathered(model: nn.Module) -> dict[str, torch.Tensor]:
    """FSDP has the parameters in pieces too; the first rank gets them all, in host memory."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    found = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in found:  # a weight of two names is one tensor again, and is written once
            found[name] = found[first.setdefault(id(parameter), name)]
    return found


@contextlib.contextmanager
def _room_for(needed_bytes: int, target: Path) -> Iterator[None]:
    """Say before anything is written that the disk has no room; leave nothing half written."""
    parent = next(folder for folder in target.absolute().parents if folder.is_dir())
    free_bytes = shutil.disk_usage(parent).free
    full = f"{target} needs {human_bytes(needed_bytes)} on disk, and {human_bytes(free_bytes)} are free there"
    if free_bytes < needed_bytes:
        raise CheckpointError(f"{full}; make room, or name a folder on another disk.")
    try:
        yield
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise CheckpointError(f"{target} cannot be written ({error.strerror or error}); {full}.") from error
