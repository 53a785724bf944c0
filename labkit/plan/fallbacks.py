"""Fallbacks: the changes that take memory off a run, in the order of what they cost.

The order, and why:

- *none* comes first: the same numbers in the same time.
- *time* is paid and the result is the same, up to rounding: smaller micro batches with more of them cost least
  (they fill the GPU less), layers computed again cost about a third more arithmetic, and offload waits for the host's
  memory and processor in every step.
- *numerics* come next: the same is trained, with fewer bits. Mixed precision keeps the weights in 32, an 8-bit
  optimizer rounds its own state only, 16-bit weights round every update.
- *quality* is last: something else is trained. Captions are cut, parts stay as they are, adapters take the place of
  the weights and then of 4-bit ones, the optimizer loses its state, and at the very end the model is another.

Within a kind the order is an estimate. No GPU has been compared with.
"""

from collections.abc import Callable
from typing import Any

from labkit.config.catalogue.models import smaller
from labkit.config.schema import RunConfig
from labkit.plan.fallback import Changes, Fallback, overrides
from labkit.plan.search import with_batch

EXPANDABLE = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}

LEAST_LENGTH, LEAST_RANK = 4, 4


def _one_by_one(config: RunConfig) -> Changes | None:
    if config.batch_size == 1:
        return None
    one = with_batch(config, 1, keep_global=True)
    return overrides(config, one)


def _offload(stage: int) -> Callable[[RunConfig], Changes | None]:
    def change(config: RunConfig) -> Changes | None:
        adapters = config.use_lora or config.use_qlora
        if config.optim != "adamw" or (adapters and stage == 2):  # adapters have next to nothing to move
            return None
        return {
            "strategy": f"deepspeed_stage_{stage}_offload", "optim": "deepspeed_cpu", "loss_average": "batches",
            "optim_impl": "foreach",
        }  # fmt: skip

    return change


_OPTIMIZERS = ("adamw", "adam_8bit", "paged_adam_8bit", "sgd")
"""With less and less on the GPU."""


def _optimizer(name: str) -> Callable[[RunConfig], Changes | None]:
    def change(config: RunConfig) -> Changes | None:
        worse = _OPTIMIZERS[: _OPTIMIZERS.index(name)]
        impl = config.optim_impl if name == "sgd" else "foreach"
        return {"optim": name, "optim_impl": impl} if config.optim in worse else None

    return change


def _adapters(quantized: bool) -> Callable[[RunConfig], Changes | None]:
    def change(config: RunConfig) -> Changes | None:
        if config.use_qlora or (config.use_lora and not quantized):
            return None
        if not quantized:
            return {"use_lora": True}
        precision = config.precision if config.dtypes.mixed else "32-true"  # of what is not in 4 bits
        return {"use_lora": False, "use_qlora": True, "act_ckpt": True, "precision": precision}

    return change


def _frozen(part: str) -> Callable[[RunConfig], Changes | None]:
    def change(config: RunConfig) -> Changes | None:
        adapters = config.use_lora or config.use_qlora  # whose base is frozen anyway
        return None if adapters or getattr(config, part) else {part: True}

    return change


def _set(
    key: str, value: Callable[[RunConfig], Any], where: Callable[[RunConfig], bool]
) -> Callable[[RunConfig], Changes | None]:
    return lambda config: {key: value(config)} if where(config) else None


def _another_model(config: RunConfig) -> Changes | None:
    name = smaller(config.model_name)
    return None if name is None else {"model_name": name}


BATCH = Fallback(
    name="batch", kind="time", reach="activations", change=_one_by_one,
    cost="a little time: more and smaller micro batches make the same optimizer step",
)  # fmt: skip

