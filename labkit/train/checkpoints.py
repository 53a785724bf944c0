"""Checkpoints: what a run keeps on disk to resume where it stopped."""

import contextlib
import json
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from labkit.config.place import FOLDER, PLACE, Place, checkpoints, steps_between
from labkit.config.schema import RunConfig
from labkit.memory.tracker import host
from labkit.train.disk_room import room_for
from labkit.train.optimizers import count_up
from labkit.train.own_state import RANDOM, of_rank, random_state, set_random_state
from labkit.train.progress import finite
from labkit.train.state_files import HostCheckpoints, reading

STATE = "state.ckpt"
"""In the folder of a checkpoint: Lightning's file, or DeepSpeed's folder."""


class Interrupted(Exception):
    """The run was asked to stop, and has saved its last step."""


class Checkpoints(Callback):
    """Save the run every few optimizer steps and keep the newest of them.

    Saved are the parameters that are trained, optimizer, schedule, Lightning's loops and the random state; frozen
    weights are made again. A checkpoint gets its name when it is whole on disk, so that a crash never damages an
    earlier one. After ``stop`` the next step is saved and the run ends with ``Interrupted``. ``before_saving`` is
    called first, so that events never lag behind what is saved.

    Of several ranks all save the same steps, each its own part, and all stop after the same step, whichever of them
    was asked to. Rank 0 gives the folder its name when every part is there.

    Raises ``CheckpointError`` when the disk is full.
    """

    def __init__(self, folder: Path, config: RunConfig, steps: int, before_saving: Any, rank: int = 0) -> None:
        self.folder = folder / FOLDER
        self._rank, self._several = rank, config.world_size > 1
        self._every = steps_between(config, steps)
        self._keep = config.keep_checkpoints
        self._before_saving = before_saving
        self._was_asked = False
        self._step = 0
        self._is_due = False
        self._random_state: dict[str, Any] | None = None

    def stop(self) -> None:
        """End the run when the step in progress is done."""
        self._was_asked = True

    def listen(self) -> None:
        """From now on SIGINT and SIGTERM are requests to ``stop``."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())

    # -- Lightning's hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen again: Lightning's own handler of SIGTERM ends a run after a micro batch, and makes one rank wait
        for others that have heard nothing."""
        self.listen()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take random state and optimizer up where they were: here, since the loaders have drawn by now."""
        self._step = trainer.global_step
        if self._random_state is not None:
            with host():
                count_up(trainer.optimizers[0], trainer.global_step)
            with reading(Path(trainer.ckpt_path).parent):
                set_random_state(self._random_state)
            self._random_state = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimizer step; the last of an epoch is saved after its validation."""
        stepped = trainer.global_step != self._step
        self._is_due = stepped and (self._must_stop(trainer) or trainer.global_step % self._every == 0)
        if self._is_due and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            pl_module.note_step()
            self._save(trainer, pl_module, trainer.current_epoch, batch_idx + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch's last step, if it is due."""
        if self._is_due:
            self._save(trainer, pl_module, trainer.current_epoch + 1, 0)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out frozen weights, and add the random state."""
        trained = trained_names(pl_module)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["random_state"] = random_state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep this rank's random state for the first batch."""
        if self._rank:
            checkpoint = HostCheckpoints().load_checkpoint(
                of_rank(Path(trainer.ckpt_path).with_name(RANDOM), self._rank)
            )
        with reading(Path(trainer.ckpt_path).parent):
            self._random_state = checkpoint["random_state"]

    # -- saving

    def _save(self, trainer: Trainer, module: LightningModule, epoch: int, batch: int) -> None:
        self._is_due = False
        train_seconds = self._before_saving(trainer, module)
        place = Place(
            step=trainer.global_step, epoch=epoch, batch=batch, samples=module.samples, train_seconds=train_seconds,
            validation_losses=finite(module.validation_losses),
        )  # fmt: skip
        target = self.folder / f"step-{place.step:06}"
        partial = self.folder / f".{target.name}.partial"
        with room_for(partial):
            if not self._rank:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            with host(), _quiet():
                trainer.strategy.barrier()  # the folder is there
                if self._rank:
                    HostCheckpoints().save_checkpoint(
                        {"random_state": random_state()}, of_rank(partial / RANDOM, self._rank)
                    )
                trainer.save_checkpoint(partial / STATE)  # all have written when it comes back
            if not self._rank:
                (partial / PLACE).write_text(json.dumps(asdict(place)), encoding="utf-8")
                self._give_name(partial, target)
        if self._must_stop(trainer):  # no rank knows before rank 0 is here, so none ends while another still saves
            raise Interrupted(f"interrupted after step {place.step}, which is saved")

    def _give_name(self, partial: Path, target: Path) -> None:
        """Make a step that is whole one that is saved, and let older ones go."""
        _to_disk(partial)
        if target.exists():  # saved before, and reached again from an earlier step
            shutil.rmtree(target)
        partial.rename(target)
        _sync(self.folder)
        for old in checkpoints(self.folder.parent)[: -self._keep]:
            shutil.rmtree(old)

    def _must_stop(self, trainer: Trainer) -> bool:
        """Whether any rank was asked to stop: all give the same answer, and so all must ask."""
        if not self._several:
            return self._was_asked
        with host():
            return trainer.strategy.reduce_boolean_decision(self._was_asked, all=False)


def trained_names(module: nn.Module) -> set[str]:
    """Names of the parameters that are trained."""
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # it says that each rank writes a part, which is what is wanted
        warnings.filterwarnings("ignore", message="When saving the DeepSpeed Stage 3 checkpoint")
        yield


def _to_disk(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
