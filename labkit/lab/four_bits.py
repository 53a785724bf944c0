"""Four bits: what a quantized number takes in memory, counted on one that bitsandbytes has quantized."""

import functools
import logging

NUMBERS = 1 << 16


@functools.cache
def packed_bytes(block: int) -> float:
    """Bytes of one number in NF4, its share of the scale of its ``block`` included. It takes no GPU."""
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)  # which kernels of another project are not installed is of no interest here
    try:
        import torch
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(torch.zeros(NUMBERS), blocksize=block, quant_type="nf4")
    finally:
        log.setLevel(level)
    return sum(found.numel() * found.element_size() for found in (packed, state.absmax)) / NUMBERS
