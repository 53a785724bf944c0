"""Place: where in a run a checkpoint is, at which steps a run has one, and how many lie between two of them."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.config.regular_file import read_regular
from labkit.config.schema import RunConfig

FOLDER = "checkpoints"
"""Below a run's folder: one folder a saved step, ``step-000012``, whole or not there."""

PLACE = "place.json"
"""In the folder of a saved step: its ``Place``."""

SHARE = 0.05
"""Share of a run's steps between two saved ones, unless ``save_every`` says otherwise."""

LONGEST_BYTES = 2**20
"""What the file of a place may have: it holds a number for every epoch."""

_STEP = re.compile(r"step-([0-9]{1,15})")
_MOST = 2**53
"""No count of a run is near it, and every JSON reader has whole numbers up to there."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in the run a saved step is, and what its record had by then.

    ``epoch`` and ``batch`` name the batch to go on with.
    """

    step: int
    epoch: int
    batch: int
    samples: int
    train_seconds: float
    validation_losses: list[float | None]

    @classmethod
    def of(cls, saved: Path) -> "Place":
        """The place of a saved step; ``OSError``, or ``ValueError`` with what is wrong, for a folder that has none."""
        try:
            # older ones have NaN for what is null now
            place = cls(**json.loads(read_regular(saved / PLACE, LONGEST_BYTES), parse_constant=lambda _: None))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"{PLACE}: {error}") from None
        for key in ("step", "epoch", "batch", "samples"):
            value = getattr(place, key)
            if type(value) is not int or not 0 <= value < _MOST:
                raise ValueError(f"{PLACE} has {key}={value!r:.50}, which is no count")
        if not _is_number(place.train_seconds) or place.train_seconds < 0:
            raise ValueError(f"{PLACE} has train_seconds={place.train_seconds!r:.50}, which is no time")
        losses = place.validation_losses
        if not isinstance(losses, list) or not all(loss is None or _is_number(loss) for loss in losses):
            raise ValueError(f"{PLACE} has validation_losses that are no numbers")
        if (named := step_of(saved)) is not None and place.step != named:
            raise ValueError(f"{PLACE} has step={place.step}, its folder is called {saved.name}")
        return place


def step_of(saved: Path) -> int | None:
    """The step in the name of a saved step's folder; None for another name."""
    found = _STEP.fullmatch(saved.name)
    return int(found[1]) if found else None


def saved_steps(run: Path) -> list[Path]:
    """Folders of the steps that a run has saved, oldest first."""
    found = [(step, path) for path in (run / FOLDER).glob("step-*") if (step := step_of(path)) is not None]
    return [path for _, path in sorted(found)]


def steps_between(config: RunConfig, steps: int) -> int:
    """Optimizer steps from one checkpoint to the next, in a run of so many."""
    return config.save_every or max(1, round(steps * SHARE))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _MOST and math.isfinite(value)
