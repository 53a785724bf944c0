"""Attention: which of torch's kernels ``scaled_dot_product_attention`` may choose from."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def kernels(cudnn: bool) -> Iterator[None]:
    """A context in which cuDNN's kernel may be chosen, or not; the others always may.

    torch 2.13 tries it first on compute capabilities 9.0 and 10.0 in 16 bits (``check_prefer_cudnn_attention`` in
    sdp_utils.cpp). There its gradients have been NaN with a mask at lengths of 64 modulo 128 (pytorch issue 196678).
    Without it the choice is that of all other GPUs: flash without a mask, else the memory-efficient kernel.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
