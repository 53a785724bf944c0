"""Workspaces: what cuBLAS keeps of a GPU's memory for each thread that multiplies matrices.

Torch allocates one with its caching allocator at a thread's first call of cuBLAS, and keeps it
(``aten/src/ATen/cuda/CublasHandlePool.cpp`` of torch 2.13; cuBLASLt takes the same). Forward and backward are two
threads on CUDA. What cuDNN takes for convolutions and recurrent layers is not planned.
"""

import os
import re

import torch

from labkit.config.schema import RunConfig

_aten = torch.ops.aten
MULTIPLY = frozenset({
    _aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default, _aten.addbmm.default,
    _aten.mv.default, _aten.addmv.default, _aten.dot.default, _aten.vdot.default,
})  # fmt: skip
"""Operations that call cuBLAS."""

_BYTES, _LARGE_BYTES = 2 * 4096 * 1024 + 8 * 16 * 1024, 8 * 4096 * 1024
_LARGE_ON = (9, 10, 12)
"""Major compute capabilities with the larger one: Hopper and Blackwell."""

_ASSUMED = 9.0


def workspace_bytes(config: RunConfig) -> int:
    """The size of one; ``CUBLAS_WORKSPACE_CONFIG`` sets another, as it does in a run. 0 where no cuBLAS is."""
    if not config.on_cuda:
        return 0
    sizes = re.findall(r":([0-9]+):([0-9]+)", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
    if sizes:
        return sum(int(kib) * 1024 * int(count) for kib, count in sizes)
    return _LARGE_BYTES if int(config.compute_capability or _ASSUMED) in _LARGE_ON else _BYTES
