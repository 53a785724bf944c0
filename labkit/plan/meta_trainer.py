"""Meta trainer: Lightning's own Trainer on tensors without storage, so that no second copy of its loop is kept."""

import contextlib
import logging
import warnings
from collections.abc import Generator, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins import HalfPrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy

from labkit.config.precision import DTYPES
from labkit.memory.capture import MemoryCapture
from labkit.memory.tracker import Tracker
from labkit.plan.rank import Rank
from labkit.plan.semantics import DeviceSemantics
from labkit.plan.trace import Trace


def fit_on_meta(
    module: LightningModule, batches: Iterable[Any], rank: Rank, semantics: DeviceSemantics, precision: str,
    callbacks: Iterable[Callback] = (), **options: Any,
) -> Trace:  # fmt: skip
    """Execute the steps of a module on ``meta``, as one rank of its strategy; ``options`` are those of the Trainer.

    The caller has entered ``semantics`` and the tracker of ``rank``.
    """
    marks = _Marks(rank.tracker)
    capture = MemoryCapture(
        rank.tracker, report_every=1, on_phase=lambda phase: marks.set(), owned_by=rank.owned_by
    )  # fmt: skip
    capture.report.source = "predicted"
    with _quiet():
        trainer = Trainer(
            strategy=_MetaStrategy(rank), plugins=[_precision(precision, rank, semantics)],
            callbacks=[capture, marks, *callbacks], logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
        )  # fmt: skip
        trainer.fit(module, batches)
    # what is taken down after the last step is no prediction
    return Trace.of((rank.tracker.events or [])[: marks.found[-1]], marks.found, capture.report)


class _Marks(Callback):
    """How many events there were when the model was loaded, and at the end of each phase. Stands after the capture."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.found: list[int] = []

    def set(self) -> None:
        """Something ends here."""
        self.found.append(len(self._tracker.events or ()))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Model and optimizer are there."""
        self.set()


class _NoDevice(CPUAccelerator):
    """``meta`` is no device that could be set up."""

    def setup(self, trainer: Trainer) -> None:
        """As Lightning's for CUDA, before the model is moved there."""
        torch.cuda.empty_cache()

    def setup_device(self, device: torch.device) -> None:
        return


class _MetaStrategy(SingleDeviceStrategy):
    """One rank, on ``meta``."""

    def __init__(self, rank: Rank) -> None:
        super().__init__("meta", accelerator=_NoDevice())
        self._rank = rank

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """As Lightning's, after what the rank does before a forward."""
        if self.lightning_module is not None:
            self._rank.before_forward(_is_last(self.lightning_module.trainer))
        return super().training_step(*args, **kwargs)

    def teardown(self) -> None:
        """Nothing: Lightning's would move a model to host memory that is nowhere."""


def _is_last(trainer: Trainer) -> bool:
    """Whether the micro batch is the last of its optimizer step."""
    return trainer.is_last_batch or trainer.fit_loop.batch_idx % trainer.accumulate_grad_batches == (
        trainer.accumulate_grad_batches - 1
    )


def _precision(precision: str, rank: Rank, semantics: DeviceSemantics) -> Precision:
    dtypes = DTYPES[precision]
    if dtypes.mixed or not dtypes.weights_in_16_bits:
        return _Casting(rank, semantics)
    return _Half(precision, rank)


class _OfRank(Precision):
    """Lets the rank see each backward."""

    _rank: Rank

    def backward(self, tensor: torch.Tensor, model: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """As Lightning's, between what the rank does before and after."""
        with self._rank.backward(_is_last(model.trainer)):
            super().backward(tensor, model, optimizer, *args, **kwargs)


class _Half(_OfRank, HalfPrecision):
    """Everything in 16 bits."""

    def __init__(self, precision: Any, rank: Rank) -> None:
        super().__init__(precision)
        self._rank = rank


class _Casting(_OfRank):
    """32 bits, or a mixed precision: ``torch.autocast`` knows no ``meta``, so the device's semantics cast."""

    def __init__(self, rank: Rank, semantics: DeviceSemantics) -> None:
        self._rank = rank
        self._semantics = semantics

    def forward_context(self) -> Any:
        """What Lightning's mixed precision has here."""
        return self._semantics.autocast()

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Layers that are computed again cast as they did in forward."""
        with self._semantics.autocast():
            super().backward(*args, **kwargs)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep what Lightning says of devices and loaders from the user, who asked for a prediction."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
