"""Tune: a profile for a GPU without chosen batch sizes, so that the lessons of the course hold on it.

Each experiment is to end as in the course, with 5% of the capacity to spare either way, which is what the verdicts
``fits`` and ``out of memory`` mean. Models are the course's own or, on a smaller GPU, stand-ins of one share of the
layers each, so that a larger model stays the larger one. Batches are the largest powers of two, up to the course's,
that fit; experiments that are compared with each other get the same.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from labkit.config.catalogue.models import PUBLISHED, SCALES
from labkit.config.errors import ConfigError
from labkit.config.gpus import GPUS, Gpu, find_gpu, missing_bf16
from labkit.config.layers import BASE, DEFAULT_PROFILE, load_experiment
from labkit.config.profiles import load_profile
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.plan.cache import TraceCache
from labkit.plan.errors import PredictionError
from labkit.plan.predict import Prediction, predict
from labkit.plan.search import samples_per_step, search, with_batch

REAL = {name: name for name in PUBLISHED}
"""The course's models, each standing for itself."""

MOST_SCALES = 4
"""Shares of the layers that are tried before the best of them is taken."""

LARGER_BASELINE = 8
"""How many times its batch the baseline may get, on a GPU where it fits."""

_FITS, _OUT = "fits", "out of memory"
_SAME_BATCH = (
    ("reduced_batch", "grad_accumulation", "grad_accumulation_lr4x", "bf16_true", "bf16_mixed"),
    ("xxl", "xxl_sgd", "xxl_cpu_offload"),
    ("xxl_adam8bit", "xxl_checkpointing"),
)
"""Experiments whose memory is compared, so that their batches must not differ."""
_ONE_MICRO_BATCH = "reduced_batch"
"""Its successor shows what accumulating does; it has no more micro batches itself."""
_ABOUT_16_BITS = ("bf16_true", "larger_model")
"""Lessons about weights in 16 bits, which mixed precision cannot show."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One experiment on the GPU. ``reason`` says why it cannot be had there; then it is skipped.

    ``values`` are those that differ from the experiment's file, ``comments`` say why.
    """

    experiment: str
    wanted: str
    config: RunConfig
    values: dict[str, Any] = field(default_factory=dict)
    comments: tuple[str, ...] = ()
    prediction: Prediction | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What ``tune`` found. ``models`` puts a stand-in for each of the course's models; empty where they are real."""

    gpu: Gpu
    scale: str | None
    models: dict[str, str]
    lessons: list[Lesson]

    @property
    def held(self) -> list[Lesson]:
        """The lessons that hold."""
        return [lesson for lesson in self.lessons if lesson.reason is None]

    @property
    def skipped(self) -> dict[str, str]:
        """The others, with the reason."""
        return {lesson.experiment: lesson.reason for lesson in self.lessons if lesson.reason is not None}


def tune(
    workspace: Workspace, gpu: str, cache: TraceCache | None = None, *,
    scales: Iterable[str | None] | None = None, models_of: Callable[[str | None], dict[str, str]] | None = None,
    device: str = "cuda", capacity_bytes: int | None = None, say: Callable[[str], None] | None = None,
) -> Tuned:  # fmt: skip
    """Models and batches for which the lessons of the course hold on a GPU, every one planned.

        tune(Workspace.find(), "24GiB").skipped

    ``scales`` are the shares of the layers to try, in that order; by default the full size and the keys of ``SCALES``,
    those first whose share is nearest to the GPU's of an H100. The first for which all lessons hold is taken, else
    the one with the most of them. ``models_of``, ``device`` and ``capacity_bytes`` are for other machines than GPUs.

    Raises ``ConfigError`` for an unknown GPU and for a workspace without the course.
    """
    card = find_gpu(gpu)
    capacity = capacity_bytes or card.usable_bytes
    wanted = {name: _OUT if e.status == "oom" else _FITS for name, e in _course(workspace).items()}
    order = list(scales) if scales is not None else _nearest_scales(capacity)
    best: Tuned | None = None
    for scale in order:
        if say is not None:
            say(f"planning the course with {'its own models' if scale is None else f'models of {scale} size'}")
        models = (models_of or stand_ins)(scale)
        machine = card.values | {"device": device, "capacity_gib": capacity / 2**30}
        attempt = _Attempt(workspace, card, machine, models, wanted, cache or TraceCache.find())
        found = Tuned(gpu=card, scale=scale, models=models, lessons=attempt.lessons())
        if best is None or len(found.held) > len(best.held):
            best = found
        lacking = {lesson.experiment for lesson in found.lessons if lesson.prediction is None and lesson.reason}
        if set(found.skipped) <= lacking:  # what is skipped is skipped whatever the models are
            break
    if best is None:
        raise ValueError("scales is empty: there are no models to plan the course with")
    return best


