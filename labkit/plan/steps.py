"""Steps: two optimizer steps of a run, executed on tensors without storage."""

import dataclasses
from collections.abc import Iterable, Iterator

import torch
from PIL import Image

from labkit.borrowed.torch import is_persistent
from labkit.config.schema import RunConfig
from labkit.families.known import family_of
from labkit.memory.tracker import host
from labkit.plan.errors import PredictionError
from labkit.plan.meta_trainer import fit_on_meta
from labkit.plan.modules import STEPS
from labkit.plan.parallel import rank
from labkit.plan.semantics import DeviceSemantics, replacing
from labkit.plan.trace import Trace
from labkit.train.adapters import add_lora
from labkit.train.build import build_model
from labkit.train.models import dtype_of


def trace(config: RunConfig) -> Trace:
    """Execute the first two optimizer steps of a run on ``meta`` tensors.

    Model, adapters, optimizer and step are those that training uses, in the order in which Lightning calls them.
    Micro batches beyond the second of a step repeat it and are left out. Nothing is allocated or downloaded, and the
    capacity is not looked at. Of several ranks the first is followed; where they hold different amounts, all are, or
    of many some eight, and the one that needs most is told. Raises ``PredictionError`` for what is not planned, and for
    an operation that ``meta`` tensors cannot do.
    """
    return max((trace_rank(config, index) for index in _followed(config)), key=lambda found: found.report.peak_bytes)


def _followed(config: RunConfig) -> Iterable[int]:
    last = config.world_size - 1
    if not config.placement.ranks_differ or not last:
        return (0,)
    if config.placement.splits_layers:  # a stage is like no other
        return range(last + 1)
    return sorted({*range(0, last, -(-last // MOST_RANKS)), last})


MOST_RANKS = 8
"""Of ranks that hold about the same so many are followed, and the last."""


def trace_rank(config: RunConfig, index: int) -> Trace:
    """The same of one rank, by its number."""
    if config.placement.uses_zero and config.dtypes.mixed:
        raise PredictionError(
            f"precision={config.precision} with strategy={config.strategy} cannot be predicted; "
            "set precision=bf16-true."
        )
    config = dataclasses.replace(config, weights="random")
    micro_steps = min(config.accumulate_grad_batches, 2)
    with (
        replacing(), rank(config, index) as this_rank, DeviceSemantics(config) as semantics, this_rank.tracker
    ):  # fmt: skip
        with this_rank.building():
            model = build_model(config, "meta")
            loaded_bytes = _loaded_bytes(model)
            if config.use_lora or config.use_qlora:
                model = add_lora(model, config)
        this_rank.prepare(model)
        module = this_rank.module(config, model)
        module.rank = this_rank
        found = fit_on_meta(
            module, _Batches(config, STEPS * micro_steps), this_rank, semantics, config.precision,
            max_steps=STEPS, accumulate_grad_batches=micro_steps,
        )  # fmt: skip
    return dataclasses.replace(found, rank=index, checkpoint_bytes=module.on_disk_bytes, loaded_bytes=loaded_bytes)


class _Batches:
    """Batches that are made when they are asked for, as a loader makes them."""

    def __init__(self, config: RunConfig, count: int) -> None:
        self._config = config
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (batch_of(self._config) for _ in range(self._count))


def _loaded_bytes(model: torch.nn.Module) -> int:
    """What a checkpoint of this model brings: its weights, each once, and the buffers that are saved."""
    buffers = [  # not by state_dict, which reads a number of weights in 4 bits, and meta tensors have none
        buffer for module in model.modules() for name, buffer in module.named_buffers(recurse=False)
        if is_persistent(module, name)
    ]  # fmt: skip
    return sum(tensor.nbytes for tensor in (*model.parameters(), *buffers))


def batch_of(config: RunConfig) -> dict[str, torch.Tensor]:
    """A batch on ``meta`` of the shapes that the collator gives."""
    arch, family = config.architecture, family_of(config.architecture)
    collate = family.collate(family.processor(arch), family.config(arch), config.max_length)
    one = collate([(Image.new("RGB", (8, 8)), "a caption")])
    batch = {}
    for key, tensor in one.items():
        shape = (config.batch_size, *tensor.shape[1:])
        if not tensor.is_floating_point():
            batch[key] = tensor.expand(shape).to("meta")  # with its values
            continue
        made = torch.empty(shape, dtype=tensor.dtype, device="meta")
        if tensor.is_floating_point() and config.simulated:
            made = made.to(dtype_of(config.precision))  # Lightning casts in host memory, which is all a CPU has
        elif tensor.is_floating_point():
            with host():
                made = made.to(dtype_of(config.precision))
        batch[key] = made
    return batch
