"""Rounding: how many weights an optimizer step leaves as they were, because the update is lost in their format.

    python -m labkit.train.rounding '{"configs": [{...}, ...], "data_folder": "..."}'

Prints a JSON list, one entry a config. Trains on the CPU without a tracker: numbers are counted, not bytes.
"""

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from labkit.config.schema import RunConfig
from labkit.families.known import family_of
from labkit.train.build import build_model
from labkit.train.data import build_loader, load_samples
from labkit.train.module import CaptionModule


class LostUpdates(Callback):
    """Counts, for every optimizer step, the weights with a gradient and those of them that the step did not change.

    ``updates`` and ``lost`` hold one number a step. Weights whose gradient is exactly zero, such as the embeddings of
    words that no caption has, are not counted. Keeps a copy of the weights during each step.
    """

    def __init__(self) -> None:
        self.updates: list[int] = []
        self.lost: list[int] = []
        self._before: list[tuple[torch.nn.Parameter, torch.Tensor, torch.Tensor]] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Keep the weights as they are, and which of them have a gradient."""
        found = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._before = [(p, p.detach().clone(), p.grad != 0) for p in found]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare, if a step was made."""
        if not self._before:
            return
        self.updates.append(sum(int(has_gradient.sum()) for _, _, has_gradient in self._before))
        self.lost.append(sum(int(((p == old) & has).sum()) for p, old, has in self._before))
        self._before = []


def count(config: RunConfig, data_folder: Path) -> dict[str, Any]:
    """Train as the config says, on the CPU, and count.

    ``precision, lr, updates, lost, losses``: the last three hold one number an optimizer step.
    """
    seed_everything(config.seed, workers=True, verbose=False)
    samples, _ = load_samples(config, data_folder)
    model = build_model(config, "cpu")
    module = CaptionModule(config, model)
    family = family_of(config.architecture)
    collate = family.collate(family.processor(config.architecture), model.config, config.max_length)
    counter = LostUpdates()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu", devices=1, precision=config.precision, max_epochs=config.max_epochs,
            max_steps=config.max_steps or -1, accumulate_grad_batches=config.accumulate_grad_batches,
            callbacks=[counter], default_root_dir=folder, enable_checkpointing=False, logger=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        ).fit(module, build_loader(config, samples, collate, train=True))  # fmt: skip
    return {
        "precision": config.precision, "lr": config.lr, "updates": counter.updates, "lost": counter.lost,
        "losses": module.take_losses(),
    }  # fmt: skip


def main() -> None:
    """Count for the configs on the command line."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # Lightning's advice about workers; errors still end the process
    request = json.loads(sys.argv[1])
    found = [count(RunConfig(**config), Path(request["data_folder"])) for config in request["configs"]]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
