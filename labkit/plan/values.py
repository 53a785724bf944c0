"""Values: what integer and bool tensors on ``meta`` hold, so that a step which asks them goes the way it will go.

Lengths, masks, places of pictures in a text and grids of patches are integers. A model reads them (``item``,
``tolist``, ``nonzero``, indexing by a mask), and what it allocates next depends on the answer. What the model computes
from its weights is not known; a few questions about that have one answer in any healthy run.
"""

import functools
import weakref
from collections.abc import Iterator
from typing import Any, Literal

import torch

from labkit.borrowed.torch import COPY_TO, READ_NUMBER, schema, storage_key, tree_iter, tree_map
from labkit.plan.errors import PredictionError

LIMIT = 2**22
"""Tensors of more numbers have no values, unless all are the same: a mask of 2048 tokens against each other has some.
"""

STAND_IN = 1.0
"""What a number that the model computes is when it is read, as to be logged."""

Routing = Literal["balanced", "one-sided"]
"""How a router spreads tokens over its experts, which depends on weights: evenly, or all to the same. Which of the two
takes more depends on how the experts are written."""

_aten = torch.ops.aten
_HEALTHY = {_aten.isnan.default: False, _aten.isinf.default: False, _aten.eq.Scalar: False, _aten.ne.Scalar: True}
"""Questions about computed numbers with the answer that they have in a healthy run: none is infinite, or no number,
or exactly a constant."""


