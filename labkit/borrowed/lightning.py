"""Private names of Lightning, read in Lightning 2.6: steps of its strategies under public names, to be overridden."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy

TRAINER = ("_trainer", "_fabric")
"""Attributes that Lightning hangs on a module; they lead to everything that the trainer has."""


def is_compiled_whole(module: LightningModule) -> bool:
    """Whether ``torch.compile`` was given the module itself, which Lightning unwraps and remembers so."""
    return module._compiler_ctx is not None


def set_module(strategy: Strategy, module: LightningModule | None) -> None:
    """Give a strategy a module, or take it away; ``lightning_module`` can only be read."""
    strategy._lightning_module = module


class OpenDeepSpeed(DeepSpeedStrategy):
    """Lightning's DeepSpeed, whose demands for CUDA can be overridden; they are in methods that are private."""

    def make_engine(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        """DeepSpeed's engine and optimizer around a model and its optimizer."""
        return super()._setup_model_and_optimizer(model, optimizer, lr_scheduler)

    def choose_launcher(self) -> None:
        """Take the launcher that starts the other ranks."""
        super()._configure_launcher()

    def connect_ranks(self) -> None:
        """Have DeepSpeed join the group of the ranks."""
        self._init_deepspeed_distributed()

    def _setup_model_and_optimizer(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        return self.make_engine(model, optimizer, lr_scheduler)

    def _configure_launcher(self) -> None:
        self.choose_launcher()
