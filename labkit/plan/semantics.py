"""Semantics: where ``meta`` tensors would behave differently from the run's device, do as the device does: attention,
dropout, autocast, values of new tensors, and what is given back to the driver."""

import contextlib
import functools
import gc
import threading
from collections.abc import Callable, Generator
from typing import Any

import torch

from labkit.borrowed.torch import FUSED_DEVICES, composite_on_meta, entered_modes, recurrent_layers
from labkit.config.schema import RunConfig
from labkit.plan.attention import attention_on_cpu, attention_on_cuda
from labkit.plan.autocast import Autocast
from labkit.plan.errors import PredictionError
from labkit.plan.kernels import rms_norm_on_cuda
from labkit.plan.shapes import ShapeTracker
from labkit.train.models import autocast_dtype_of

_REPLACING = threading.RLock()


@contextlib.contextmanager
def replacing() -> Generator[None]:
    """A context that one thread at a time is in, and that leaves torch's random numbers where they were.

    What is replaced in torch while steps are executed is replaced for all threads, and so are the default dtype, the
    process group of a prediction and what Lightning sets. Python does not collect cycles meanwhile, which is a quarter
    of the time. What torch raises there becomes a ``PredictionError``.
    """
    with _REPLACING, torch.random.fork_rng(devices=[]):
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        except RuntimeError as error:  # torch's, from outside of an operation; NotImplementedError is one
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PredictionError(
                f"the step cannot be executed on meta tensors, so it cannot be predicted: {reason}"
            ) from error
        finally:
            if collects:
                gc.enable()


class DeviceSemantics:
    """A context in which operations on ``meta`` tensors take the way that they take on the run's device.

    Composite operations where the ways part have another kernel for ``meta`` while the context lasts, and functions
    that autocast casts are replaced in torch itself; with other tensors both do what they always do. A torch function
    mode would see every access to an attribute too, and be left during backward, where checkpointed layers are
    computed again.
    """

    def __init__(self, config: RunConfig) -> None:
        self._cuda = config.on_cuda
        self._cudnn = config.cudnn_attention
        self._autocast = Autocast(autocast_dtype_of(config.precision), on_cuda=config.on_cuda)
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "DeviceSemantics":
        # torch.device, as a context, keeps the functions it is for as they are at its first use in the process
        with torch.device("cpu"):
            torch.empty(0)
        self._replace(*FUSED_DEVICES, _with_meta)
        for name in ("tensor", "as_tensor"):
            self._replace(torch, name, _with_values)
        if self._cuda:
            for module in (torch.cuda, torch.cuda.memory, torch.accelerator, torch.accelerator.memory):
                self._replace(module, "empty_cache", _noted)
        for replacement in self._autocast.replacements():
            self._replace(*replacement)
        self._undo.enter_context(composite_on_meta("scaled_dot_product_attention", self._attention))
        on_cuda = {"dropout": _dropout_on_cuda, "rms_norm": rms_norm_on_cuda}
        composites = on_cuda if self._cuda else recurrent_layers()
        for name, kernel in composites.items():
            self._undo.enter_context(composite_on_meta(name, kernel))
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Cast as ``torch.autocast`` does, if the run's precision is a mixed one."""
        return self._autocast.casting()

    def _replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        original = getattr(owner, name)
        self._undo.callback(setattr, owner, name, original)
        setattr(owner, name, make(original))

    def _attention(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        args, kwargs = self._autocast.lowered(args, kwargs)
        if self._cuda:
            return attention_on_cuda(*args, **kwargs, cudnn=self._cudnn)
        return attention_on_cpu(*args, **kwargs)


def _dropout_on_cuda(input: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    """The fused kernel, which keeps a byte for each number that tells whether it was dropped.

    Where it is used is ``is_fused_kernel_acceptable`` in ``aten/src/ATen/native/Dropout.cpp``.
    """
    if not train or p == 0 or not input.numel():
        return input
    if p == 1:
        return input * torch.zeros((), dtype=input.dtype, device=input.device)
    return torch.native_dropout(input, p, True)[0]


def _with_meta(original: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """Devices with fused optimizers: where the run has one, ``meta`` has one."""
    return lambda: [*original(), "meta"]


def _with_values(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Made in host memory and moved, where torch makes a tensor on ``meta`` without its values."""

    @functools.wraps(original)
    def make(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> torch.Tensor:
        # torch.get_default_device asks in the same way, by the function that is replaced here
        device = original([]).device if device is None else torch.device(device)
        if device.type != "meta" or isinstance(data, torch.Tensor):
            return original(data, device=device, **options, **({"requires_grad": True} if requires_grad else {}))
        return original(_numbers(data), device="cpu", **options).to(device).requires_grad_(requires_grad)

    return make


def _noted(original: Callable[[], None]) -> Callable[[], None]:
    """Under a prediction's tracker, which other threads have not entered, it is an event for the allocator's model."""

    @functools.wraps(original)
    def empty_cache() -> None:
        trackers = [mode for mode in entered_modes() if isinstance(mode, ShapeTracker)]
        for tracker in trackers:
            tracker.release_cached()
        if not trackers:
            original()

    return empty_cache


def _numbers(data: Any) -> Any:
    """Nested lists with tensors on ``meta`` read: torch reads them where no values are known."""
    if isinstance(data, (list, tuple)):
        return [_numbers(item) for item in data]
    return data.tolist() if isinstance(data, torch.Tensor) and data.is_meta else data