def stand_ins(scale: str | None) -> dict[str, str]:
    """A stand-in of a share of the layers for each model of the course; empty for the full size."""
    return {} if scale is None else {name: f"{scale}/{name.partition('/')[2]}" for name in REAL}


def _course(workspace: Workspace) -> dict[str, Any]:
    course = load_profile(workspace, DEFAULT_PROFILE).expected
    if BASE not in course:
        raise ConfigError(f"{workspace.profiles / DEFAULT_PROFILE}.yaml has no {BASE}: there is no course to tune for.")
    return course


def _nearest_scales(capacity_bytes: int) -> list[str | None]:
    """The share of the layers nearest to the GPU's share of an H100, where the full size is the course's; then smaller
    ones, since what takes more bytes than in the course may still fit there; then larger ones."""
    share = capacity_bytes / GPUS["h100-94gb"].usable_bytes
    shares: dict[str | None, float] = {None: 1.0, **{word: 1 / parts for word, parts in SCALES.items()}}
    nearest = min(shares, key=lambda word: abs(math.log(shares[word] / share)))
    smaller = [word for word in shares if shares[word] < shares[nearest]]
    larger = [word for word in reversed(shares) if shares[word] > shares[nearest]]
    return [nearest, *smaller, *larger][:MOST_SCALES]


