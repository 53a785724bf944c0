"""In place: a strategy that moves nothing when training ends."""

from lightning.pytorch.strategies import SingleDeviceStrategy, Strategy

from labkit.borrowed.lightning import set_module


class InPlace(Strategy):
    """Part of a strategy that moves nothing to host memory at the end of training.

    Lightning's ``Strategy.teardown`` (2.6) moves weights, gradients and optimizer state there before ``fit`` returns,
    after an out-of-memory too. The process of a run ends right after, so those tens of gigabytes would only be time
    that looks like training, and host memory that a small machine does not have.
    """

    def teardown(self) -> None:
        """As Lightning's, with nothing there to be moved."""
        module, self.optimizers = self.lightning_module, []
        set_module(self, None)
        try:
            super().teardown()
        finally:
            set_module(self, module)


class OneDevice(InPlace, SingleDeviceStrategy):
    """All of the model on one device."""
