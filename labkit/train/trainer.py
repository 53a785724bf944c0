"""Trainer: Lightning's, set up by a run's config, without what the run does by itself."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from labkit.config.schema import RunConfig
from labkit.train.state_files import HostCheckpoints
from labkit.train.strategies import build_strategy


def build_trainer(config: RunConfig, folder: Path, callbacks: list[Callback]) -> Trainer:
    """The trainer of a run, or of one rank of it."""
    return Trainer(
        accelerator="cpu" if config.simulated else "gpu",
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=build_strategy(config),
        precision=config.precision,
        max_epochs=config.max_epochs,
        max_steps=config.max_steps or -1,
        limit_train_batches=config.limit_train_batches,
        accumulate_grad_batches=config.accumulate_grad_batches,
        callbacks=callbacks,
        plugins=_plugins(config),
        default_root_dir=folder,
        enable_checkpointing=False,  # Checkpoints does it
        use_distributed_sampler=False,  # offload counts as distributed; EpochOrder says what comes
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _plugins(config: RunConfig) -> list[Any]:
    """Our own checkpoints, and how the ranks were started; Lightning would guess that from the machine."""
    found: list[Any] = [] if config.placement.uses_zero else [HostCheckpoints()]
    tasks = config.world_size > 1 and "RANK" not in os.environ
    # the watcher hears of the end of a job, and queues it again
    return [*found, SLURMEnvironment(auto_requeue=False) if tasks else LightningEnvironment()]
