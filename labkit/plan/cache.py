"""Cache: steps are executed once and then remembered; another capacity needs no new execution."""

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig
from labkit.config.versions import version_of
from labkit.config.workspace import Workspace
from labkit.plan.errors import PredictionError
from labkit.plan.garbage import collect_seldom
from labkit.plan.trace import Trace

WITHOUT_EFFECT = frozenset({
    "weights", "dataset", "num_train_samples", "val_fraction", "num_workers", "lr", "lr_scaling", "lr_schedule",
    "warmup_steps", "collective_timeout_s",
    "global_batch_size", "max_epochs", "max_steps", "limit_train_batches", "seed", "lora_alpha", "capacity_gib",
    "report_every", "enable_checkpointing", "save_every", "keep_checkpoints", "save_model",
})  # fmt: skip
"""Keys that change nothing in a step's memory."""

ROOMS = ("borrowed", "config", "families", "memory", "plan", "train")
"""What is executed; an edit of a module there makes every entry one of other versions."""


class TraceCache:
    """Traces by config and versions: in this process, and in a folder if there is one.

    An entry that cannot be read is made again. Entries of other versions stay until the folder is deleted.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._known: dict[str, Trace] = {}

    @staticmethod
    def find() -> "TraceCache":
        """The one of the workspace."""
        return _of_folder(Workspace.find().predictions)

    def has(self, config: RunConfig) -> bool:
        """Whether nothing needs to be executed."""
        key = _key(config)
        if key not in self._known and (found := self._read(key)) is not None:
            self._known[key] = found
        return key in self._known

    def trace(self, config: RunConfig) -> Trace:
        """The first two steps of a run; executed if they have not been. Raises ``PredictionError``."""
        key = _key(config)
        if key not in self._known:
            self._known[key] = self._read(key) or self._execute(key, config)
        return self._known[key]

    def fill(self, configs: Iterable[RunConfig]) -> None:
        """Execute what is missing of many runs, in a process for each core; without a folder nothing is done."""
        missing = {_key(config): config for config in configs if not self.has(config)}
        workers = min(os.cpu_count() or 1, len(missing))
        if self.folder is None or workers < 2:
            return
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            list(pool.map(_fill, [self.folder] * len(missing), missing.values()))

    def _read(self, key: str) -> Trace | None:
        if self.folder is None:
            return None
        try:
            return Trace.load(self.folder / f"{key}.npz")
        except (OSError, ValueError):
            return None

    def _execute(self, key: str, config: RunConfig) -> Trace:
        from labkit.plan.steps import trace  # models and their libraries, which a hit does not need

        found = trace(config)
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                found.save(self.folder / f"{key}.npz")
            except OSError:  # no room, or no right to write: the prediction is there all the same
                self.folder = None
        return found


def _fill(folder: Path, config: RunConfig) -> None:
    """In a process of its own. What cannot be predicted says so when it is asked for."""
    collect_seldom()
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # what libraries say while they load
    warnings.simplefilter("ignore")
    with contextlib.suppress(PredictionError, ConfigError):
        TraceCache(folder).trace(config)


@cache
def _of_folder(folder: Path) -> TraceCache:
    return TraceCache(folder)


def _key(config: RunConfig) -> str:
    values = {key: value for key, value in config.to_dict().items() if key not in WITHOUT_EFFECT}
    values["accumulate_grad_batches"] = min(config.accumulate_grad_batches, 2)  # no more are executed
    values["architecture"] = repr(config.architecture)  # of a folder its name says nothing
    return hashlib.sha256(json.dumps([values, _versions()], sort_keys=True).encode()).hexdigest()[:24]


@cache
def _versions() -> list[str]:
    """The libraries whose operations are executed, and the text of the rooms that do."""
    text = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((Path(__file__).parents[1] / room).rglob("*.py")):
            text.update(path.read_bytes())
    names = ("torch", "transformers", "peft", "bitsandbytes")
    return [*(f"{name} {version_of(name)}" for name in names), text.hexdigest()]
