"""Shapes: what an operation on ``meta`` tensors returns; torch is asked once, and the answer is remembered.

Most of torch's rules for ``meta`` tensors are written in Python and slow, and a model repeats its layers. An operation
that makes new tensors, or writes into its first argument, gives the same shapes, strides and types for the same
shapes, strides, types and numbers going in. Views, and whatever else shares storage, are always asked of torch.
"""

from typing import Any

import torch

from labkit.borrowed.torch import FUSED_SGD, GROUPED_MATMUL, ON_LISTS, in_backward, schema, storage_key, tree_iter
from labkit.memory.tracker import Tracker
from labkit.plan.errors import PredictionError
from labkit.plan.kernels import IN_PLACE, in_place, scratch
from labkit.plan.values import Values, reads
from labkit.plan.workspaces import MULTIPLY

_Like = tuple[torch.Size, tuple[int, ...], torch.dtype]


class ShapeTracker(Tracker):
    """A tracker of ``meta`` tensors that keeps its events and remembers what operations give.

    With ``workspace_bytes`` the first multiplication of forward, and that of backward, allocate so much for good.
    With ``on_cuda`` kernels take what CUDA's take besides their results.
    """

    def __init__(self) -> None:
        super().__init__(device_type="meta", keep_events=True)
        self.values = Values()
        self.workspace_bytes = 0
        self.on_cuda = False
        self._workspaces: dict[bool, torch.Tensor] = {}
        self._known: dict[Any, Any] = {}

    def release_cached(self) -> None:
        """Note that the allocator gives segments without a block in use back to the driver."""
        assert self.events is not None
        self.events.append((None, 0, "torch.cuda.empty_cache"))

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        if reads(func) and self.values.decide(func, args, kwargs):
            return self.values.answer(func, args, kwargs)
        if self.on_cuda and func in IN_PLACE and in_backward() and in_place(func, args, kwargs):
            return args[0]
        out = self._shaped(func, args, kwargs)
        self.values.follow(func, args, kwargs, out)
        if self.on_cuda and (besides := scratch(func, args, kwargs)) is not None:
            for made in (*tree_iter(out), besides):
                if made is not None:
                    self._see(made, func)
            del besides, made
        if self.workspace_bytes and func in MULTIPLY and (backward := in_backward()) not in self._workspaces:
            made = torch.empty(self.workspace_bytes, dtype=torch.uint8, device="meta")
            self._workspaces[backward] = made
            self._see(made, "workspace of cuBLAS", "unattributed")
        return out

    def _shaped(self, func: Any, args: Any, kwargs: Any) -> Any:
        answer = _ANSWERS.get(func)
        if answer is None:
            answer = _ANSWERS[func] = _answer(func)
        if answer is _ask:
            return None if func in _WITHOUT_META else _execute(func, args, kwargs)
        key = (func, _signature(args), _signature(kwargs.items()) if kwargs else None)
        known = self._known.get(key)
        if known is not None:
            return answer(known, args)
        out = _execute(func, args, kwargs)
        if answer is not _new:
            if all(t.is_meta for t in tree_iter(args[0])):  # others have values, which change each time
                self._known[key] = True
        elif _shares(out, args):  # some give an input back without saying so in their schema
            _ANSWERS[func] = _ask
        elif _is_plain(out):
            self._known[key] = _like(out)
        return out


_WITHOUT_META = set(FUSED_SGD)
"""Operations that write into their arguments, make nothing, and that torch has not written down for ``meta``."""


def _execute(func: Any, args: Any, kwargs: Any) -> Any:
    if func is GROUPED_MATMUL and args[0].dtype != torch.bfloat16:
        # torch's rule for meta knows one of CUDA's two kernels, that for bfloat16; both return the same shapes
        lower = [arg.bfloat16() if isinstance(arg, torch.Tensor) and arg.is_floating_point() else arg for arg in args]
        return torch.empty(func(*lower, **kwargs).shape, dtype=args[0].dtype, device="meta")
    try:
        return func(*args, **kwargs)
    except (NotImplementedError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
        raise PredictionError(
            f"operation {func} cannot be executed on meta tensors, so this model cannot be predicted: {reason}. "
            "Keep operations that read values out of the step, or run it instead."
        ) from error


_ANSWERS: dict[Any, Any] = {}


def _ask(known: Any, args: Any) -> Any:
    """The answer is not remembered."""
    raise NotImplementedError


def _new(known: Any, args: Any) -> Any:
    """Tensors of their own."""
    if type(known) is list:
        return [_new(one, args) for one in known]
    if known is None:
        return None
    if known[0] is None:  # several in a tuple
        return tuple([_new(one, args) for one in known[1]])
    size, stride, dtype = known
    return torch.empty_strided(size, stride, dtype=dtype, device="meta")


def _first(known: Any, args: Any) -> Any:
    """The first argument, written into."""
    return args[0]


def _nothing(known: Any, args: Any) -> Any:
    """The first argument's tensors are written into, and nothing is given back."""
    return None


def _answer(func: Any) -> Any:
    told = schema(func)
    aliased = [argument.alias_info for argument in told.arguments if argument.alias_info is not None]
    results = told.returns
    if not aliased and results and all(r.alias_info is None for r in results):
        return _new
    first = told.arguments[0].alias_info if told.arguments else None
    written = len(aliased) == 1 and aliased[0].is_write and first is not None
    # other operations in place, such as transposing, may change the tensor's own shape
    name = told.name.removeprefix("aten::")
    if not written or not (torch.Tag.pointwise in func.tags or name.startswith(ON_LISTS[0]) or name in _FILLING):
        return _ask
    return _first if results else _nothing


_FILLING = ("copy_", "zero_", "fill_", "bernoulli_", "uniform_", "normal_")


def _signature(values: Any) -> tuple[Any, ...]:
    key: list[Any] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            key += (value.shape, value.stride(), value.dtype, value.device)
        elif type(value) is list or type(value) is tuple:
            key.append(_signature(value))
        else:
            key += (type(value), value)  # 1, 1.0 and True are equal, and do not give the same
    return tuple(key)


def _like(out: Any) -> Any:
    if isinstance(out, torch.Tensor):
        return out.shape, out.stride(), out.dtype
    if type(out) is list:
        return [_like(one) for one in out]
    if type(out) is tuple:
        return None, [_like(one) for one in out]
    return out


def _shares(out: Any, args: Any) -> bool:
    """Whether an output shares storage with an input or another output."""
    seen = {storage_key(t.untyped_storage()) for t in tree_iter(args) if isinstance(t, torch.Tensor)}
    for tensor in tree_iter(out):
        if isinstance(tensor, torch.Tensor):
            key = storage_key(tensor.untyped_storage())
            if key in seen:
                return True
            seen.add(key)
    return False


def _is_plain(out: Any) -> bool:
    """Whether ``_new`` can make the like: tensors on ``meta`` that fill their storages, or None."""
    return all(
        tensor is None
        or isinstance(tensor, torch.Tensor)
        and tensor.is_meta
        and tensor.untyped_storage().nbytes() == _span_bytes(tensor)
        for tensor in tree_iter(out)
    )


def _span_bytes(tensor: torch.Tensor) -> int:
    """What ``empty_strided`` gives a tensor of this shape."""
    if not tensor.numel():
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()
