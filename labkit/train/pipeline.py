"""Pipeline parallel: consecutive layers on each rank, in a pipeline that micro batches go through (torch's GPipe)."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.pipelining import PipelineStage

from labkit.borrowed.torch_pipelining import GPipe
from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig
from labkit.families.batch import IGNORED
from labkit.families.known import family_of
from labkit.train.in_place import InPlace
from labkit.train.models import dtype_of
from labkit.train.module import CaptionModule
from labkit.train.own_state import OwnState
from labkit.train.partition import cut


class PipelineStrategy(OwnState, InPlace, DDPStrategy):
    """A process group and nothing more: no two ranks hold the same layers."""

    def configure_ddp(self) -> None:
        """Wrap nothing."""


class PipelineModule(CaptionModule):
    """A ``CaptionModule`` of which each rank trains its own layers, over the same batches.

    Give it a model in host memory: no rank's device ever holds all of it. A batch goes through in as many chunks as
    there are ranks, of which the first have a sample more where the ranks do not divide it. The embedding of the
    text, which the first and the last layers of the language model share, is on two ranks, and so their gradients are
    summed.
    """

    stage_class: type[PipelineStage] = PipelineStage
    schedule_class: type[GPipe] = GPipe

    def __init__(self, config: RunConfig, model: Any, rank: int) -> None:
        whole = model.get_base_model() if config.use_lora or config.use_qlora else model
        # PEFT sends gradients back to every embedding where act_ckpt is set; only reentrant checkpoints need them there
        whole.disable_input_require_grads()
        stages = family_of(model.config).stages(whole)
        try:
            plan = cut(stages.units, config.world_size)
        except ValueError as error:
            raise ConfigError(
                f"devices={config.devices} does not go with model_name={config.model_name}: {error}; use fewer devices."
            ) from None
        owner = next(i for i, part in enumerate(plan) if stages.embedding in part)
        last = config.world_size - 1
        tied = stages.tied if owner != last and stages.tied is not None and stages.tied.requires_grad else None
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if config.dtypes.weights_in_16_bits:
            model.to(dtype_of(config.precision))
        super().__init__(config, stages.stage(plan[rank], rank == last))
        mine = {id(p) for p in self.parameters()}
        self._trained = {name: p for name, p in trained.items() if id(p) in mine}
        self._stages = stages
        self._rank, self._last = rank, last
        self._tied = tied if rank in (owner, last) else None
        self._tied_ranks = [owner, last] if tied is not None else []
        self._plan = plan
        self._pipe: GPipe | None = None
        self._group: Any = None

    @property
    def ranks(self) -> int:
        """All ranks see all of a batch."""
        return 1

    def over_ranks(self, summed: torch.Tensor) -> None:
        """The last rank knows the loss."""
        dist.broadcast(summed, src=self._last)

    def on_fit_start(self) -> None:
        """Make the group of the two ranks that have the text's embedding; all ranks take part."""
        if self._tied_ranks:
            self._group = dist.new_group(self._tied_ranks)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The forward of every chunk; on the last rank the loss of the batch, on others zero."""
        count = self.config.world_size
        parts = zip(*(tensor.tensor_split(count) for tensor in batch.values()), strict=True)
        chunks = [dict(zip(batch, part, strict=True)) for part in parts]
        tokens = (batch["labels"] != IGNORED).sum()
        by_token = self.config.loss_average == "tokens"
        self.model.divisor = self.trainer.accumulate_grad_batches * (1 if by_token else tokens)
        pixels = [chunk.pop("pixel_values") for chunk in chunks]
        if self._pipe is None:
            self._pipe = self._build(pixels[0], chunks[0]["input_ids"])
        first = self._rank == 0
        self._pipe.forward([(p,) if first else () for p in pixels], chunks)
        loss = self._pipe.take_losses()
        found = torch.zeros((), device=self.device) if loss is None else loss * self.trainer.accumulate_grad_batches
        self._pending.append((found / tokens if by_token else found, tokens))
        self._pending_samples += len(batch["labels"])
        return found.clone()

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """The backward of every chunk; the gradients of the next rank take the place of ``loss``."""
        self._pipe.backward()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Sum the gradients of what two ranks have, and divide all as one device does."""
        if self._tied is not None:
            self.sum_tied(self._tied.grad)
        super().on_before_optimizer_step(optimizer)

    def sum_tied(self, grad: torch.Tensor | None) -> None:
        """Sum the gradient of what two ranks have, in place."""
        dist.all_reduce(grad, group=self._group)

    def gathered(self) -> dict[str, torch.Tensor] | None:
        """What all ranks have trained, in host memory, by its names in the whole model; None but on the first."""
        whole: list[Any] | None = [None] * self.config.world_size if self._rank == 0 else None
        dist.gather_object({name: p.detach().cpu() for name, p in self._trained.items()}, whole)
        return None if whole is None else {name: tensor for part in whole for name, tensor in part.items()}

    def _build(self, pixels: torch.Tensor, input_ids: torch.Tensor) -> GPipe:
        size, last = self.config.world_size, self._rank == self._last
        given = pixels if self._rank == 0 else self._between(self._rank - 1, pixels, input_ids)
        gives = torch.empty((), device="meta", requires_grad=True)
        if not last:
            gives = self._between(self._rank, pixels, input_ids)
        stage = self.stage_class(self.model, self._rank, size, self.device, input_args=(given,), output_args=(gives,))
        return self.schedule_class(stage, n_microbatches=size, loss_fn=lambda loss, _: loss, scale_grads=False)

    def _between(self, rank: int, pixels: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """What ``rank`` hands on, in shape and dtype. No gradient comes back where nothing before it is trained."""
        shape = self._stages.shape_after(self._plan[rank][-1], pixels.shape, input_ids.shape)
        flows = any(unit in self._stages.trained for part in self._plan[: rank + 1] for unit in part)
        return torch.empty(shape, dtype=dtype_of(self.config.precision), device="meta", requires_grad=flows)
