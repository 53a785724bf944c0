"""Place: where in a run a checkpoint is, which steps a run has saved, and how many lie between two of them."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.config.regular_file import read_regular
from labkit.config.schema import RunConfig

FOLDER = "checkpoints"
"""Below a run's folder: one folder for each checkpoint, ``step-000012``, whole or not there."""

PLACE = "place.json"
"""In the folder of a checkpoint: its ``Place``."""

SHARE = 0.05
"""Share of a run's steps between two saved ones, unless ``save_every`` says otherwise."""

LONGEST_BYTES = 2**20
"""Largest file of a place, in bytes: it holds a number for every epoch."""

_STEP = re.compile(r"step-([0-9]{1,15})")
_MOST = 2**53
"""No count of a run comes near it, and every JSON reader can hold whole numbers up to there."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in the run a checkpoint is, and what its record had by then.

    ``epoch`` and ``batch`` name the batch to resume with.
    """

    step: int
    epoch: int
    batch: int
    samples: int
    train_seconds: float
    validation_losses: list[float | None]

    @classmethod
    def of(cls, saved: Path) -> "Place":
        """The place of a checkpoint; ``OSError``, or ``ValueError`` with what is wrong, for a folder that has none."""
        try:
            # older ones have NaN for what is null now
            place = cls(**json.loads(read_regular(saved / PLACE, LONGEST_BYTES), parse_constant=lambda _: None))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"{PLACE}: {error}") from None
        for key in ("step", "epoch", "batch", "samples"):
            value = getattr(place, key)
            if type(value) is not int or not 0 <= value < _MOST:
                raise ValueError(f"{PLACE} has {key}={value!r:.50}, which is not a count")
        if not _is_number(place.train_seconds) or place.train_seconds < 0:
            raise ValueError(f"{PLACE} has train_seconds={place.train_seconds!r:.50}, which is not a time")
        losses = place.validation_losses
        if not isinstance(losses, list) or not all(loss is None or _is_number(loss) for loss in losses):
            raise ValueError(f"{PLACE} has validation_losses that are not numbers")
        if (named := step_of(saved)) is not None and place.step != named:
            raise ValueError(f"{PLACE} has step={place.step}, its folder is called {saved.name}")
        return place


def step_of(saved: Path) -> int | None:
    """The step in the name of a checkpoint's folder; None for another name."""
    found = _STEP.fullmatch(saved.name)
    return int(found[1]) if found else None


def checkpoints(run: Path) -> list[Path]:
    """Folders of the steps that a run has saved, oldest first."""
    found = [(step, path) for path in (run / FOLDER).glob("step-*") if (step := step_of(path)) is not None]
    return [path for _, path in sorted(found)]


def steps_between(config: RunConfig, steps: int) -> int:
    """Optimizer steps from one checkpoint to the next, in a run of so many."""
    return config.save_every or max(1, round(steps * SHARE))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _MOST and math.isfinite(value)
