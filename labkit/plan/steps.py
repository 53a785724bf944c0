"""Steps: two optimizer steps of a run, executed on tensors without storage."""

import contextlib
import dataclasses
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from labkit.borrowed.torch import is_persistent
from labkit.config.schema import RunConfig
from labkit.families.known import family_of
from labkit.memory.capture import MemoryCapture
from labkit.memory.tracker import host
from labkit.plan.errors import PredictionError
from labkit.plan.offload import ZeroOffload
from labkit.plan.paged import build_paged
from labkit.plan.parallel import Rank, rank
from labkit.plan.semantics import DeviceSemantics
from labkit.plan.trace import Trace
from labkit.plan.unplanned import unplanned
from labkit.train.adapters import add_lora
from labkit.train.build import build_model
from labkit.train.disk_room import checkpoint_bytes
from labkit.train.models import dtype_of
from labkit.train.module import CaptionModule
from labkit.train.optimizers import build_optimizer

STEPS = 2
"""The second step meets parameters, old gradients, new optimizer state and activations at once."""


def trace(config: RunConfig) -> Trace:
    """Execute the first two optimizer steps of a run on ``meta`` tensors.

    Model, adapters, optimizer and step are those that training uses, in the order in which Lightning calls them.
    Micro batches beyond the second of a step repeat it and are left out. Nothing is allocated or downloaded, and the
    capacity is not looked at. Raises ``PredictionError`` for what is not planned, and for an operation that ``meta``
    tensors cannot do.
    """
    try:
        return _trace(config)
    except RuntimeError as error:  # torch's, from outside of an operation; NotImplementedError is one
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PredictionError(
            f"the step cannot be executed on meta tensors, so it cannot be predicted: {reason}"
        ) from error


def _trace(config: RunConfig) -> Trace:
    offload = config.placement.uses_zero
    if offload and config.dtypes.mixed:
        raise PredictionError(
            f"precision={config.precision} with strategy={config.strategy} cannot be predicted; "
            "set precision=bf16-true."
        )
    refused = unplanned(config)
    if refused is not None:
        raise PredictionError(refused)
    config = dataclasses.replace(config, weights="random", report_every=1)
    micro_steps = min(config.accumulate_grad_batches, 2)
    # as much of Lightning's trainer as the hooks read
    loop: Any = SimpleNamespace(global_step=0, accumulate_grad_batches=micro_steps, world_size=1, optimizers=[])
    with rank(config) as this_rank, DeviceSemantics(config) as semantics, this_rank.tracker as tracker:
        marks: list[int] = []
        capture = MemoryCapture(
            tracker, on_phase=lambda phase: marks.append(len(tracker.events or ())),
            owned_by=(lambda optimizer: optimizer.tensors()) if offload else None,
        )  # fmt: skip
        capture.report.source = "predicted"
        with this_rank.building():
            model = build_model(config, "meta")
            loaded_bytes = _loaded_bytes(model)
            if config.use_lora or config.use_qlora:
                model = add_lora(model, config)
            if config.dtypes.weights_in_16_bits:
                with host() if offload else contextlib.nullcontext():  # DeepSpeed does it while it is set up
                    _cast(model, dtype_of(config.precision))
        this_rank.apply(model)
        module = CaptionModule(config, model)
        module.trainer = loop
        on_disk_bytes = checkpoint_bytes(config, module.parameters())
        if offload:
            optimizer = ZeroOffload(config, module)
        else:
            build = build_paged if config.optim == "paged_adam_8bit" else build_optimizer
            optimizer = build(config, module.parameters())
        loop.optimizers = [optimizer]
        capture.on_train_start(loop, module)
        marks.append(len(tracker.events or ()))
        for _ in range(STEPS):
            for micro_step in range(micro_steps):
                batch = batch_of(config)
                _micro_step(loop, module, capture, optimizer, semantics, this_rank, batch, micro_step, micro_steps)
                del batch  # as Lightning does, before the next one is there
        capture.teardown(loop, module, "fit")
        events = (tracker.events or [])[: marks[-1]]  # what is taken down after the last step is no prediction
    return Trace.of(events, marks, capture.report, on_disk_bytes, loaded_bytes)


def _loaded_bytes(model: torch.nn.Module) -> int:
    """What a checkpoint of this model brings: its weights, each once, and the buffers that are saved."""
    buffers = [  # not by state_dict, which reads a number of weights in 4 bits, and meta tensors have none
        buffer for module in model.modules() for name, buffer in module.named_buffers(recurse=False)
        if is_persistent(module, name)
    ]  # fmt: skip
    return sum(tensor.nbytes for tensor in (*model.parameters(), *buffers))


def _cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """What Lightning's precision does to a module: adapters are made in 32 bits."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and tensor.dtype != dtype:
            tensor.data = tensor.data.to(dtype)


def _micro_step(
    loop: Any, module: CaptionModule, capture: MemoryCapture,
    optimizer: torch.optim.Optimizer | ZeroOffload, semantics: DeviceSemantics, this_rank: Rank,
    batch: dict[str, torch.Tensor], micro_step: int, micro_steps: int,
) -> None:  # fmt: skip
    capture.on_train_batch_start(loop, module, batch, micro_step)
    this_rank.before_forward(last_micro_step=micro_step == micro_steps - 1)
    with semantics.autocast():
        loss = module.training_step(batch, micro_step)
    loss = loss / loop.accumulate_grad_batches
    if micro_step == 0:
        optimizer.zero_grad()
    capture.on_before_backward(loop, module, loss)
    if isinstance(optimizer, ZeroOffload):
        optimizer.begin_backward(is_last=micro_step == micro_steps - 1)
    with semantics.autocast():  # for layers that are computed again
        loss.backward()
    if isinstance(optimizer, ZeroOffload):
        optimizer.end_backward()
    capture.on_after_backward(loop, module)
    if micro_step == micro_steps - 1:
        if not isinstance(optimizer, ZeroOffload):  # whose gradients are in buffers of its own
            module.on_before_optimizer_step(optimizer)
        optimizer.step()
        loop.global_step += 1
    del loss
    module.on_train_batch_end(None, batch, micro_step)
    capture.on_train_batch_end(loop, module, None, batch, micro_step)


def batch_of(config: RunConfig) -> dict[str, torch.Tensor]:
    """A batch on ``meta`` of the shapes that the collator gives."""
    arch, family = config.architecture, family_of(config.architecture)
    collate = family.collate(family.processor(arch), family.config(arch), config.max_length)
    one = collate([(Image.new("RGB", (8, 8)), "a caption")])
    batch = {}
    for key, tensor in one.items():
        made = torch.empty(config.batch_size, *tensor.shape[1:], dtype=tensor.dtype, device="meta")
        if tensor.is_floating_point() and config.simulated:
            made = made.to(dtype_of(config.precision))  # Lightning casts in host memory, which is all a CPU has
        elif tensor.is_floating_point():
            with host():
                made = made.to(dtype_of(config.precision))
        batch[key] = made
    return batch
