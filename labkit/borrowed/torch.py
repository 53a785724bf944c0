"""Private names of torch, read in torch 2.13; all are the same in 2.11."""

import contextlib
import importlib
import operator
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils import _python_dispatch, _pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "ATTENTION_BY_MATH", "COPY_TO", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "FLASH_ATTENTION",
    "FLASH_ATTENTION_ON_CPU", "FUSED_DEVICES", "FUSED_RMS_NORM", "FUSED_SGD", "GROUPED_MATMUL", "MODULE_TABLES",
    "ONE_HOLDER", "ON_LISTS", "READ_NUMBER", "SOFTMAX_BACKWARD", "TorchDispatchMode", "bucket_assignment",
    "composite_on_meta", "entered_modes", "fake_store", "has_rebuilt_buckets", "in_backward", "in_python_node",
    "is_compiled", "is_persistent", "is_sharded", "local", "multiply_all", "recurrent_layers", "schema", "sparse_parts",
    "storage_key", "storage_uses", "tensor_uses", "tree_iter", "tree_map", "watch_parameters", "without_modes",
]  # fmt: skip

# -- modes: ``TorchDispatchMode`` sees every operation, and lies in a private module, though torch's docs name it

without_modes = _python_dispatch._disable_current_modes
"""A context in which no mode sees what is done; ``torch.utils`` has none that is public."""

entered_modes = _python_dispatch._get_current_dispatch_mode_stack
"""The modes that are entered now, the innermost last."""

# -- trees: lists, tuples and dictionaries in each other; ``torch.utils.pytree`` is not there yet

tree_iter = _pytree.tree_iter
"""The leaves of a tree, one by one."""

tree_map = _pytree.tree_map
"""A tree of the same form with each leaf put through a function."""

# -- tensors and their storages

storage_key = operator.attrgetter("_cdata")
"""A number that no other storage has while this one lives: the address of its C++ object. Two Python objects may stand
for one storage, so ``id`` does not tell them apart."""


def storage_uses(storage: torch.UntypedStorage) -> int:
    """How many hold a storage, C++ code included, which ``sys.getrefcount`` does not know of."""
    return torch._C._storage_Use_Count(storage._cdata)  # type: ignore[attr-defined]


ONE_HOLDER = (4, 2)
"""Uses of a tensor, and of its storage, that a mode is given by C++ while nobody but one buffer of autograd has it: the
buffer, the operation's arguments, and what Python was given."""


def tensor_uses(tensor: torch.Tensor) -> int:
    """How many hold a tensor, C++ code included."""
    return tensor._use_count()  # type: ignore[attr-defined]


