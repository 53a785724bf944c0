"""DDP: every rank has all of the model, and gradients are averaged in buckets."""

from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from labkit.train.in_place import InPlace


class BucketedDDP(InPlace, DDPStrategy):
    """Lightning's strategy, with gradients that are views into DDP's buckets, as the prediction has them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(gradient_as_bucket_view=True, **options)
