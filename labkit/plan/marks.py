"""Marks: where in a tracker's events something ends."""

from lightning.pytorch import Callback, LightningModule, Trainer

from labkit.memory.tracker import Tracker


class Marks(Callback):
    """How many events there were when the model was loaded, and at the end of each phase.

    It stands after the ``MemoryCapture`` among the callbacks, whose ``on_phase`` calls ``set``.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.found: list[int] = []

    def set(self) -> None:
        """Something ends here."""
        self.found.append(len(self._tracker.events or ()))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Model and optimizer are there."""
        self.set()