def sparse_parts(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices and values of a sparse tensor as they are; the public ``indices`` refuses one that is not coalesced."""
    return tensor._indices(), tensor._values()


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is a part of one that several ranks have (``DTensor``)."""
    loaded = sys.modules.get("torch.distributed.tensor")  # takes half a second; without it there is no such tensor
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank keeps of a tensor, without the detour of ``DTensor.to_local`` through autograd."""
    return tensor._local_tensor if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


# -- operations

schema = operator.attrgetter("_schema")
"""Of an operation what it takes and returns, and which of these share memory."""

ON_LISTS = ("_foreach_", "_fused_")
"""What names of operations on lists of tensors begin with: one function for many tensors, and one kernel for all that
an optimizer does."""

FUSED_SGD = (torch.ops.aten._fused_sgd_.default, torch.ops.aten._fused_sgd_.tensor_lr)
"""The fused step of SGD, which torch has not written down for ``meta``."""


def in_backward() -> bool:
    """Whether autograd is computing gradients: in a thread of its own on CUDA, in this one on ``meta``."""
    return torch._C._current_graph_task_id() != -1  # type: ignore[attr-defined]


def in_python_node() -> bool:
    """Whether what autograd computes, or has computed last, is the backward of a function written in Python."""
    return isinstance(torch._C._current_autograd_node(), torch.autograd.function.BackwardCFunction)  # type: ignore


READ_NUMBER = torch.ops.aten._local_scalar_dense.default
"""Behind ``item``, ``bool``, ``int`` and ``float`` of a tensor."""

COPY_TO = torch.ops.aten._to_copy.default
"""Behind ``to`` where something changes, and ``cpu``."""

SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data.default
FUSED_RMS_NORM = torch.ops.aten._fused_rms_norm
"""Behind ``softmax`` in backward, and ``rms_norm``."""

GROUPED_MATMUL = torch.ops.aten._grouped_mm.default
"""Behind ``torch.nn.functional.grouped_mm``: each group of rows by a matrix of its own, as experts need it."""

multiply_all = torch._foreach_mul_
"""Multiply many tensors in place, in one operation."""

FLASH_ATTENTION_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention
CUDNN_ATTENTION = torch.ops.aten._scaled_dot_product_cudnn_attention
EFFICIENT_ATTENTION = torch.ops.aten._scaled_dot_product_efficient_attention
ATTENTION_BY_MATH = torch.ops.aten._scaled_dot_product_attention_math
"""The kernels behind ``scaled_dot_product_attention``, by name: what it would choose for a ``meta`` tensor is not what
it chooses on a device."""


@contextlib.contextmanager
def composite_on_meta(name: str, kernel: Callable[..., Any]) -> Generator[None]:
    """A context in which an operation that is composed of others is ``kernel`` on ``meta``, with gradients or without.

    The registration is public, and taking it back is not, but for waiting until the library object is collected.
    """
    library = torch.library.Library("aten", "IMPL")
    library.impl(name, kernel, "AutogradMeta")
    try:
        yield
    finally:
        library._destroy()


def recurrent_layers() -> dict[str, Callable[..., Any]]:
    """Recurrent layers as a CPU without oneDNN computes them, by the name of the operation: the input of all time
    steps at once, then step by step. What C++ does with a ``meta`` tensor is neither a CPU's way nor CUDA's."""
    from torch._decomp import decompositions as ways

    return {
        "lstm.input": ways.lstm_impl, "gru.input": ways.gru_impl, "rnn_tanh.input": ways.rnn_tanh_input,
        "rnn_relu.input": ways.rnn_relu_input,
    }  # fmt: skip


FUSED_DEVICES = (importlib.import_module("torch.optim.optimizer"), "_get_fused_kernels_supported_devices")
"""Module and name of what optimizers ask for the devices that have fused kernels. ``torch.optim.optimizer`` by import:
``torch.optim`` takes the name away."""

# -- modules

MODULE_TABLES = ("_parameters", "_buffers", "_modules")
"""Attributes of every module that hold its parameters, buffers and parts, which it has public iterators for."""


class _Watched(dict):
    """A module's table of parameters that tells who asked for one by its name."""

    def __init__(self, table: dict[str, Any], looked_at: Callable[[nn.Parameter], None]) -> None:
        super().__init__(table)
        self._looked_at = looked_at

    def __getitem__(self, name: str) -> Any:
        parameter = super().__getitem__(name)
        if parameter is not None:
            self._looked_at(parameter)
        return parameter


def watch_parameters(module: nn.Module, looked_at: Callable[[nn.Parameter], None]) -> None:
    """Call ``looked_at`` each time that a parameter of the module itself is read as an attribute."""
    module._parameters = _Watched(module._parameters, looked_at)


def is_persistent(module: nn.Module, name: str) -> bool:
    """Whether a buffer of a module is saved; otherwise only its state dict tells, which reads what ``meta`` has not."""
    return name not in module._non_persistent_buffers_set


def is_compiled(module: nn.Module) -> bool:
    """Whether a module or a part of it runs through ``torch.compile``, as a wrapper of it or in its own call."""
    wrapper = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", ())  # not loaded, not compiled
    return any(isinstance(part, wrapper) or part._compiled_call_impl is not None for part in module.modules())


# -- ranks


def bucket_assignment(parameters: Sequence[torch.Tensor], limits_bytes: Sequence[int]) -> list[list[int]]:
    """The parameters that DDP puts into a bucket together, by their places; in C++ and without a public name."""
    return dist._compute_bucket_assignment_by_size(list(parameters), list(limits_bytes))[0]


has_rebuilt_buckets = operator.attrgetter("_has_rebuilt_buckets")
"""Whether ``DistributedDataParallel`` has made its buckets again, in the order of the first backward."""


def fake_store() -> dist.Store:
    """A store for the backend ``fake``, which communicates nothing; importing it registers that backend."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # not needed in a run

    return FakeStore()
