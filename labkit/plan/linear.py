"""Linear: the layers of ZeRO's stage 3, which keep their input also where nothing of them is trained.

DeepSpeed puts a function of its own in place of ``torch.nn.functional.linear`` when it divides the weights, for the
whole process (``LinearFunctionForZeroStage3`` in ``deepspeed/runtime/zero/linear.py``, DeepSpeed 0.19). torch's keeps
the input of a layer only if the layer's weights have gradients, so under LoRA a plan without this is far too low.
"""

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch.nn import functional as F


class _Linear(torch.autograd.Function):
    """The same operations in the same order."""

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        ctx, input, weight, bias = args
        ctx.save_for_backward(input, weight, bias)
        if input.dim() == 2 and bias is not None:
            return torch.addmm(bias, input, weight.t())
        output = input.matmul(weight.t())
        if bias is not None:
            output += bias
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight, bias = ctx.saved_tensors
        gradient = gradients[0]
        of_input = gradient.matmul(weight) if ctx.needs_input_grad[0] else None
        of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            of_weight = gradient.reshape(-1, gradient.shape[-1]).t().matmul(input.reshape(-1, input.shape[-1]))
        if bias is not None and ctx.needs_input_grad[2]:
            of_bias = gradient.sum(list(range(gradient.dim() - 1)))
        return of_input, of_weight, of_bias


@contextlib.contextmanager
def keeping_inputs() -> Generator[None]:
    """A context in which all linear layers are such."""
    original = F.linear

    def linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return _Linear.apply(input, weight, bias)

    F.linear = linear
    try:
        yield
    finally:
        F.linear = original
