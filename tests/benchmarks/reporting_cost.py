"""What memory reporting costs per training step, against training without it. ``make bench`` runs it.

Claim: steps that are not reported cost less than 1% with ``MemoryCapture()``.

The variants of a group take turns inside one ``Trainer.fit``, step by step, on one model and one batch: in every round
each has one step, in an order drawn each time, and its time is divided by that of "no callback" in the same round. So
what changes slowly on a shared machine changes both. Time is CPU time of the process, which has one thread, so that
waiting for other processes does not count. "no callback, again" is measured like the others; how far it is from zero is
what the measurement cannot see.
"""

import logging
import os
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset, Subset

from labkit import assets
from labkit.borrowed.torch import TorchDispatchMode
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import Collator
from labkit.memory.capture import MemoryCapture
from labkit.memory.tracker import Tracker
from labkit.train.build import build_model
from labkit.train.data import EmojiZip, build_loader
from labkit.train.module import CaptionModule

CONFIG = RunConfig(
    model_name="tiny/blip2-opt-small", weights="random", batch_size=16, max_length=12, num_workers=0, capacity_gib=1
)
WARM_UP = 5
MANY, SOME = 300, 60
"""Rounds for a difference that is hardly there, and for one that is plain."""
NEVER, ALWAYS = 10**9, 1
BASE = "no callback"


@dataclass
class Variant:
    """One way to train: its callbacks, and what to do when its turn comes and goes."""

    callbacks: list[Callback] = field(default_factory=list)
    begin: Callable[[Trainer, LightningModule], None] = lambda trainer, module: None
    end: Callable[[], None] = lambda: None
    settle: int = 0
    """Steps before the one that is timed."""


def with_capture(report_every: int, simulated_gpu: bool) -> Variant:
    """Training with reports, on a simulated GPU that is always on or with the callback alone."""
    tracker = Tracker(CONFIG.capacity_bytes) if simulated_gpu else None
    capture = MemoryCapture(tracker, report_every)

    def begin(trainer: Trainer, module: LightningModule) -> None:
        if tracker is not None:
            tracker.__enter__()
        capture.on_train_start(trainer, module)

    def end() -> None:
        if tracker is not None:
            tracker.__exit__(None, None, None)

    return Variant([capture], begin, end, settle=1)


class Nothing(TorchDispatchMode):
    """A mode that is told of every operation and does nothing: what torch itself takes for one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def empty_mode() -> Variant:
    """Training below such a mode."""
    mode = Nothing()
    return Variant(begin=lambda *_: mode.__enter__(), end=lambda: mode.__exit__(None, None, None), settle=1)


class TakeTurns(Callback):
    """Time steps from end to end, and put the callbacks of the variant whose turn it is into the trainer."""

    def __init__(self, variants: dict[str, Variant], rounds: int) -> None:
        self.variants = variants
        self.rounds: list[dict[str, float]] = []
        draw = random.Random(0)
        self._turns = [(i, name) for i in range(rounds) for name in draw.sample(list(variants), len(variants))]
        self._current: tuple[int, str] | None = None
        self._left = WARM_UP
        self._last = 0.0
        self.steps = WARM_UP + rounds * sum(1 + variant.settle for variant in variants.values())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step more."""
        seconds = time.process_time() - self._last
        self._left -= 1
        if not self._left:
            self._next_turn(trainer, pl_module, seconds)
        self._last = time.process_time()

    def _next_turn(self, trainer: Trainer, module: LightningModule, seconds: float) -> None:
        if self._current is not None:
            index, name = self._current
            if index == len(self.rounds):
                self.rounds.append({})
            self.rounds[index][name] = seconds
            self.variants[name].end()
        module.take_losses()
        trainer.callbacks = [self]
        if self._turns:
            self._current = self._turns.pop(0)
            variant = self.variants[self._current[1]]
            trainer.callbacks = [*variant.callbacks, self]
            variant.begin(trainer, module)
            self._left = 1 + variant.settle