class Values:
    """The numbers behind tensors on ``meta``, by storage, so that a view has those of its base.

    ``follow`` computes them where all that goes into an operation is known. ``answer`` carries out an operation
    whose result, or its shape, depends on numbers.
    """

    def __init__(self, routing: Routing = "balanced") -> None:
        self._routing = routing
        self._known: dict[int, torch.Tensor] = {}  # as long as the storage, or one number that all of it is

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The values of a tensor, in memory shared with those of its views; None if they are not known."""
        if not tensor.is_meta:
            return tensor
        if not tensor.numel():
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        known = self._known.get(storage_key(tensor.untyped_storage()))
        if known is None or known.dtype != tensor.dtype:
            return None
        if known.numel() == 1:
            return known.reshape(()).expand(tensor.shape)
        return known.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def set(self, tensor: torch.Tensor, values: torch.Tensor) -> None:
        """Say what a tensor that fills its storage holds."""
        storage = tensor.untyped_storage()
        known = values
        if values.numel() > 1:
            known = torch.empty(storage.nbytes() // tensor.element_size(), dtype=tensor.dtype)
            known.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(values)
        self._keep(storage, known.reshape(-1))

    def _keep(self, storage: torch.UntypedStorage, known: torch.Tensor) -> None:
        key = storage_key(storage)
        if key not in self._known:
            weakref.finalize(storage, self._known.pop, key, None).atexit = False
        self._known[key] = known

    def _forget(self, tensor: torch.Tensor) -> None:
        self._known.pop(storage_key(tensor.untyped_storage()), None)

    # -- operations that were carried out on meta

    def follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Note what an operation has made of values."""
        kind = _kind(func)
        if kind == _VIEWS:  # a view has its base's
            return
        if kind == _WRITES:
            self._write(func, args, kwargs)
        elif isinstance(out, torch.Tensor):
            if out.is_meta and (_is_small(out) or kind == _ASKS):
                self._note(func, args, kwargs, out, kind)
        elif type(out) is tuple or type(out) is list:
            if kind == _ROUTES and self.of(args[0]) is None:
                self._route(out[1], args[0].shape[-1])
            elif any(isinstance(t, torch.Tensor) and t.is_meta and _is_small(t) for t in out):
                self._note(func, args, kwargs, out, kind)

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any, kind: str) -> None:
        if kind == _EMPTIES:
            found = None if out.is_floating_point() else torch.zeros(out.shape, dtype=out.dtype)
        elif kind == _FILLS and out.is_floating_point():  # state of an optimizer, for one: no numbers for each number
            self._keep(out.untyped_storage(), torch.full((1,), _filling(func, args), dtype=out.dtype))
            return
        else:
            found = self._computed(func, args, kwargs)
        if found is None and kind == _ASKS:
            healthy = torch.tensor(_HEALTHY[func])
            if not _is_small(out):
                self._keep(out.untyped_storage(), healthy.reshape(1))
                return
            found = healthy.expand(out.shape)
        if found is None:
            return
        for made, values in zip(tree_iter(out), tree_iter(found), strict=True):
            if isinstance(made, torch.Tensor) and made.is_meta and _is_small(made):
                self.set(made, values)

    def _write(self, func: Any, args: Any, kwargs: Any) -> None:
        places, names = _written(func)
        told = [args[place] for place in places if place < len(args)], [kwargs.get(name) for name in names]
        written = [t for t in _tensors(told) if t.is_meta and self._is_known(t)]
        if not written:
            return
        for tensor in written:
            if self._known[storage_key(tensor.untyped_storage())].numel() == 1 and tensor.numel() > 1:
                self._forget(tensor)  # one number for all, and now it may not be
        if len(written) > 1 or self._computed(func, args, kwargs) is None:
            for tensor in written:
                self._forget(tensor)

    def _is_known(self, tensor: torch.Tensor) -> bool:
        return storage_key(tensor.untyped_storage()) in self._known

    def _computed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operation on values; None where some are not known."""
        found = {}
        for tensor in _tensors((*args, *kwargs.values())):
            if (values := self.of(tensor)) is None:
                return None
            found[id(tensor)] = values

        def real(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return found[id(value)]
            return _CPU if isinstance(value, torch.device) else value

        if func is _aten.histc.default:  # CUDA counts integers in a histogram, a CPU only floating-point numbers
            found = {key: values.double() for key, values in found.items()}
            return func(*tree_map(real, args), **kwargs).to(args[0].dtype)
        return func(*tree_map(real, args), **tree_map(real, kwargs))

    def _route(self, chosen: torch.Tensor, experts: int) -> None:
        """What a router chooses among experts, from scores that are not known."""
        if chosen.numel() > LIMIT:
            return
        each = chosen.shape[-1]
        flat = torch.arange(chosen.numel()) if self._routing == "balanced" else torch.arange(each)
        self.set(
            chosen,
            (flat % experts).expand(chosen.shape) if flat.numel() == each else (flat % experts).reshape(chosen.shape),
        )

    # -- operations that meta cannot carry out

    def decide(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether an operation that ``reads`` asks for what only values tell."""
        if func is COPY_TO:
            device = kwargs.get("device")
            return device is not None and device.type != "meta" and args[0].is_meta
        if func is _aten.copy_.default:
            return args[1].is_meta and not args[0].is_meta
        if func is _aten.index.Tensor:
            return any(_is_mask(index) for index in args[1])
        return any(t.is_meta for t in _tensors((*args, *kwargs.values())))

    def answer(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Carry out what values ``decide``. Raises ``PredictionError`` where values are not known."""
        if func is COPY_TO:
            values = self._values_or_stand_ins(func, args[0])
            return func(values, *args[1:], **kwargs).clone()
        if func is _aten.copy_.default:
            return func(args[0], self._values_or_stand_ins(func, args[1]), *args[2:])
        if func is READ_NUMBER:
            return self._values_or_stand_ins(func, args[0]).item()
        if func is _aten.index.Tensor:
            out = func(args[0], [place for index in args[1] for place in self._places(index)])
            if _is_small(out) and (found := self._computed(func, args, kwargs)) is not None:
                self.set(out, found)
            return out
        if func is _aten.masked_select.default:
            mask, shape = self.of(args[1]), torch.broadcast_shapes(args[0].shape, args[1].shape)
            if mask is None:
                raise _unknown(func)
            return torch.empty(int(mask.expand(shape).sum()), dtype=args[0].dtype, device="meta")
        found = self._computed(func, args, kwargs)
        if found is None:
            raise _unknown(func)
        made = tree_map(_on_meta, found)
        for tensor, values in zip(tree_iter(made), tree_iter(found), strict=True):
            if isinstance(tensor, torch.Tensor) and values.numel():
                self.set(tensor, values)
        return made

    def _values_or_stand_ins(self, func: Any, tensor: torch.Tensor) -> torch.Tensor:
        values = self.of(tensor)
        if values is None:
            if not tensor.is_floating_point():
                raise _unknown(func)
            values = torch.full((), STAND_IN, dtype=tensor.dtype).expand(tensor.shape)
        return values

    def _places(self, index: Any) -> list[Any]:
        """What a mask picks, as one index for each of its dimensions."""
        if not _is_mask(index):
            return [index]
        values = self.of(index)
        if values is None:
            raise _unknown(_aten.index.Tensor)
        count = int(values.sum())
        return [torch.empty(count, dtype=torch.int64, device="meta") for _ in range(index.dim())]


_CPU = torch.device("cpu")

_VIEWS, _WRITES, _ASKS, _ROUTES, _EMPTIES, _FILLS, _PLAIN = (
    "views", "writes", "asks", "routes", "empties", "fills", "plain",
)  # fmt: skip

_NUMBER_AT = {"full": 1, "full_like": 1, "new_full": 2}
_FILLING = {"zeros": 0.0, "zeros_like": 0.0, "new_zeros": 0.0, "ones": 1.0, "ones_like": 1.0, "new_ones": 1.0}
"""Operations that make a tensor of one number, which is their argument at that place, or always the same."""


@functools.cache
def _kind(func: Any) -> str:
    told = schema(func)
    if told.is_mutable:
        kind = _WRITES
    elif any(result.alias_info is not None for result in told.returns):
        kind = _VIEWS
    elif func in _HEALTHY:
        kind = _ASKS
    elif func is _aten.topk.default:
        kind = _ROUTES
    elif _name(func) in (*_FILLING, *_NUMBER_AT):
        kind = _FILLS
    else:
        kind = _EMPTIES if "empty" in told.name else _PLAIN
    return kind


def _name(func: Any) -> str:
    return schema(func).name.removeprefix("aten::")


def _filling(func: Any, args: Any) -> float:
    name = _name(func)
    return _FILLING[name] if name in _FILLING else args[_NUMBER_AT[name]]


@functools.cache
def _written(func: Any) -> tuple[list[int], list[str]]:
    """The arguments that an operation writes into: places, and names of those that have none."""
    arguments = schema(func).arguments
    written = [(place, a) for place, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write]
    return [place for place, a in written if not a.kwarg_only], [a.name for _, a in written]


@functools.cache
def reads(func: Any) -> bool:
    """Whether an operation may depend on numbers: by its tags, or because it leaves ``meta``."""
    tagged = torch.Tag.dynamic_output_shape in func.tags or torch.Tag.data_dependent_output in func.tags
    return tagged or func in (COPY_TO, _aten.copy_.default)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    """Those in the arguments of an operation, which are tensors, numbers, and lists of such."""
    for item in tree:
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, (list, tuple)):
            yield from _tensors(item)


def _is_small(tensor: torch.Tensor) -> bool:
    return tensor.numel() <= LIMIT


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.is_meta and index.dtype in (torch.bool, torch.uint8)


def _on_meta(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _unknown(func: Any) -> PredictionError:
    return PredictionError(
        f"operation {func} asks for numbers that only a run can know: they are computed from the weights, or there are "
        f"more than {LIMIT:,} of them. Keep such a question out of the step, or run it instead."
    )
