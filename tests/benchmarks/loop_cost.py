"""What the runner's loop costs: samples a second of Lightning's Trainer with our module, over a bare loop's.

    python tests/benchmarks/loop_cost.py

Both train the same model on the same batch, in turns: in every round each makes the same steps, in an order drawn each
time, on one thread and in CPU time. The bare loop is what anybody writes by hand: forward, backward, ``step``,
``zero_grad``. Nothing is tracked; what the simulated GPU adds is in ``reporting_cost.py``.
"""

import logging
import os
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from reporting_cost import CONFIG, SameBatch, cpu_name, one_batch
from torch.utils.data import DataLoader

from labkit.train.build import build_model
from labkit.train.module import CaptionModule
from labkit.train.optimizers import build_optimizer

ROUNDS, STEPS, WARM_UP = 15, 12, 2


class Clock(Callback):
    """CPU time at the end of every step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step more."""
        self.at.append(time.process_time())


def per_step_s(at: list[float]) -> float:
    """Of the steps after the first ones."""
    return (at[-1] - at[WARM_UP - 1]) / (len(at) - WARM_UP)


def bare(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Seconds a step of a loop by hand."""
    optimizer, at = build_optimizer(CONFIG, model.parameters()), []
    for _ in range(STEPS):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        at.append(time.process_time())
    return per_step_s(at)


def by_trainer(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Seconds a step of the runner's."""
    clock = Clock()
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, callbacks=[clock], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(CaptionModule(CONFIG, model), DataLoader(SameBatch(batch, STEPS), batch_size=None))
    return per_step_s(clock.at)


def main() -> None:
    """Measure, and print a line."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    batch, model, draw = one_batch(), build_model(CONFIG, "cpu"), random.Random(0)
    loops: list[Callable[..., float]] = [bare, by_trainer]
    shares = []
    for _ in range(ROUNDS):
        found = {loop: loop(model, batch) for loop in draw.sample(loops, len(loops))}
        shares.append(found[bare] / found[by_trainer])
    low, middle, high = statistics.quantiles(shares, n=4)
    print(f"{CONFIG.model_name}, batch {CONFIG.batch_size}, one thread of {cpu_name()}")
    print(f"Python {platform.python_version()}, torch {version('torch')}, lightning {version('lightning')}")
    print(
        f"samples a second of the runner's loop, over a bare loop's: {middle:.3f} ({low:.3f} to {high:.3f}, quartiles "
        f"of {ROUNDS} rounds of {STEPS - WARM_UP} steps)"
    )


if __name__ == "__main__":
    main()
