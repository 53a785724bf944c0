"""Kernels: memory that operations take, or do not take, on CUDA where they run as other kernels than on ``meta``.

Read in torch 2.13. Sizes come from the tensors that go in, so nothing here depends on a model.
"""

from typing import Any

import torch

from labkit.borrowed.torch import (
    FUSED_RMS_NORM,
    ONE_HOLDER,
    SOFTMAX_BACKWARD,
    in_python_node,
    storage_uses,
    tensor_uses,
)

_aten = torch.ops.aten
_ADD = _aten.add.Tensor
_SCATTER = {
    _aten.scatter.src, _aten.scatter_add.default, _aten.index_add.default, _aten.index_put.default,
}  # fmt: skip
IN_PLACE = _SCATTER | {_ADD}
"""Operations that autograd does in place where it may."""


_GROUP_NORM_BACKWARD = _aten.native_group_norm_backward.default
_SORT = {_aten.sort.default, _aten.sort.stable}
_SORTED_IN_PLACE, _SORTED_AT_ONCE = 4096, 128
"""Numbers in a row that are sorted where the result lies, and rows from which on they are sorted as segments."""


def scratch(func: Any, args: Any, kwargs: Any) -> torch.Tensor | None:
    """What a kernel allocates besides its results, and frees when it ends; None where it is nothing, or not known."""
    if func is SOFTMAX_BACKWARD:  # ``grad * output`` (``softmax_backward_cuda_out`` in cuda/SoftMax.cu)
        return torch.empty_like(args[0])
    if func is _GROUP_NORM_BACKWARD:
        return _scratch_of_group_norm(*args)
    if func in _SORT:
        return _scratch_of_sort(args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1))
    return None


def _scratch_of_group_norm(
    gradient: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor | None,
    batch: int, channels: int, size: int, groups: int, wanted: list[bool],
) -> torch.Tensor | None:  # fmt: skip
    """Sums of each channel, and for the input's gradient factors of each channel and group
    (``GroupNormBackwardKernelImplInternal`` in ``aten/src/ATen/native/cuda/group_norm_kernel.cu``)."""
    if size == 1:
        return None
    factors = (channels if weight is not None else 0) + 2 * groups if wanted[0] else 0
    return torch.empty(
        batch * (2 * channels + factors), dtype=torch.promote_types(x.dtype, torch.float32), device="meta"
    )


def _scratch_of_sort(tensor: torch.Tensor, dim: Any) -> torch.Tensor | None:
    """Long rows: a place for each number, and room for cub to copy numbers and places (``segmented_sort_pairs`` in
    ``aten/src/ATen/native/cuda/SortStable.cu``; 255 bytes to align). Few rows are sorted otherwise, which is left out.
    """
    if not tensor.dim() or isinstance(dim, bool) or tensor.shape[dim] <= _SORTED_IN_PLACE:
        return None
    if tensor.numel() // tensor.shape[dim] < _SORTED_AT_ONCE:
        return None
    return torch.empty(tensor.numel() * (8 + 8 + tensor.element_size()) + 255, dtype=torch.uint8, device="meta")


def in_place(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether autograd writes the result of an operation in backward, one of ``IN_PLACE``, into its first argument.

    Where ``isTensorSubclassLike`` says no, which on ``meta`` and where operations are followed it never does. Gradients
    of a tensor that was used several times are added into the first one, if nothing else holds that (``accumulate`` in
    ``torch/csrc/autograd/input_buffer.cpp``); those of chosen numbers are put into the zeros that were made for them
    (``value_selecting_reduction_backward`` and ``gather_backward``, for instance).
    """
    if torch.is_grad_enabled() or in_python_node():
        return False
    if func in _SCATTER:
        return storage_uses(args[0].untyped_storage()) == ONE_HOLDER[1]
    if len(args) != 2 or kwargs:
        return False
    old, new = args
    return (
        isinstance(new, torch.Tensor)
        and old.shape == new.shape
        and old.dtype == new.dtype
        and (tensor_uses(old), storage_uses(old.untyped_storage())) == ONE_HOLDER
        and _is_dense(old)
    )


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the numbers fill their memory and lie on different places in it."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


class _RmsNorm(torch.autograd.Function):
    """The fused kernel, which keeps its input and a number for each row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: list[int], weight: torch.Tensor | None) -> Any:  # type: ignore
        outer = x.dim() - len(shape)
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        scales = torch.empty(*x.shape[:outer], *[1] * len(shape), dtype=dtype, device=x.device)
        ctx.save_for_backward(x, weight, scales)
        return torch.empty_like(x, memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        gradient = gradient.contiguous()  # the kernel reads rows of memory
        x, weight, _ = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_x = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[0] else None
        return of_x, None, torch.empty_like(weight) if wanted[2] else None


def rms_norm_on_cuda(
    x: torch.Tensor, shape: list[int], weight: torch.Tensor | None = None, eps: float | None = None
) -> torch.Tensor:
    """One kernel, or plain operations where the weight has another dtype (``rms_norm_symint`` in
    ``aten/src/ATen/native/layer_norm.cpp``). Before torch 2.9 it was always plain operations."""
    images = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if x.is_complex() or images or (weight is not None and weight.dtype != x.dtype):
        plain: torch.Tensor = FUSED_RMS_NORM(x, shape, weight, eps)[0]  # on meta this is composed of others
        return plain
    out: torch.Tensor = _RmsNorm.apply(x, shape, weight)  # type: ignore[no-untyped-call]
    return out
