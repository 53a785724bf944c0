"""One layer: what a transformer layer keeps for its backward, counted as it is executed."""

import functools

from labkit.config.gpus import find_gpu
from labkit.config.schema import RunConfig

GPU = "a100-80gb"
"""Whose kernels it takes; others of the last years keep the same."""


@functools.cache
def kept_bytes(samples: int, tokens: int, width: int, number_bytes: int) -> int:
    """Device bytes that the forward of one layer leaves for its backward.

    The layer is the usual one: normalize, attention with heads of 64 numbers by a fused kernel, and add; normalize, a
    feed-forward part four times as wide with GELU, and add. Without dropout. It is executed on tensors without storage
    for batches of ``samples`` of ``tokens``, with numbers of 4 or 2 bytes; its weights are not counted.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    from labkit.plan.semantics import DeviceSemantics, replacing
    from labkit.plan.shapes import ShapeTracker

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
            self.all_three, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            heads = self.all_three(self.before_attention(x)).view(samples, tokens, 3, width // 64, 64)
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            found = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.out(found.transpose(1, 2).reshape(samples, tokens, width))
            return x + self.narrow(functional.gelu(self.widen(self.before_forward(x))))

    machine = RunConfig(**find_gpu(GPU).values)
    dtype = {4: torch.float32, 2: torch.bfloat16}[number_bytes]
    with replacing(), DeviceSemantics(machine), ShapeTracker() as tracker, torch.device("meta"):
        layer = Layer().to(dtype)
        x = torch.empty(samples, tokens, width, dtype=dtype, requires_grad=True)
        before = tracker.allocated_bytes
        kept = layer(x)
        after = tracker.allocated_bytes
        del kept
    return after - before
