"""Fallback: one change that takes memory off a run, and how changes go together."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from labkit.config.errors import ConfigError
from labkit.config.gpus import missing_bf16
from labkit.config.schema import RunConfig
from labkit.plan.search import samples_per_step

Kind = Literal["none", "time", "numerics", "quality"]
KINDS: tuple[Kind, ...] = ("none", "time", "numerics", "quality")
"""What a change can cost, least first."""

Changes = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """One change. ``change`` gives the keys for a run, or None where there is nothing to change.

    Fallbacks of one ``group`` replace each other. ``reach`` names what the change can make smaller, ``all`` if
    anything: no plan is spent on a change that cannot reach the peak. ``environment`` is set for the process.
    """

    name: str
    kind: Kind
    cost: str
    change: Callable[[RunConfig], Changes | None]
    group: str = ""
    reach: Literal["all", "activations", "optimizer"] = "all"
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def combine(base: RunConfig, fallbacks: Iterable[Fallback], bf16: bool = True) -> RunConfig | None:
    """The run with all of these changes, or None where one has nothing to change, or they do not go together."""
    config = base
    for fallback in fallbacks:
        changes = fallback.change(config)
        if changes is None:
            return None
        try:
            config = dataclasses.replace(config, **changes)
        except ConfigError:
            return None
    return config if bf16 or missing_bf16(config) is None else None


def add(
    base: RunConfig, fallbacks: tuple[Fallback, ...], fallback: Fallback, bf16: bool = True
) -> tuple[Fallback, ...] | None:
    """The fallbacks with one more; it replaces those of its group, and the optimizer's if they do not go with it."""
    for left_out in ({fallback.group}, {fallback.group, "optimizer"}):
        kept = (*(r for r in fallbacks if not r.group or r.group not in left_out), fallback)
        if combine(base, kept, bf16) is not None:
            return kept
    return None


def overrides(base: RunConfig, config: RunConfig) -> Changes:
    """The keys to type that make ``base`` into ``config``."""
    before, after = base.to_dict(), config.to_dict()
    changed = {key: value for key, value in after.items() if value != before[key]}
    if config.global_batch_size is not None:
        changed.pop("accumulate_grad_batches", None)  # follows from it
    return changed


def smaller_batches(config: RunConfig) -> list[int]:
    """Batch sizes below the run's that keep the samples of an optimizer step, ascending."""
    return [size for size in range(1, config.batch_size) if samples_per_step(config) % size == 0]