class SameBatch(Dataset):
    """One batch, as often as it is asked for; loading is not what is measured."""

    def __init__(self, batch: dict[str, torch.Tensor], count: int) -> None:
        self.batch = batch
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.batch


def one_batch() -> dict[str, torch.Tensor]:
    """The first batch of the embedded data."""
    arch = architecture(CONFIG.model_name)
    collate = Collator(
        Blip2Family().processor(arch), arch.language, CONFIG.max_length, arch.num_query_tokens, image_token_id=4
    )
    samples = Subset(EmojiZip(assets.FLUENT_EMOJI), range(CONFIG.batch_size))
    return next(iter(build_loader(CONFIG, samples, collate, train=False)))


def cpu_name() -> str:
    """The CPU's model name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure(variants: dict[str, Variant], rounds: int) -> list[dict[str, float]]:
    """Of every round, the seconds that a step took with each variant."""
    turns = TakeTurns(variants, rounds)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, callbacks=[turns], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    loader = DataLoader(SameBatch(one_batch(), turns.steps), batch_size=None)
    trainer.fit(CaptionModule(CONFIG, build_model(CONFIG, "cpu")), loader, loader)
    assert all(len(times) == len(variants) for times in turns.rounds)
    return turns.rounds


def print_extra(rounds: list[dict[str, float]]) -> None:
    """A line for each variant: its time, and what it adds to ``BASE`` in percent, with the spread over the rounds."""
    for name in sorted(rounds[0], key=lambda name: name != BASE):
        median_s = statistics.median(times[name] for times in rounds)
        extra = [100 * (times[name] / times[BASE] - 1) for times in rounds]
        low, middle, high = statistics.quantiles(extra, n=4)
        # standard error of a median, from the quartiles of what is nearly normal
        error = 1.2533 * (high - low) / 1.349 / len(extra) ** 0.5
        spread = f"{low:+.2f} to {high:+.2f}%"
        print(f"{name:30}{len(rounds):7}{1000 * median_s:10.2f} ms{middle:+9.2f}%{error:11.2f}%{spread:>20}")


def print_ratio(rounds: list[dict[str, float]], name: str, other: str) -> None:
    """A line with how many times the steps of one variant take the time of another's, in the same rounds."""
    low, middle, high = statistics.quantiles([times[name] / times[other] for times in rounds], n=4)
    print(f"{name}, over {other}: {middle:.3f} times ({low:.3f} to {high:.3f}, quartiles of {len(rounds)} rounds)")


def main() -> None:
    """Measure, and print a table."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="The '(train|val)_dataloader' does not have many workers")
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    print(f"{CONFIG.model_name}, batch {CONFIG.batch_size}, one thread of {cpu_name()}")
    print(f"Python {platform.python_version()}, torch {version('torch')}, lightning {version('lightning')}")
    print(f"{'':30}{'rounds':>7}{'a step':>13}{'extra':>10}{'std. error':>12}{'quartiles':>20}")
    capture = MemoryCapture(report_every=NEVER)
    unreported = Variant([capture], begin=capture.on_train_start)
    again = {"no callback, again": Variant(), "MemoryCapture(), unreported": unreported}
    print_extra(measure({BASE: Variant()} | again, MANY))
    assert not capture.report.phases
    empty, tracked = "empty dispatch mode", "simulated GPU, unreported"
    rounds = measure(
        {
            BASE: Variant(settle=1),
            empty: empty_mode(),
            tracked: with_capture(NEVER, simulated_gpu=True),
            "simulated GPU, reported": with_capture(ALWAYS, simulated_gpu=True),
            "MemoryCapture(), reported": with_capture(ALWAYS, simulated_gpu=False),
        },
        SOME,
    )
    print_extra(rounds)
    print_ratio(rounds, tracked, empty)


if __name__ == "__main__":
    main()
