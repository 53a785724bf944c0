"""Predict: what a run will hold in memory, and whether that fits, without a GPU and before the run."""

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from labkit.config.gpus import find_gpu, unsuitable
from labkit.config.schema import RunConfig
from labkit.memory.categories import on_host
from labkit.memory.report import MemoryReport, activity_of
from labkit.plan.allocator import CachingAllocator, SimulatedAllocator
from labkit.plan.cache import TraceCache
from labkit.plan.errors import PredictionError
from labkit.plan.expandable import ExpandableAllocator
from labkit.plan.replay import Replay, replay
from labkit.plan.trace import Event, Trace

BORDERLINE = 0.05
"""Share of the capacity within which a prediction is not to be relied on: no GPU has been compared with yet."""


@dataclass(kw_only=True)
class Prediction(MemoryReport):
    """The report of a run that has not happened, and what the caching allocator makes of it under the capacity.

    The phases after an out-of-memory would be there with more memory.
    """

    operation: str
    """What made the highest peak."""
    rank: int = 0
    """The device that it is about. Of several that hold different amounts the one that needs most."""
    reserved_bytes: int | None
    """The most that the allocator reserves, never above the capacity; the simulated GPU has no allocator."""
    verdict: str
    """``fits``, ``out of memory``, ``borderline`` when 5% more or less capacity would change that, or
    ``no capacity given``."""
    margin: float | None
    """Share of the capacity that stays free at the peak of what is allocated; below zero it is missing."""
    died_in: dict[str, Any] | None = None
    """Where a run runs out of memory: step, micro step, phase and operation."""
    requested_bytes: int | None = None
    """What was asked for there."""
    checkpoint_bytes: int = 0
    """What one checkpoint takes on disk; a run holds ``keep_checkpoints`` of them, and one more while it writes it."""
    warm_up_bytes: int = 0
    """The block that loading a checkpoint onto a GPU reserves at once; 0 with random weights."""
    reserved_without_warm_up_bytes: int | None = None
    """``reserved_bytes`` of the same run with random weights; None where nothing is loaded onto a GPU."""

    @property
    def host_bytes(self) -> int:
        """Most host memory that offload takes, of one rank; 0 without."""
        return max((on_host(p.highest) for p in self.phases), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; ``MemoryReport.from_dict`` reads the report in it."""
        names = (
            "operation", "rank", "reserved_bytes", "verdict", "margin", "died_in", "requested_bytes",
            "checkpoint_bytes", "warm_up_bytes", "reserved_without_warm_up_bytes",
        )  # fmt: skip
        return super().to_dict() | {name: getattr(self, name) for name in names} | {"host_bytes": self.host_bytes}


def predict(config: RunConfig, gpu: str | None = None, cache: TraceCache | None = None) -> Prediction:
    """The memory of a run, byte by byte and phase by phase, from two optimizer steps on ``meta`` tensors.

        predict(resolve(Workspace.find(), "reduced_batch", {}, "a100-80gb").config).verdict

    ``gpu`` is a GPU by name or size (``24GiB``) to use in place of the config's device. Steps that were executed
    before come from the ``cache``, by default that of the workspace's runs. Raises ``ConfigError`` for an unknown GPU
    and ``PredictionError`` for a run that cannot be predicted.
    """
    if gpu is not None:
        found = find_gpu(gpu)
        refuse_without_bf16(config, found.name)
        config = dataclasses.replace(config, **found.values)
    trace = (cache or TraceCache.find()).trace(config).first(_optimizer_steps(config))
    kind, block_bytes = _allocator(config), warm_up_bytes(config, trace)
    found = judge(trace, config.capacity_bytes, kind, block_bytes)
    if block_bytes:  # here, and not for every change that an advice tries
        found.reserved_without_warm_up_bytes = replay(trace.events(), config.capacity_bytes, kind).peak_reserved_bytes
    return found


def warm_up_bytes(config: RunConfig, trace: Trace) -> int:
    """The block that transformers allocates and frees again before it loads a checkpoint onto a GPU; 0 without one.

    It is as large as all weights together (``caching_allocator_warmup`` in ``modeling_utils.py``, transformers 5.17 to
    5.23), so that loading asks the driver once. The allocator keeps it as one segment, and the weights are cut from it.
    A run that splits the model builds it in host memory, and has none.
    """
    loads = config.on_cuda and config.weights == "pretrained" and not config.placement.divides_model
    return trace.loaded_bytes if loads else 0


def _allocator(config: RunConfig) -> type[CachingAllocator]:
    """What the run will have: on CUDA as the environment sets it, which a run inherits."""
    if not config.on_cuda:
        return SimulatedAllocator
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    settings = ",".join(os.environ.get(name, "") for name in names).replace(" ", "").lower()
    return ExpandableAllocator if "expandable_segments:true" in settings else CachingAllocator


def _optimizer_steps(config: RunConfig) -> int | None:
    """How many optimizer steps the run has, as far as its config says; None if it does not."""
    steps = None
    if config.num_train_samples is not None:
        samples = config.num_train_samples - int(config.num_train_samples * config.val_fraction)
        batches = min(samples // config.batch_size // config.shares, config.limit_train_batches or samples)
        steps = -(-batches // config.accumulate_grad_batches) * config.max_epochs
    return min((n for n in (steps, config.max_steps) if n), default=None)


def refuse_without_bf16(config: RunConfig, gpu: str) -> None:
    """Raise ``PredictionError`` for a run in bf16 on a GPU, called by its name, that has none."""
    if reason := unsuitable(config, gpu):
        raise PredictionError(reason)


def judge(
    trace: Trace, capacity_bytes: int | None, kind: type[CachingAllocator] = CachingAllocator, warm_up_bytes: int = 0
) -> Prediction:
    """What a capacity and an allocator make of a trace. Only this depends on them: another capacity costs a replay."""
    log = _Log(trace, warm_up_bytes)
    found = replay(log.events(), capacity_bytes, kind)
    peak_bytes = trace.report.peak_bytes
    died_in = requested_bytes = None
    if found.failed_at is not None:
        died_in, requested_bytes = log.place(found.failed_at), found.requested_bytes
    phases = [
        msgspec.structs.replace(phase, reserved_bytes=None if kind is SimulatedAllocator else mark.reserved_bytes)
        for phase, mark in zip(trace.report.phases, found.marks[1:], strict=False)
    ]
    return Prediction(
        source="predicted", capacity_bytes=capacity_bytes, phases=phases + trace.report.phases[len(phases) :],
        operation=trace.operation, rank=trace.rank,
        reserved_bytes=None if kind is SimulatedAllocator else found.peak_reserved_bytes,
        verdict=_verdict(log, capacity_bytes, kind, found),
        margin=None if capacity_bytes is None else 1 - peak_bytes / capacity_bytes,
        died_in=died_in, requested_bytes=requested_bytes, checkpoint_bytes=trace.checkpoint_bytes,
        warm_up_bytes=warm_up_bytes,
    )  # fmt: skip


@dataclass(frozen=True)
class _Log:
    """What an allocator sees of a run: the block that loading reserves at once, and then the trace."""

    trace: Trace
    warm_up_bytes: int

    def _first(self) -> tuple[Event, ...]:
        return ((-1, self.warm_up_bytes), (-1, 0)) if self.warm_up_bytes else ()

    def events(self) -> Iterator[Event]:
        return chain(self._first(), self.trace.events())

    def place(self, event: int) -> dict[str, Any]:
        """What the run was doing at an event."""
        event -= len(self._first())
        if event < 0:
            return {"step": 0, "micro_step": 0, "phase": "load_model", "operation": "caching_allocator_warmup"}
        return _place(self.trace, event)


def _verdict(log: _Log, capacity_bytes: int | None, kind: type[CachingAllocator], found: Replay) -> str:
    if capacity_bytes is None:
        return "no capacity given"
    other = int(capacity_bytes * (1 - BORDERLINE if found.fits else 1 + BORDERLINE))
    if found.fits and found.peak_reserved_bytes <= other:  # the allocator would not have met that limit either
        return "fits"
    if replay(log.events(), other, kind).fits is not found.fits:
        return "borderline"
    return "fits" if found.fits else "out of memory"


def _place(trace: Trace, event: int) -> dict[str, Any]:
    move, passed = trace.at(event)
    place: dict[str, Any] = {"step": 0, "micro_step": 0, "phase": "load_model"}
    if passed:
        phase = trace.report.phases[passed - 1]
        place = {"step": phase.step, "micro_step": phase.micro_step, "phase": activity_of(phase.phase)}
    return place | {"operation": trace.operation_of(move)}
