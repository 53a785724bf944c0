"""DDP: every rank has all of the model, and gradients are averaged in buckets."""

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from labkit.borrowed.lightning import OpenDDP
from labkit.memory.capture import MemoryCapture
from labkit.train.in_place import InPlace


class BucketedDDP(InPlace, OpenDDP):
    """Lightning's strategy, with gradients that are views into DDP's buckets, as the prediction has them.

    Buckets are made in C++ and hang on no gradient before the first backward, so the memory report is told what they
    are: when DDP is set up, and before the second forward, where they are made again in the order of the first
    backward.
    """

    def __init__(self, capture: MemoryCapture, **options: Any) -> None:
        super().__init__(gradient_as_bucket_view=True, **options)
        self._capture = capture

    def wrap(self, model: nn.Module) -> DistributedDataParallel:
        """As Lightning's; what it allocates are buckets."""
        self._capture.claim("parameters")
        wrapped = super().wrap(model)
        self._capture.claim("gradients")
        model.register_forward_pre_hook(lambda *_: self._capture.claim("gradients"))
        return wrapped
