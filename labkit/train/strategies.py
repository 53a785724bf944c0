"""Strategies: where Lightning puts weights, gradients and optimizer state."""

import argparse
import functools
import logging
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy

from labkit.borrowed.lightning import OpenDeepSpeed
from labkit.borrowed.torch import tree_iter
from labkit.config.schema import RunConfig
from labkit.memory.tracker import host
from labkit.train.ddp import BucketedDDP
from labkit.train.extensions import alone, set_folder
from labkit.train.fsdp import ShardedStrategy
from labkit.train.in_place import InPlace, OneDevice
from labkit.train.state_files import reading


class Zero(InPlace, OpenDeepSpeed):
    """DeepSpeed, which reads the files of a checkpoint as data."""

    def init_deepspeed(self) -> None:
        """Make the engine, and give it a way to read that runs nothing."""
        super().init_deepspeed()
        from labkit.train.zero_files import ZeroFiles  # which imports deepspeed

        self.deepspeed_engine.checkpoint_engine = ZeroFiles()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """As Lightning's; the files are read in host memory. ``CheckpointError`` for one that is more than data."""
        from labkit.train.zero_files import check_latest

        folder = Path(checkpoint_path)
        with reading(folder.parent), host():
            check_latest(folder)
            return super().load_checkpoint(checkpoint_path, weights_only)


class ZeroOnCPU(Zero):
    """Real DeepSpeed on a machine without a GPU.

    Lightning's strategy asks for CUDA in four places; each is overridden here with what a CPU needs.
    ``set_environment`` must come before deepspeed is imported.

    DeepSpeed's own set-up is not counted on the simulated GPU: all of its buffers are CPU tensors, and which belong to
    the device is known only when it is done. In stage 3 a layer that is gathered for its turn is the tensor that host
    memory keeps, so it costs the simulated GPU nothing; on CUDA it is a copy.
    """

    def setup_environment(self) -> None:
        """As Lightning's, without the check for CUDA."""
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        """As Lightning's, without the check of device indices, which a CPU does not have."""
        self.set_world_ranks()
        from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

        with alone():
            ShareMemCommBuilder().load(verbose=False)  # here, and not while the ranks wait for each other
        self.connect_ranks()

    def init_deepspeed(self) -> None:
        """Make the engine in host memory, and let it work there where it would on a machine with a GPU."""
        with host():
            super().init_deepspeed()
        from labkit.borrowed import deepspeed as borrowed

        zero = self.deepspeed_engine.optimizer
        if borrowed.offloads(zero):
            borrowed.replace_in_host_memory(zero, _in_host_memory)

    def make_engine(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> tuple[Any, Any]:
        """As Lightning's, without the index of a GPU."""
        import deepspeed

        trainable = [p for p in model.parameters() if p.requires_grad]
        engine, wrapped, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank), config=self.config, model=model,
            model_parameters=trainable, optimizer=optimizer, lr_scheduler=lr_scheduler, dist_init_required=False,
        )  # fmt: skip
        return engine, wrapped

    def choose_launcher(self) -> None:
        """None for one rank, as for one GPU."""
        if self.num_processes > 1 or self.num_nodes > 1:
            super().choose_launcher()