class _Attempt:
    """The course on one GPU with one set of models."""

    def __init__(
        self, workspace: Workspace, gpu: Gpu, machine: dict[str, Any], models: dict[str, str],
        wanted: dict[str, str], cache: TraceCache,
    ) -> None:  # fmt: skip
        self.gpu = gpu
        self.cache = cache
        self.start: dict[str, Lesson] = {}
        base = load_experiment(workspace, BASE).values
        for name, verdict in wanted.items():
            values: dict[str, Any] = {**base, **load_experiment(workspace, name).values, **machine}
            model = values.get("model_name", RunConfig.model_name)
            values |= {"model_name": models.get(model, model), "weights": "random"}
            self.start[name] = self._for_gpu(Lesson(experiment=name, wanted=verdict, config=RunConfig(**values)))

    def _for_gpu(self, lesson: Lesson) -> Lesson:
        lacking = None if self.gpu.bf16 else missing_bf16(lesson.config)
        if lacking is None:
            return lesson
        no_bf16 = f"{self.gpu.name} has no bf16"
        # DeepSpeed with mixed precision is not planned; in 32 bits it shows the same
        precision = "32-true" if lesson.config.placement.uses_zero else "16-mixed"
        if lesson.experiment in _ABOUT_16_BITS or lesson.config.use_qlora:
            return dataclasses.replace(lesson, reason=f"needs {lacking}, and {no_bf16}")
        config = dataclasses.replace(lesson.config, precision=precision)
        comment = f"original: {lesson.config.precision}; {no_bf16}"
        return dataclasses.replace(lesson, config=config, values={"precision": precision}, comments=(comment,))

    def lessons(self) -> list[Lesson]:
        """All lessons, in the order of the course."""
        self.cache.fill(lesson.config for lesson in self.start.values() if lesson.reason is None)
        found = {name: self._alone(lesson) for name, lesson in self.start.items()}
        for group in _SAME_BATCH:
            self._same_batch([found[name] for name in group if name in found], found)
        for name, lesson in found.items():
            if lesson.wanted == _OUT and lesson.reason is None:
                found[name] = self._out_of_memory(lesson)
        return list(found.values())

    def _alone(self, lesson: Lesson) -> Lesson:
        """The lesson at its largest batch that fits; one that is to run out of memory as it is."""
        if lesson.reason is not None or lesson.wanted == _OUT:
            return lesson
        sizes = [2**n for n in range(lesson.config.batch_size.bit_length()) if 2**n <= lesson.config.batch_size]
        try:
            found = search(sizes, lambda size: self._plan(lesson, size), near=sizes[-1])
        except PredictionError as error:
            return dataclasses.replace(lesson, reason=f"cannot be predicted: {error}")
        if found.batch_size is None or found.prediction is None:
            return dataclasses.replace(lesson, prediction=found.above, reason=self._too_large(found.above, sizes[0]))
        above, why = found.above, ""
        if above is not None:
            why = f"{found.above_batch_size} is {above.verdict}, peak {above.peak_bytes / 2**30:.1f} GiB"
        return self._with_batch(lesson, found.batch_size, found.prediction, why)

    def _same_batch(self, group: list[Lesson], found: dict[str, Lesson]) -> None:
        """Give those that hold the smallest batch of them. Where that does not fit either, a still smaller one."""
        held = [lesson for lesson in group if lesson.reason is None]
        size = min((lesson.config.batch_size for lesson in held), default=0)
        plans: dict[str, Prediction] = {}
        while size:
            plans = {lesson.experiment: self._plan(self.start[lesson.experiment], size) for lesson in held}
            if all(plans[lesson.experiment].verdict == _FITS for lesson in held if lesson.wanted == _FITS):
                break
            size //= 2
        smallest = next((lesson.experiment for lesson in held if lesson.config.batch_size == size), "")
        for lesson in held:
            name = lesson.experiment
            if size and lesson.config.batch_size > size:
                found[name] = self._with_batch(self.start[name], size, plans[name], f"as {smallest}")

    def _out_of_memory(self, lesson: Lesson) -> Lesson:
        start = self.start[lesson.experiment]
        size = lesson.config.batch_size
        prediction = lesson.prediction or self._plan(start, size)  # of a group it was planned there
        most = size * LARGER_BASELINE if lesson.experiment == BASE else size  # of xxl the optimizer step is the lesson
        while prediction.verdict != _OUT and 2 * size <= most:
            size *= 2
            prediction = self._plan(start, size)
        if prediction.verdict == _OUT:
            if size == lesson.config.batch_size:
                return dataclasses.replace(lesson, prediction=prediction)
            return self._with_batch(start, size, prediction, "fewer fit")
        peak, capacity = prediction.peak_bytes / 2**30, (prediction.capacity_bytes or 0) / 2**30
        reason = f"is to run out of memory and does not: batch_size={size} takes {peak:.1f} of {capacity:.1f} GiB"
        return dataclasses.replace(lesson, prediction=prediction, reason=reason)

    def _plan(self, lesson: Lesson, size: int) -> Prediction:
        return predict(self._resized(lesson, size), cache=self.cache)

    @staticmethod
    def _resized(lesson: Lesson, size: int) -> RunConfig:
        keep = lesson.experiment not in (_ONE_MICRO_BATCH, BASE) and samples_per_step(lesson.config) % size == 0
        return with_batch(lesson.config, size, keep_global=keep)

    def _with_batch(self, start: Lesson, size: int, prediction: Prediction, why: str = "") -> Lesson:
        config = self._resized(start, size)
        values = dict(start.values)
        before = [("batch_size", start.config.batch_size), ("accumulate_grad_batches",
                                                            start.config.accumulate_grad_batches)]  # fmt: skip
        changed = {key: was for key, was in before if getattr(config, key) != was}
        values |= {key: getattr(config, key) for key in changed}
        comments = start.comments
        if changed:
            original = f"original: {' and '.join(str(was) for was in changed.values())}"
            comments = (*comments, f"{original}; {why}" if why else original)
        return dataclasses.replace(start, config=config, values=values, comments=comments, prediction=prediction)

    def _too_large(self, found: Prediction | None, size: int) -> str:
        if found is None:
            return "fits at no batch size"
        peak, capacity = found.peak_bytes / 2**30, (found.capacity_bytes or 0) / 2**30
        return f"batch_size={size} takes {peak:.1f} GiB, and {capacity:.1f} GiB are there"
