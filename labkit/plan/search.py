"""Search: the largest batch that fits, found by planning batches and not by a formula."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labkit.config.gpus import find_gpu
from labkit.config.schema import RunConfig
from labkit.plan.cache import TraceCache
from labkit.plan.predict import BORDERLINE, Prediction, predict

MOST_SAMPLES = 4096
"""Where the search ends if the data does not end it sooner."""
_GUESSES = 6
"""Guesses from a straight line before the rest is halved; activations grow straight, what is reserved does not."""


@dataclass(frozen=True, kw_only=True)
class LargestBatch:
    """The largest batch that fits, and its neighbour above, which does not; each was planned.

    ``batch_size`` is None when not even the smallest fits; ``above`` is then the smallest. ``above`` is None when the
    largest that was asked for fits. ``plans`` counts the predictions.
    """

    batch_size: int | None
    prediction: Prediction | None
    above_batch_size: int | None
    above: Prediction | None
    plans: int


def largest_batch(
    config: RunConfig, gpu: str | None = None, cache: TraceCache | None = None, *,
    choices: Sequence[int] | None = None, keep_global: bool = False,
) -> LargestBatch:  # fmt: skip
    """The largest ``batch_size`` of a run whose verdict is ``fits``, all else equal.

        largest_batch(config, "24GiB").batch_size

    ``choices`` are the sizes looked at, by default every one up to the number of training samples. With ``keep_global``
    more micro batches keep the samples of an optimizer step, and choices that do not divide them are left out. What the
    allocator reserves does not always grow with the batch, so the result means: this batch fits and the next one does
    not. A still larger one that fits again is not looked for.

    Raises ``ConfigError`` for an unknown GPU and ``PredictionError`` for a run that cannot be predicted.
    """
    if gpu is not None:
        config = dataclasses.replace(config, **find_gpu(gpu).values)
    traces = cache or TraceCache.find()
    if choices is None:
        choices = range(1, (config.num_train_samples or MOST_SAMPLES) + 1)
    if keep_global:
        choices = [size for size in choices if samples_per_step(config) % size == 0]
    return search(
        choices, lambda size: predict(with_batch(config, size, keep_global=keep_global), cache=traces),
        near=config.batch_size,
    )  # fmt: skip


def search(choices: Sequence[int], plan: Callable[[int], Prediction], near: int) -> LargestBatch:
    """The largest of ascending ``choices`` for which ``plan`` predicts ``fits``; the one below ``near`` comes first."""
    found: dict[int, Prediction] = {}

    def fits(at: int) -> bool:
        found[at] = plan(choices[at])
        return found[at].verdict == "fits"

    low, high = -1, len(choices)  # low fits and high does not, as far as is known
    at = max((i for i, size in enumerate(choices) if size <= near), default=0)
    while high - low > 1:
        low, high = (at, high) if fits(at) else (low, at)
        at = _guess(choices, found, low, high) if len(found) <= _GUESSES else (low + high) // 2
    return LargestBatch(
        batch_size=choices[low] if low >= 0 else None, prediction=found.get(low),
        above_batch_size=choices[high] if high < len(choices) else None, above=found.get(high), plans=len(found),
    )  # fmt: skip


def _guess(choices: Sequence[int], found: dict[int, Prediction], low: int, high: int) -> int:
    """The choice between ``low`` and ``high`` that a straight line through what was planned takes for the largest."""
    ends = sorted(found, key=lambda at: min(abs(at - low), abs(at - high)))[:2]
    first = found[ends[0]]
    batch = choices[ends[0]]
    if len(ends) == 2:
        rise = (found[ends[1]].peak_bytes - first.peak_bytes) / (choices[ends[1]] - batch)
    else:
        phase = first.peak_phase
        rise = 0 if phase is None else (phase.peak["activations"] + phase.peak["inputs"]) / batch
    room = (first.capacity_bytes or 0) * (1 - BORDERLINE) - first.peak_bytes
    size = batch + room / rise if rise > 0 else choices[(low + high) // 2]
    at = max((i for i in range(low + 1, high) if choices[i] <= size), default=low + 1)
    return min(max(at, low + 1), high - 1)


def samples_per_step(config: RunConfig) -> int:
    """Samples of one optimizer step."""
    return config.batch_size * config.accumulate_grad_batches


def with_batch(config: RunConfig, batch_size: int, *, keep_global: bool) -> RunConfig:
    """The run with another batch; with ``keep_global`` it accumulates as many micro batches as keep the global one."""
    if keep_global and config.global_batch_size is not None:
        return dataclasses.replace(config, batch_size=batch_size)  # which sets the number of micro batches itself
    micro_batches = samples_per_step(config) // batch_size if keep_global else config.accumulate_grad_batches
    return dataclasses.replace(
        config, batch_size=batch_size, accumulate_grad_batches=micro_batches, global_batch_size=None
    )
