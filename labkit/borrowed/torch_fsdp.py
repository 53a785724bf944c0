"""Private names of torch's FSDP2, read in torch 2.13 and 2.11. It takes half a second to import."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_api import AllGather, ReduceScatter
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather, DefaultReduceScatter

__all__ = [
    "GATHERING", "AllGather", "DefaultAllGather", "DefaultReduceScatter", "ReduceScatter", "keep_on_meta",
    "parameter_groups",
]  # fmt: skip

GATHERING = ("alloc_all_gather_outputs", "free_unsharded_param")
"""Methods of FSDP's parameters that resize the storages of what is gathered: no operation does it, so a call to them is
all there is to see."""


def parameter_groups(module: FSDPModule) -> Sequence[Any]:
    """The groups of parameters of one sharded module that are gathered together."""
    state = module._get_fsdp_state()
    if hasattr(state, "_fsdp_param_groups"):
        return state._fsdp_param_groups
    one = state._fsdp_param_group  # torch 2.11 has one at most
    return [] if one is None else [one]


def keep_on_meta(group: Any) -> None:
    """Let a group of parameters stay on ``meta``, which FSDP takes for one that was forgotten there."""
    group._validate_no_meta_params = lambda: None
    for parameter in group.fsdp_params:
        parameter.device = torch.device("meta")
