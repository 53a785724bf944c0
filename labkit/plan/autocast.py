"""Autocast on ``meta``: which functions compute in which dtype, as ``torch.autocast`` has it on the run's device.

``torch.autocast`` itself knows no ``meta``. The lists are those of ``aten/src/ATen/autocast_mode.h`` of torch 2.13.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator
from typing import Any

import torch
import torch.nn.functional as F

_LOWER = [
    "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "prelu",
    "addmm", "addmv", "addr", "matmul", "__matmul__", "__rmatmul__", "einsum", "mm", "mv", "vecdot", "linear",
    "addbmm", "baddbmm", "bmm", "chain_matmul", "multi_dot",
]  # fmt: skip
"""In 16 bits (``AT_FORALL_LOWER_PRECISION_FP``); attention is cast where its kernel is chosen."""

_FULL = [
    "poisson_nll_loss", "cosine_embedding_loss", "nll_loss", "hinge_embedding_loss", "kl_div", "l1_loss",
    "smooth_l1_loss", "huber_loss", "mse_loss", "margin_ranking_loss", "multilabel_margin_loss", "soft_margin_loss",
    "triplet_margin_loss", "multi_margin_loss", "binary_cross_entropy_with_logits", "cdist", "cross_entropy", "prod",
]  # fmt: skip
"""In 32 bits on every device (``AT_FORALL_FP32``; of a CPU those of its list that meta tensors know)."""

_FULL_ON_CUDA = [
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh",
    "tan", "pow", "__pow__", "__rpow__", "softplus", "layer_norm", "rms_norm", "group_norm", "cosine_similarity",
    "dist", "pdist", "renorm", "logsumexp", "interpolate", "softmax", "log_softmax",
]  # fmt: skip
"""The same where a CPU leaves them as they come. The softmaxes are told to return 32 bits, and convert bfloat16 before
they begin, as ``cross_entropy`` does by its own."""

_INTO_FULL_ON_CUDA = ["cumprod", "cumsum", "sum"]
"""Told to return 32 bits, and read 16 as they are (``AT_FORALL_FP32_SET_OPT_DTYPE``)."""

_OWNERS = (torch, torch.Tensor, F, torch.linalg)

Make = Callable[[Callable[..., Any]], Callable[..., Any]]


class Autocast:
    """Casts what functions are given on ``meta``, inside of ``casting`` and where ``dtype`` is not None.

    ``replacements`` are the functions that have to be replaced meanwhile.
    """

    def __init__(self, dtype: torch.dtype | None, *, on_cuda: bool) -> None:
        self._dtype = dtype
        self._on_cuda = on_cuda
        self._casting = False

    @contextlib.contextmanager
    def casting(self) -> Generator[None]:
        """Inside, functions cast; outside they do what they always do."""
        self._casting = self._dtype is not None
        try:
            yield
        finally:
            self._casting = False

    def replacements(self) -> Generator[tuple[Any, str, Make]]:
        """Where a function is, its name, and what makes of it one that casts."""
        if self._dtype is None:
            return
        makes = {self._lowers: _LOWER, self._raises: _FULL}
        if self._on_cuda:
            makes = {
                self._lowers: _LOWER, self._raises: _FULL + _FULL_ON_CUDA, self._returns_full: _INTO_FULL_ON_CUDA,
            }  # fmt: skip
        for make, names in makes.items():
            for owner, name in itertools.product(_OWNERS, names):
                if hasattr(owner, name):
                    yield owner, name, make

    def lowered(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Arguments as a function in 16 bits takes them."""
        return _each(self._lower, args, kwargs) if self._casting else (args, kwargs)

    def _lowers(self, original: Callable[..., Any]) -> Callable[..., Any]:
        return self._casts(original, self._lower)

    def _raises(self, original: Callable[..., Any]) -> Callable[..., Any]:
        return self._casts(original, _raise)

    def _casts(self, original: Callable[..., Any], cast: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._casting:
                args, kwargs = _each(cast, args, kwargs)
            return original(*args, **kwargs)

        return call

    def _returns_full(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            if self._casting and _is_lower(tensor) and "dtype" not in kwargs:
                kwargs["dtype"] = torch.float32
            return original(tensor, *args, **kwargs)

        return call

    def _lower(self, tensor: torch.Tensor) -> torch.Tensor:
        # each use makes a copy of its own: Lightning's autocast has cache_enabled=False
        return tensor.to(self._dtype) if tensor.dtype == torch.float32 else tensor


def _each(change: Callable[[torch.Tensor], torch.Tensor], args: Any, kwargs: Any) -> tuple[Any, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return change(value) if value.is_meta else value
        if type(value) is list or type(value) is tuple:  # of einsum and of chains
            return type(value)([one(item) for item in value])
        return value

    return tuple([one(value) for value in args]), {key: one(value) for key, value in kwargs.items()}


def _raise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if _is_lower(tensor) else tensor


def _is_lower(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.is_meta and tensor.dtype in (torch.bfloat16, torch.float16)
