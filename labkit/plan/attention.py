"""Attention: which kernel ``scaled_dot_product_attention`` takes on a device, and what it allocates.

CUDA's choice is read in ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` of torch 2.13.
"""

import torch
import torch.nn.functional as F

from labkit.borrowed.torch import (
    ATTENTION_BY_MATH,
    CUDNN_ATTENTION,
    EFFICIENT_ATTENTION,
    FLASH_ATTENTION,
    FLASH_ATTENTION_ON_CPU,
)


def attention_on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """A CPU's choice: the flash kernel without dropout and without a mask that is learnt, else plain operations."""
    mask = _additive(attn_mask, query.dtype)
    learnt = mask is not None and mask.requires_grad and torch.is_grad_enabled()
    if dropout_p == 0.0 and not learnt and query.dim() == 4 and not (enable_gqa and mask is not None):
        return FLASH_ATTENTION_ON_CPU(query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale)[0]
    return ATTENTION_BY_MATH(
        query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]  # fmt: skip


def attention_on_cuda(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
    cudnn: bool = False,
) -> torch.Tensor:  # fmt: skip
    """CUDA's choice: flash in 16 bits without a mask, else the memory-efficient kernel, else plain operations.

    With ``cudnn`` its kernel comes first in 16 bits, as torch 2.13 has it for compute capabilities 9.0 and 10.0. Plain
    operations compute 16 bits in 32, and repeat keys and values that several heads share; flash and cuDNN do not, and
    the memory-efficient kernel refuses them.
    """
    half, size = query.dtype in (torch.bfloat16, torch.float16), query.shape[-1]
    fused = query.dim() == key.dim() == value.dim() == 4
    same_size = size == key.shape[-1] == value.shape[-1]
    learnt = attn_mask is not None and attn_mask.requires_grad
    grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    if fused and cudnn and half and not learnt and size <= 256 and size % 8 == value.shape[-1] % 8 == 0:
        mask = _additive(attn_mask, query.dtype)
        return CUDNN_ATTENTION(query, key, value, mask, grad, dropout_p, is_causal, False, scale=scale)[0]
    square = query.shape[-2] == key.shape[-2]
    if fused and half and attn_mask is None and same_size and size <= 256 and (square or not is_causal):
        scale = scale if scale is not None else size**-0.5
        query, key, value = (_padded(tensor) for tensor in (query, key, value))
        out = FLASH_ATTENTION(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
        return out if out.shape[-1] == size else out[..., :size]
    mask = _additive(attn_mask, query.dtype)
    multiple = 8 if half else 4
    grouped = query.shape[-3] != key.shape[-3] if fused else False
    if fused and not grouped and size % multiple == value.shape[-1] % multiple == 0:
        mask = _bias(mask, query, key)
        return EFFICIENT_ATTENTION(query, key, value, mask, grad, dropout_p, is_causal, scale=scale)[0]
    return ATTENTION_BY_MATH(
        query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]  # fmt: skip


def _padded(tensor: torch.Tensor) -> torch.Tensor:
    """With heads of a multiple of 8 numbers (``pad_last_dim`` in ``attention.cpp``)."""
    rest = tensor.shape[-1] % 8
    return F.pad(tensor, (0, 8 - rest)) if rest else tensor


def _bias(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    """The mask as the memory-efficient kernel wants it: rows padded to a multiple of 8 (``pad_bias`` there)."""
    if mask is None:
        return None
    length = mask.shape[-1]
    if length % 8:
        mask = F.pad(mask, (0, 8 - length % 8))[..., :length]
    return mask.expand(*query.shape[:3], key.shape[2])


def _additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))