def _in_host_memory(work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with host():
            return work(*args, **kwargs)

    return wrapped


def build_strategy(config: RunConfig) -> Strategy:
    """The strategy of a run."""
    ranks = {"timeout": timedelta(seconds=config.collective_timeout_s)}
    ranks |= {"process_group_backend": "gloo"} if config.simulated else {}
    placement = config.placement
    if placement.replicates:
        # torch orders its buckets again after the first backward, but not where it looks for unused parameters: a run
        # that resumes would sum the gradients of three ranks and more in another order, and round otherwise
        stays = config.enable_checkpointing and config.world_size > 2
        return BucketedDDP(find_unused_parameters=stays, **ranks)
    if placement.splits_layers:
        from labkit.train.pipeline import PipelineStrategy  # torch's pipelines, which no other strategy waits for

        return PipelineStrategy(**ranks)
    if placement.shards:
        return ShardedStrategy(config.world_size, **ranks)
    if not placement.uses_zero:
        return OneDevice("cuda:0" if config.on_cuda else "cpu")
    set_environment(simulated=config.simulated)
    options: dict[str, Any] = {
        "stage": placement.zero_stage, "offload_optimizer": placement.offloads,
        "offload_parameters": placement.offloads_weights,
        "logging_level": logging.WARNING, "exclude_frozen_parameters": True, **ranks,
    }  # fmt: skip
    strategy = Zero(**options) if config.on_cuda else ZeroOnCPU(**options)
    of_stage_3 = placement.zero_stage == 3
    sizes = {key: n for key, n in zero_sizes(config).items() if of_stage_3 or "stage3" not in key}
    strategy.config["zero_optimization"] |= sizes
    return strategy


def zero_sizes(config: RunConfig) -> dict[str, int]:
    """How many numbers ZeRO works on at a time: Lightning's defaults, stage 3's are DeepSpeed's.

    As the models of the simulated GPU are a thousandth of the real ones, so are these there.
    """
    scale = 1 if config.on_cuda else 1000
    return {
        "reduce_bucket_size": 200_000_000 // scale,
        "allgather_bucket_size": 200_000_000 // scale,
        "stage3_prefetch_bucket_size": 50_000_000 // scale,
        "stage3_param_persistence_threshold": 100_000 // scale,
        "stage3_max_live_parameters": 1_000_000_000 // scale,
        "stage3_max_reuse_distance": 1_000_000_000 // scale,
    }


def set_environment(*, simulated: bool) -> None:
    """Tell DeepSpeed, before it is imported, where to keep what it compiles, where ``ninja`` is, and what a CPU is."""
    set_folder()
    programs = str(Path(sys.executable).parent)
    if programs not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    if simulated:
        os.environ["DS_ACCELERATOR"] = "cpu"


def missing_compiler(config: RunConfig) -> str | None:
    """Why the CPU optimizer cannot be built here, and the command that fixes it; None when it can.

    DeepSpeed compiles it at its first use, with torch's C++ extension builder.
    """
    if config.optim != "deepspeed_cpu":
        return None
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return (
            f"optim=deepspeed_cpu is compiled at its first use, and there is no C++ compiler ({compiler}); "
            "'apt-get install g++' brings one"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        return (
            f"optim=deepspeed_cpu is compiled at its first use and needs {header}, which is not there; "
            "'apt-get install python3-dev' brings it"
        )
    return None


def zero_tensors(optimizer: Any) -> dict[str, list[torch.Tensor]]:
    """What ZeRO keeps, by category of memory, and by owner, since on a CPU nothing is moved.

    With offload host memory has the master weights, the gradients on their way to them and the optimizer state
    (``optimizer_cpu``), and in stage 3 the weights (``parameters_cpu``). The device has the buckets that gradients
    are collected in. Without, the device has all of it, of each rank's share.
    """
    from labkit.borrowed import deepspeed as borrowed  # which imports deepspeed

    offloads, pieces = borrowed.offloads(optimizer), borrowed.pieces(optimizer)
    sums, gradients = borrowed.values(optimizer, borrowed.SUMS), borrowed.values(optimizer, borrowed.GRADIENTS)
    stepped = _leaves(borrowed.values(optimizer, borrowed.MASTERS) + (sums if offloads else []))
    stepped += [t.grad for t in stepped if t.is_leaf and t.grad is not None]
    stepped += _leaves(optimizer.state.values())
    found = {
        "optimizer_cpu" if offloads else "optimizer_gpu": stepped,
        "gradients": _leaves([borrowed.buckets(optimizer), gradients, [] if offloads else sums]),
    }
    if pieces is not None:
        found["parameters_cpu" if offloads else "parameters"] = pieces
    return found


def _leaves(tree: Any) -> list[torch.Tensor]:
    tree = list(tree) if not isinstance(tree, list | dict) else tree
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor)]