FALLBACKS: tuple[Fallback, ...] = (
    Fallback(
        name="fused optimizer", kind="none", cost="nothing: one kernel that needs no temporaries",
        change=lambda c: {"optim_impl": "fused"} if c.optim == "adamw" and c.optim_impl == "foreach" else None,
    ),
    Fallback(
        name="expandable", kind="none", cost="nothing: segments that grow leave fewer holes",
        change=lambda config: {} if config.on_cuda else None, environment=EXPANDABLE,
    ),
    BATCH,
    Fallback(
        name="checkpointing", kind="time", reach="activations",
        cost="time: about a third more arithmetic, since layers are computed again in backward",
        change=_set("act_ckpt", lambda c: True, lambda c: not c.act_ckpt),
    ),
    Fallback(
        name="offload", kind="time", group="optimizer", change=_offload(2),
        cost="much time: every optimizer step runs in host memory, on the processor; the loss is averaged over batches",
    ),
    Fallback(
        name="offload of weights", kind="time", group="optimizer", change=_offload(3),
        cost="very much time: weights come from host memory layer by layer, the optimizer step runs there; "
        "the loss is averaged over batches",
    ),
    Fallback(
        name="mixed precision", kind="numerics", group="precision",
        cost="arithmetic in bf16, weights stay in 32 bits; time falls",
        change=_set("precision", lambda c: "bf16-mixed", lambda c: c.dtypes.full),
    ),
    Fallback(
        name="mixed precision, fp16", kind="numerics", group="precision",
        cost="arithmetic in fp16 with a scaled loss, weights stay in 32 bits; time falls",
        change=_set("precision", lambda c: "16-mixed", lambda c: c.dtypes.full and c.on_cuda),
    ),
    Fallback(
        name="double quantization", kind="numerics", cost="the scales of 4-bit blocks are rounded too",
        change=_set("double_quant", lambda c: True, lambda c: c.use_qlora and not c.double_quant),
    ),
    Fallback(
        name="8-bit optimizer", kind="numerics", group="optimizer", reach="optimizer",
        cost="optimizer state in 8 bits", change=_optimizer("adam_8bit"),
    ),
    Fallback(
        name="paged 8-bit optimizer", kind="numerics", group="optimizer", reach="optimizer",
        cost="optimizer state in 8 bits, fetched from host memory as it is used", change=_optimizer("paged_adam_8bit"),
    ),
    Fallback(
        name="bf16 weights", kind="numerics", group="precision",
        cost="weights in bf16: small updates are rounded away; time falls",
        change=_set(
            "precision", lambda c: "bf16-true", lambda c: not c.dtypes.half and not c.dtypes.weights_in_16_bits
        ),
    ),
    Fallback(
        name="shorter captions", kind="quality", reach="activations", cost="longer captions are cut",
        change=_set("max_length", lambda c: c.max_length // 2, lambda c: c.max_length >= 2 * LEAST_LENGTH),
    ),
    Fallback(
        name="frozen vision", kind="quality", group="trained", cost="the vision tower is not trained",
        change=_frozen("freeze_vision"),
    ),
    Fallback(
        name="frozen language", kind="quality", group="trained", cost="the language model is not trained",
        change=_frozen("freeze_language"),
    ),
    Fallback(
        name="lora", kind="quality", group="trained", change=_adapters(False),
        cost="adapters are trained in place of the weights; the learning rate wants another value",
    ),
    Fallback(
        name="qlora", kind="quality", group="trained", change=_adapters(True),
        cost="adapters on weights in 4 bits, layers computed again; the learning rate wants another value",
    ),
    Fallback(
        name="smaller adapters", kind="quality", cost="adapters that can learn less",
        change=_set(
            "lora_r", lambda c: max(LEAST_RANK, c.lora_r // 4),
            lambda c: (c.use_lora or c.use_qlora) and c.lora_r > LEAST_RANK,
        ),
    ),
    Fallback(
        name="sgd", kind="quality", group="optimizer", reach="optimizer", change=_optimizer("sgd"),
        cost="an optimizer without state: the loss may stay high; the learning rate wants another value",
    ),
    Fallback(name="smaller model", kind="quality", cost="another, smaller model", change=_another_model),
)  # fmt: skip
"""All changes, the cheapest first."""


def fallbacks_for(bf16: bool) -> tuple[Fallback, ...]:
    """The changes for a GPU with or without bf16; where there is bf16, fp16 and its scaled loss are not needed."""
    return tuple(fallback for fallback in FALLBACKS if not (bf16 and fallback.name == "mixed precision, fp16"))
