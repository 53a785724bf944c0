"""What bitsandbytes hangs on tensors and layers of its own, read in bitsandbytes 0.50; documented nowhere.

It takes seconds to import, and is not imported here: before anything else has done so, nothing in memory is its own.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def quant_state(holder: torch.Tensor | torch.nn.Module) -> Any:
    """Scales and code books of a weight in 4 bits, or of a layer with such a weight (``QuantState``); None for any
    other."""
    loaded = sys.modules.get("bitsandbytes")
    if loaded is None or not isinstance(holder, (loaded.nn.Params4bit, loaded.nn.Linear4bit)):
        return None
    return holder.quant_state


def is_paged(value: Any) -> bool:
    """Whether a tensor lies in memory that CUDA moves as it is used; the others have no such mark."""
    return getattr(value, "is_paged", False)


def set_state_buffers(optimizer: Any, make: Callable[..., torch.Tensor]) -> None:
    """Have an optimizer make its state with ``make``, which is given the parameter and ``dtype``."""
    optimizer.get_state_buffer = make


def keep_packing(model: nn.Module) -> None:
    """Leave weights in 4 bits as they are on every CPU.

    In eval mode bitsandbytes would repack them for one with AVX512-BF16: for good, and not those of every size.
    """
    loaded = sys.modules.get("bitsandbytes")
    if loaded is None:
        return
    for module in model.modules():
        if isinstance(module, loaded.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
