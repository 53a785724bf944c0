"""Weights: find a model's, check them, and load model and processor from them, each byte once."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from labkit import assets
from labkit.borrowed.transformers import conversion_errors
from labkit.config.catalogue.models import ARCHITECTURES, FAMILIES, is_tiny
from labkit.config.schema import RunConfig
from labkit.families.family import AnyFamily
from labkit.families.known import family_of
from labkit.memory.exhaustion import is_exhausted
from labkit.train.errors import CheckpointError
from labkit.train.model_files import check_files, line, read_json, remedy, shards, verify
from labkit.train.models import dtype_of
from labkit.train.shards import stored_tensors

__all__ = ["CheckpointError", "find_weights", "load_model", "load_processor", "verify"]


def find_weights(model_name: str) -> Path:
    """The folder of a model's checkpoint: the packaged one, a folder, or a snapshot in the Hugging Face cache.

    Downloads nothing. ``HF_HUB_CACHE`` and ``HF_HOME`` say where the cache is. Raises ``CheckpointError`` for a model
    that is not there, with the command that brings it, and for a stand-in, which has none.
    """
    if model_name in ARCHITECTURES and ARCHITECTURES[model_name].packaged:
        return assets.BASE
    if is_tiny(model_name):
        raise CheckpointError(f"{model_name} is a stand-in and has no checkpoint; set weights=random.")
    if os.path.isdir(model_name):  # noqa: PTH112 - says no to a name that is too long, where Path raises
        return Path(model_name)
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(model_name, "config.json", revision="main")
    if not isinstance(found, str):
        raise CheckpointError(
            f"{model_name} is not in the cache {constants.HF_HUB_CACHE}; 'labkit fetch {model_name}' brings it, "
            "or set weights=random."
        )
    return Path(found).parent


def load_model(config: RunConfig, folder: Path, device: str | torch.device) -> PreTrainedModel:
    """The model in ``folder``, verified, straight in the run's dtype on ``device`` and in nothing else.

    With ``use_qlora`` the linear layers are quantized to 4 bits one by one as they are read. Host memory beyond the
    model is one small buffer. Raises ``CheckpointError`` for a checkpoint that is damaged, or whose weights are not
    the model's. Freezing, train mode and activation checkpointing are the caller's.
    """
    verify(folder)
    dtype, device = dtype_of(config.precision), torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    stored = {}
    for name in shards(folder):
        stored |= stored_tensors(folder / name, dtype, device)
    family = _family_in(folder)
    model_config = family.model_class.config_class.from_pretrained(folder, local_files_only=True)
    if config.dropout is not None:
        family.set_dropout(model_config, config.dropout)
    own_head = family.own_head(model_config)
    if own_head is not None and own_head not in stored:
        # transformers would take the embedding in its place silently
        raise CheckpointError(f"{folder} has no weights for {own_head}; {remedy(folder)}.")
    options = {}
    if (folder / "generation_config.json").is_file():
        options["generation_config"] = GenerationConfig.from_pretrained(folder)
    if config.use_qlora:
        options["quantization_config"] = _four_bits(config, model_config.model_type)
    if config.use_qlora or device.type != "cpu":
        options["device_map"] = {"": device}
    try:
        with _one_tensor_at_a_time():
            model, report = family.model_class.from_pretrained(
                None, config=model_config, state_dict=stored, dtype=dtype, ignore_mismatched_sizes=True,
                output_loading_info=True, **options,
            )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        if is_exhausted(error):  # says nothing about the checkpoint
            raise
        raise CheckpointError(f"{folder} does not load: {line(error)}; {remedy(folder)}.") from error
    if report["mismatched_keys"]:
        name, there, wanted = min(report["mismatched_keys"])
        raise CheckpointError(
            f"{folder}: {name} has the shape {list(there)} where its config.json asks for {list(wanted)}; "
            f"weights and config are of two models. {remedy(folder).capitalize()}."
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise CheckpointError(f"{folder} has no weights for {missing[0]}{more}; {remedy(folder)}.")
    for parameter in model.parameters():
        # transformers keeps some layers in fp32 when the run is in fp16
        if parameter.is_floating_point() and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    if own_head is not None:
        family.untie_head(model)
    model.config.name_or_path = str(folder)
    return model


def load_processor(folder: Path, model_config: PretrainedConfig) -> ProcessorMixin:
    """The processor in ``folder``, checked to be the model's.

    Sets in ``model_config`` what an old checkpoint leaves open. Raises ``CheckpointError`` for a tokenizer of another
    model.
    """
    family = family_of(model_config)
    try:
        check_files(folder)
        # code that the folder brings is refused at once; left open, the question would be put to standard input
        processor = family.processor_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}: its processor does not load: {line(error)}; {remedy(folder)}.") from error
    fault = family.fault_of(processor, model_config)
    if fault is not None:
        raise CheckpointError(f"{folder}: the tokenizer is not this model's: {fault}. {remedy(folder).capitalize()}.")
    return processor


def _family_in(folder: Path) -> AnyFamily:
    """By the folder's own config: the one it was trained from may be gone."""
    found = read_json(folder / "config.json")
    model_type = found.get("model_type") if isinstance(found, dict) else None
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"{folder} holds a model of the type {model_type!r}, and labkit trains {', '.join(FAMILIES)}; "
            f"{remedy(folder)}."
        )
    return family_of(FAMILIES[model_type])


def _four_bits(config: RunConfig, model_type: str) -> object:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=config.double_quant, llm_int8_skip_modules=list(FAMILIES[model_type].unquantized),
    )  # fmt: skip


@contextlib.contextmanager
def _one_tensor_at_a_time() -> Iterator[None]:
    """Keep transformers from reading in threads, from hiding errors, and quiet.

    A tracker does not see what threads allocate, and they read ahead. What is raised while a layer is quantized,
    out-of-memory too, would only be logged. The loader's warnings are wrong (T5's output layer is its own), or are
    raised here as errors.
    """
    key = "HF_DEACTIVATE_ASYNC_LOAD"
    before, verbosity, bar = os.environ.get(key), logging.get_verbosity(), logging.is_progress_bar_enabled()
    os.environ[key] = "1"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with conversion_errors():
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before
