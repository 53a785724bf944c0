"""CaptionModule: the LightningModule of the course."""

import math
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule

from labkit.borrowed.torch import local, multiply_all
from labkit.config.schema import RunConfig
from labkit.train.optimizers import build_optimizer, build_scheduler
from labkit.train.step import step_loss


class CaptionModule(LightningModule):
    """Fine-tune a model on captions.

    With ``loss_average=tokens`` a micro batch's loss is summed over its tokens, and the gradients are divided by the
    tokens of all micro batches before the optimizer steps: four batches of 16 then give the same update as one of 64,
    whether one after the other or on four devices. Losses stay on the device until ``take_losses`` is called, so no
    step waits for one.
    """

    def __init__(self, config: RunConfig, model: torch.nn.Module) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.strict_loading = False  # a checkpoint has the parameters that are trained, and no others
        self._pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._summed: torch.Tensor | None = None
        self._pending_samples = 0
        self._steps_done = 0
        self.samples = 0
        self._losses: list[torch.Tensor] = []
        self._validation: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.validation_losses: list[float] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Loss of one micro batch, to be differentiated."""
        loss, tokens = step_loss(self.model, batch)
        self._pending.append((loss.detach(), tokens))
        self._pending_samples += len(batch["labels"])
        return loss * tokens if self.config.loss_average == "tokens" else loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the effective batch's tokens, or its micro batches, of which a last group has fewer.

        Lightning has divided each micro batch's loss by ``accumulate_grad_batches`` whatever their number, and what
        several ranks have summed was divided by their number.
        """
        if self.config.placement.uses_zero:
            return  # it has the gradients in buffers of its own, and divides them there
        factor = self.trainer.accumulate_grad_batches * self.ranks
        if self.config.loss_average == "tokens":
            divisor = self._sums()[1]
        elif (divisor := len(self._pending) * self.ranks) == factor:
            return
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if grads:  # a rank of a pipeline may train nothing
            multiply_all([local(grad) for grad in grads], factor / divisor)

    def _sums(self) -> torch.Tensor:
        """Of the step's micro batches on all ranks: their losses, each times its weight, and the weights; summed once.

        A weight is the micro batch's tokens, or one.
        """
        if self._summed is None:
            losses = torch.stack([loss.float() for loss, _ in self._pending])
            weights = torch.stack([count for _, count in self._pending]).float()
            weights = weights if self.config.loss_average == "tokens" else torch.ones_like(weights)
            self._summed = torch.stack([(losses * weights).sum(), weights.sum()])
            self.over_ranks(self._summed)
        return self._summed

    @property
    def ranks(self) -> int:
        """How many ranks have a share of each batch."""
        return self.trainer.world_size

    def over_ranks(self, summed: torch.Tensor) -> None:
        """Make sums of this rank's share those of the whole batch, in place."""
        if self.ranks > 1:
            dist.all_reduce(summed)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss of an optimizer step that is done."""
        self.note_step()

    def note_step(self) -> None:
        """Note samples and loss of the optimizer step that is done, once; one that ran out of memory has none."""
        if self.trainer.global_step == self._steps_done:
            return
        self._steps_done = self.trainer.global_step
        self.samples += self._pending_samples * self.ranks
        loss, weight = self._sums()
        self._losses.append(loss / weight)
        self._pending, self._pending_samples, self._summed = [], 0, None

    def resume(self, step: int, samples: int, validation_losses: list[float | None]) -> None:
        """Count on from a step that was saved."""
        self._steps_done, self.samples = step, samples
        self.validation_losses = [math.nan if loss is None else loss for loss in validation_losses]

    def take_losses(self) -> list[float]:
        """Losses of the optimizer steps since the last call. Waits for the device."""
        taken, self._losses = self._losses, []
        return [float(loss) for loss in taken]

    def gathered(self) -> dict[str, torch.Tensor] | None:
        """What other ranks have trained too, where none has all of it; every rank must ask."""
        return None

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's batches."""
        self._validation = []

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Add one batch to the validation loss, a mean over all scored tokens."""
        self._validation.append(step_loss(self.model, batch))

    def on_validation_epoch_end(self) -> None:
        """Note this epoch's validation loss."""
        tokens = sum(int(count) for _, count in self._validation)
        self.validation_losses.append(sum(float(loss) * int(count) for loss, count in self._validation) / tokens)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule over the run's optimizer steps."""
        optimizer = build_optimizer(self.config, self.parameters())
        scheduler = build_scheduler(self.config, optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
