"""Checkpoints: find one, check it, and load model and processor from it, each byte once."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, GenerationConfig
from transformers.utils import logging

from labkit import assets
from labkit.borrowed.transformers import conversion_errors
from labkit.config.schema import RunConfig
from labkit.memory.exhaustion import is_exhausted
from labkit.train.errors import CheckpointError
from labkit.train.model_files import check_files, line, remedy, shards, verify
from labkit.train.models import dtype_of
from labkit.train.shards import stored_tensors

__all__ = ["CheckpointError", "find_checkpoint", "load_model", "load_processor", "verify"]

PACKAGED = {"tiny/blip2-opt-base": assets.BASE}
"""Models whose checkpoint ships with labkit."""

IMAGE = "<image>"
_OWN_HEAD = "language_model.lm_head.weight"


def find_checkpoint(model_name: str) -> Path:
    """The folder of a model's checkpoint: the packaged one, a folder, or a snapshot in the Hugging Face cache.

    Downloads nothing. ``HF_HUB_CACHE`` and ``HF_HOME`` say where the cache is. Raises ``CheckpointError`` for a model
    that is not there, with the command that brings it, and for a stand-in, which has none.
    """
    if model_name in PACKAGED:
        return PACKAGED[model_name]
    if model_name.startswith("tiny/"):
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


def load_model(config: RunConfig, folder: Path, device: str | torch.device) -> Blip2ForConditionalGeneration:
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
    model_config = _model_config(config, folder)
    text = model_config.text_config
    needs_head = text.model_type == "t5" and not text.scale_decoder_outputs
    if needs_head and _OWN_HEAD not in stored:
        # transformers would take the embedding in its place without a word
        raise CheckpointError(f"{folder} has no weights for {_OWN_HEAD}; {remedy(folder)}.")
    options = {}
    if (folder / "generation_config.json").is_file():
        options["generation_config"] = GenerationConfig.from_pretrained(folder)
    if config.use_qlora:
        options["quantization_config"] = _four_bits(config)
    if config.use_qlora or device.type != "cpu":
        options["device_map"] = {"": device}
    try:
        with _one_tensor_at_a_time():
            model, report = Blip2ForConditionalGeneration.from_pretrained(
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
    if needs_head:
        _untie_head(model)
    model.config.name_or_path = str(folder)
    return model


def load_processor(folder: Path, model_config: Blip2Config) -> Blip2Processor:
    """The processor in ``folder``, checked to be the model's.

    Sets ``model_config.image_token_index`` where an old checkpoint leaves it open. The number of placeholders is
    ``model_config.num_query_tokens``; a processor saved by an older release does not know it. Raises
    ``CheckpointError`` for a tokenizer of another model.
    """
    try:
        check_files(folder)
        # code that the folder brings is refused at once; left open, the question would be put to standard input
        processor = Blip2Processor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}: its processor does not load: {line(error)}; {remedy(folder)}.") from error
    tokenizer, text = processor.tokenizer, model_config.text_config
    wrong = f"{folder}: the tokenizer is not this model's:"

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"{wrong} {what}. {remedy(folder).capitalize()}.")

    if tokenizer.pad_token_id != text.pad_token_id:
        raise refuse(f"it pads with id {tokenizer.pad_token_id}, the model with {text.pad_token_id}")
    if tokenizer.eos_token_id is None:
        raise refuse("it has no end mark")
    mark, name = (text.bos_token_id, "start") if text.model_type == "opt" else (tokenizer.eos_token_id, "end")
    if (alone := tokenizer("")["input_ids"]) != [mark]:
        raise refuse(f"an empty text gives the ids {alone}, and should give the {name} mark {[mark]}")
    if model_config.image_token_index is None:
        # Blip2Processor has added the placeholder where the tokenizer had none
        model_config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE)
        if model_config.image_token_index >= text.vocab_size:
            raise refuse(f"the model's {text.vocab_size} embeddings have no row for the placeholder {IMAGE}")
    index = model_config.image_token_index
    words = len(tokenizer)
    if tokenizer.added_tokens_decoder.get(words - 1) == IMAGE != tokenizer.convert_ids_to_tokens(index):
        words -= 1  # added by Blip2Processor and not used: the model has another placeholder
    if words > text.vocab_size:
        raise refuse(f"it has {words} tokens, the model {text.vocab_size} embeddings")
    if not 0 <= index < text.vocab_size:
        raise refuse(f"the model's placeholder has id {index}, and there are {text.vocab_size} embeddings")
    if index < words and index not in _special_ids(tokenizer):
        word = tokenizer.convert_ids_to_tokens(index)
        raise refuse(f"id {index}, which is the model's image placeholder, is the ordinary word {word!r}")
    return processor


def _special_ids(tokenizer: object) -> set[int]:
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}


def _model_config(config: RunConfig, folder: Path) -> Blip2Config:
    model_config = Blip2Config.from_pretrained(folder, local_files_only=True)
    if config.dropout is not None:
        text, qformer = model_config.text_config, model_config.qformer_config
        for key in ("dropout_rate",) if text.model_type == "t5" else ("dropout", "attention_dropout"):
            setattr(text, key, config.dropout)
        qformer.hidden_dropout_prob = qformer.attention_probs_dropout_prob = config.dropout
    return model_config


def _four_bits(config: RunConfig) -> object:
    from transformers import BitsAndBytesConfig

    from labkit.train.quantized import KEPT

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=config.double_quant, llm_int8_skip_modules=list(KEPT),
    )  # fmt: skip


@contextlib.contextmanager
def _one_tensor_at_a_time() -> Iterator[None]:
    """Keep transformers from reading in threads, from hiding errors, and quiet.

    A tracker does not see what threads allocate, and they read ahead. What is raised while a layer is quantized,
    out-of-memory too, would only be logged. What the loader says is wrong (T5's output layer is its own) or said here
    as an error.
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


def _untie_head(model: Blip2ForConditionalGeneration) -> None:
    """T5 v1.1 has an output layer of its own. transformers ties any T5's, unless both differ in the checkpoint."""
    language = model.language_model
    if language.lm_head.weight is language.shared.weight:
        language.lm_head.weight = nn.Parameter(language.shared.weight.detach().clone())
    for owner in (model, language):
        for key in [k for k in owner.all_tied_weights_keys if k.endswith("lm_head.weight")]:
            del owner.all_tied_weights_keys[key]
