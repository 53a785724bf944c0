"""FSDP: every rank keeps a share of each layer, and layers are put together while they are used (torch's FSDP2)."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from labkit.borrowed.bitsandbytes import quant_state
from labkit.borrowed.torch import local, storage_uses, tree_map
from labkit.borrowed.torch_fsdp import DefaultAllGather, DefaultReduceScatter
from labkit.config.schema import RunConfig
from labkit.memory.sharded import ShardTracker, follow_gathered
from labkit.memory.tracker import Tracker, host
from labkit.train.models import autocast_dtype_of, dtype_of
from labkit.train.module import CaptionModule
from labkit.train.own_state import OwnState


def sharded_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that are sharded one by one, in the order of the model: every layer of every stack of layers.

    These are the layers of the vision tower, of the connector and of the language model, with the adapters in them.
    The model itself comes after them and takes what is left: embeddings, projections, norms, the output layer.
    """
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from child  # a stack inside a layer is sharded with its layer
        else:
            yield from sharded_modules(child)


def shard(model: nn.Module, config: RunConfig, mesh: DeviceMesh) -> None:
    """Shard a model over ``mesh`` for the run: parameters on their first dimension, with torch's defaults.

    Under a mixed precision weights are gathered in 16 bits and gradients reduced in 32: ours to choose, since
    Lightning's ``ModelParallelStrategy`` leaves the policy to the module. The root stays gathered after forward.
    """
    policy = MixedPrecisionPolicy()
    if (gathered := autocast_dtype_of(config.precision)) is not None:
        policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32)
    for module in (*sharded_modules(model), model):
        fully_shard(module, mesh=mesh, mp_policy=policy)


class ShardedStrategy(OwnState, ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with all ranks in one dimension; the module shards itself.

    A rank saves its shards as the plain tensors they are, for a run on as many ranks.
    """

    def __init__(self, world_size: int, **options: Any) -> None:
        super().__init__(data_parallel_size=world_size, tensor_parallel_size=1, **options)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes: here no state is restored before Lightning asks for it."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's shards."""
        return tree_map(local, self.lightning_module.state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Fill this rank's shards."""
        own = tree_map(local, self.lightning_module.state_dict())
        with host(), torch.no_grad():
            for name, shard in checkpoint["state_dict"].items():
                own[name].copy_(shard)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state of this rank's shards."""
        return tree_map(local, optimizer.state_dict())

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give the optimizer the state of this rank's shards, sharded as the parameters are."""
        (optimizer,), (saved,) = self.optimizers, checkpoint["optimizer_states"]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = {
            i: {key: _sharded_as(parameters[i], value) for key, value in of.items()} for i, of in saved["state"].items()
        }
        with host():
            optimizer.load_state_dict(saved | {"state": state})


def _sharded_as(parameter: DTensor, value: Any) -> Any:
    """A rank's part of a sharded tensor as that tensor; a count of steps, which all ranks have, as it is."""
    if not isinstance(value, torch.Tensor) or value.shape != local(parameter).shape:
        return value
    return DTensor.from_local(
        value, parameter.device_mesh, parameter.placements, run_check=False, shape=parameter.shape,
        stride=parameter.stride(),
    )  # fmt: skip


class ShardedModule(CaptionModule):
    """A ``CaptionModule`` that is sharded before it has an optimizer.

    Give it a model in host memory: no rank's device ever holds all of it. On a simulated GPU its memory is followed by
    ``tracker``, from the shards on.
    """

    def __init__(self, config: RunConfig, model: nn.Module, tracker: Tracker | None) -> None:
        super().__init__(config, model)
        self._tracker = tracker
        self._is_sharded = False

    def configure_model(self) -> None:
        """Shard the model over the ranks."""
        if self._is_sharded:
            return
        self._is_sharded = True
        with host():
            if self.config.dtypes.weights_in_16_bits:
                self.model.to(dtype_of(self.config.precision))  # Lightning would do it when the whole is gone
            shard(self.model, self.config, self.device_mesh["data_parallel"])
            for layer in self.model.modules():
                if (state := quant_state(layer)) is not None:
                    state.to(self.device)  # FSDP moves parameters, and these are none; every rank has all of them
        if isinstance(self._tracker, ShardTracker):
            let_gloo_finish(self.model)
            follow_gathered(self.model, self._tracker)
            self._tracker.assign((*self.model.parameters(), *self.model.buffers()), "parameters")
        self._tracker = None


def let_gloo_finish(model: nn.Module) -> None:
    """Make collectives over when gloo has let go of the tensors, as they are on a GPU, for a count that is the same
    every time."""
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_custom_all_gather(_Gather())
            part.set_custom_reduce_scatter(_Reduce())


class _Gather(DefaultAllGather):
    def __call__(self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with host(), _let_go(output_tensor):
            return super().__call__(output_tensor, input_tensor, *args, **kwargs)


class _Reduce(DefaultReduceScatter):
    """Gloo makes of it an all-reduce of a copy; NCCL needs none, so the copy does not count."""

    def __call__(self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with host(), _let_go(output_tensor), _let_go(input_tensor):
            return super().__call__(output_tensor, input_tensor, *args, **kwargs)


@contextlib.contextmanager
def _let_go(tensor: torch.Tensor) -> Iterator[None]:
    """Wait until nothing else holds the tensor's storage: gloo's thread does, some microseconds longer than needed."""
    storage = tensor.untyped_storage()
    before = storage_uses(storage)
    yield
    until = time.monotonic() + 5
    while storage_uses(storage) > before and time.monotonic() < until:
        time.sleep(1e-5)
