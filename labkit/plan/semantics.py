"""Semantics: where ``meta`` tensors would behave differently from the run's device, do as the device does: attention,
autocast, padding."""

import contextlib
import functools
from collections.abc import Callable, Generator
from typing import Any

import torch
import torch.nn.functional as F

from labkit.borrowed.torch import (
    ATTENTION_BY_MATH,
    CUDNN_ATTENTION,
    EFFICIENT_ATTENTION,
    FLASH_ATTENTION,
    FLASH_ATTENTION_ON_CPU,
    FUSED_DEVICES,
)
from labkit.config.schema import RunConfig
from labkit.train.models import autocast_dtype_of

_LOWER = (
    (F, "linear"), (F, "conv2d"), (torch, "conv2d"), (torch, "matmul"), (torch.Tensor, "matmul"),
    (torch.Tensor, "__matmul__"), (torch, "bmm"), (torch.Tensor, "bmm"), (torch, "mm"), (torch.Tensor, "mm"),
    (torch, "addmm"), (torch, "baddbmm"),
)  # fmt: skip
"""Functions that autocast runs in 16 bits, as far as these models call them (aten/src/ATen/autocast_mode.h)."""

_FULL_ON_CUDA = (
    (F, "layer_norm"), (torch, "layer_norm"), (F, "softmax"), (torch, "softmax"), (torch.Tensor, "softmax"),
    (F, "log_softmax"), (F, "cross_entropy"), (torch, "pow"), (torch.Tensor, "pow"), (torch.Tensor, "__pow__"),
    (torch, "rsqrt"), (torch.Tensor, "rsqrt"), (torch, "sum"), (torch.Tensor, "sum"), (torch, "exp"),
    (torch.Tensor, "exp"), (torch, "log"), (torch.Tensor, "log"),
)  # fmt: skip
"""Functions that CUDA's autocast runs in 32 bits; a CPU's leaves these as they come."""


class DeviceSemantics:
    """A context in which operations on ``meta`` tensors take the way that they take on the run's device.

    The functions where the ways part are replaced in torch itself while the context lasts; with other tensors they
    do what they always do. A torch function mode would do the same, see every access to an attribute too, and be
    left during backward, where checkpointed layers are computed again.
    """

    def __init__(self, config: RunConfig) -> None:
        self._cuda = config.on_cuda
        self._cudnn = config.cudnn_attention
        self._lower_dtype = autocast_dtype_of(config.precision)
        self._casting = False
        self._replaced: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> "DeviceSemantics":
        self._replace(torch.Tensor, "__bool__", _mask_bool)
        self._replace(F, "scaled_dot_product_attention", self._attention)
        self._replace(*FUSED_DEVICES, _with_meta)
        if self._lower_dtype is not None:
            for owner, name in _LOWER:
                self._replace(owner, name, self._casts(self._lower))
            for owner, name in _FULL_ON_CUDA if self._cuda else ():
                self._replace(owner, name, self._casts(_full))
        return self

    def __exit__(self, *error: object) -> None:
        while self._replaced:
            setattr(*self._replaced.pop())

    @contextlib.contextmanager
    def autocast(self) -> Generator[None]:
        """Cast as ``torch.autocast`` does, if the run's precision is a mixed one."""
        self._casting = self._lower_dtype is not None
        try:
            yield
        finally:
            self._casting = False

    def _replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original = getattr(owner, name)
        self._replaced.append((owner, name, original))
        setattr(owner, name, make(original))

    def _attention(self, original: Callable[..., Any]) -> Callable[..., Any]:
        on_device = _attention_on_cpu
        if self._cuda:
            on_device = functools.partial(_attention_on_cuda, cudnn=self._cudnn)

        @functools.wraps(original)
        def attend(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if not query.is_meta:
                return original(query, *args, **kwargs)
            if self._casting:
                lowered, kwargs = _each(self._lower, (query, *args), kwargs)
                query, args = lowered[0], lowered[1:]
                del lowered  # what this keeps, and frees in which order, is part of what is predicted
            return on_device(query, *args, **kwargs)

        return attend

    def _casts(
        self, cast: Callable[[torch.Tensor], torch.Tensor]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def call(*args: Any, **kwargs: Any) -> Any:
                if self._casting:
                    args, kwargs = _each(cast, args, kwargs)
                return original(*args, **kwargs)

            return call

        return make

    def _lower(self, tensor: torch.Tensor) -> torch.Tensor:
        # each use makes a copy of its own: Lightning's autocast has cache_enabled=False
        return tensor.to(self._lower_dtype) if tensor.dtype == torch.float32 else tensor


def _with_meta(original: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """Devices with fused optimizers: where the run has one, ``meta`` has one."""
    return lambda: [*original(), "meta"]


def _mask_bool(original: Callable[[torch.Tensor], bool]) -> Callable[[torch.Tensor], bool]:
    """Asked of masks: is nothing masked? Captions are padded, so something is."""

    def ask(tensor: torch.Tensor) -> bool:
        return False if tensor.is_meta else original(tensor)

    return ask


def _each(change: Callable[[torch.Tensor], torch.Tensor], args: Any, kwargs: Any) -> tuple[Any, Any]:
    def one(value: Any) -> Any:
        return change(value) if isinstance(value, torch.Tensor) and value.is_meta else value

    return tuple([one(value) for value in args]), {key: one(value) for key, value in kwargs.items()}


def _full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _attention_on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """A CPU's choice: the flash kernel without dropout and without a mask that is learnt, else plain operations."""
    mask = _additive(attn_mask, query.dtype)
    if dropout_p == 0.0 and not (mask is not None and mask.requires_grad and torch.is_grad_enabled()):
        return FLASH_ATTENTION_ON_CPU(query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale)[0]
    return ATTENTION_BY_MATH(query, key, value, mask, dropout_p, is_causal, scale=scale)[0]


def _attention_on_cuda(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    *, cudnn: bool = False,
) -> torch.Tensor:  # fmt: skip
    """CUDA's choice: flash in 16 bits without a mask, else the memory-efficient kernel, else plain operations.

    The efficient kernel wants the mask's rows padded to a multiple of 8 (``pad_bias`` in sdp_utils.cpp). With
    ``cudnn`` its kernel comes first in 16 bits, as torch 2.13 has it for compute capabilities 9.0 and 10.0. Its limits
    are those of ``check_cudnn_tensor_shapes`` there: heads of up to 256 numbers, a multiple of 8; no mask is learnt.
    """
    half, size = query.dtype in (torch.bfloat16, torch.float16), query.shape[-1]
    learnt = attn_mask is not None and attn_mask.requires_grad
    if cudnn and half and not learnt and size <= 256 and size % 8 == 0:
        grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
        mask = _additive(attn_mask, query.dtype)
        return CUDNN_ATTENTION(query, key, value, mask, grad, dropout_p, is_causal, False, scale=scale)[0]
    if half and attn_mask is None and size <= 256 and size % 8 == 0:
        return FLASH_ATTENTION(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    mask = _additive(attn_mask, query.dtype)
    if size % (8 if half else 4) == 0:
        if mask is not None:
            length = mask.shape[-1]
            if length % 8:
                mask = F.pad(mask, (0, 8 - length % 8))[..., :length]
            mask = mask.expand(*query.shape[:3], key.shape[2])
        grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
        return EFFICIENT_ATTENTION(query, key, value, mask, grad, dropout_p, is_causal, scale=scale)[0]
    return ATTENTION_BY_MATH(query, key, value, mask, dropout_p, is_causal, scale=scale)[0]


def _additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))
