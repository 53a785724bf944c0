"""Progress: the events that a run writes while it trains."""

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from labkit.train.events import EventWriter

PROGRESS_EVERY_S = 0.5


class Progress(Callback):
    """Write a ``progress`` event now and then, not at every step: reading a loss waits for the device."""

    def __init__(self, events: EventWriter, train_seconds: float = 0.0) -> None:
        self._events = events
        self._before = train_seconds
        self._started = 0.0
        self._ended: float | None = None
        self._written = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, or let it continue; building and loading are not training."""
        self._written = time.perf_counter()
        self._started = self._written - self._before
        self._ended = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write, if the last event is old enough."""
        if time.perf_counter() - self._written > PROGRESS_EVERY_S:
            self.flush(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: what Lightning and the run do after this is not training."""
        self.flush(trainer, pl_module)
        self._ended = self._written

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the clock of a run that ends early."""
        self._ended = time.perf_counter()

    def flush(self, trainer: Trainer, pl_module: LightningModule) -> float:
        """Write the losses that are new; the seconds of training so far."""
        losses = pl_module.take_losses()  # waits for the device, so it comes before the clock is read
        self._written = time.perf_counter() if self._ended is None else self._ended
        seconds = self._written - self._started if self._started else self._before
        self._events.write(
            "progress", step=trainer.global_step, losses=finite(losses), samples=pl_module.samples,
            train_seconds=round(seconds, 3),
        )  # fmt: skip
        return seconds


def finite(losses: list[float]) -> list[float | None]:
    """JSON has no word for what is not a number."""
    return [loss if math.isfinite(loss) else None for loss in losses]
