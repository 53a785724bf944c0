"""What DeepSpeed's ZeRO optimizers keep in attributes, read in DeepSpeed 0.19; documented nowhere.

Import it when the environment is set (``labkit.train.strategies.set_environment``): it imports deepspeed.
"""

from collections.abc import Callable
from typing import Any

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

MASTERS = {
    (2, False): ["single_partition_of_fp32_groups"],
    (2, True): ["single_partition_of_fp32_groups", "param_buffer_of_bit16_for_cpu_offload_groups"],
    (3, False): ["fp32_partitioned_groups_flat", "param_groups_fp16_flat_cpu_memory"],
    (3, True): ["fp32_partitioned_groups_flat", "param_groups_fp16_flat_cpu_memory"],
}
"""Master weights and weights on their way from them, by stage and offload; host memory has them under offload."""

SUMS = {
    (2, False): [],
    (2, True): ["accumulated_grads_in_cpu", "temp_grad_buffer_for_cpu_offload"],
    (3, False): ["grad_partitions_flat_buffer"],
    (3, True): ["grad_partitions_flat_buffer"],
}
"""Gradients that wait for the step; host memory has them under offload."""

GRADIENTS = {
    (2, False): ["averaged_gradients", "all_grad_tensors"],
    (2, True): ["averaged_gradients", "all_grad_tensors", "temp_grad_buffer_for_gpu_offload"],
    (3, False): ["averaged_gradients"],
    (3, True): ["averaged_gradients"],
}
"""Gradients that the device has, in addition to those in buckets."""

IN_HOST_MEMORY = {2: ["_optimizer_step", "async_accumulate_grad_in_cpu_via_gpu"], 3: ["_optimizer_step"]}
"""Methods that work in host memory under offload; the second sums the gradients of micro batches."""


def stage(optimizer: DeepSpeedZeroOptimizer | DeepSpeedZeroOptimizer_Stage3) -> int:
    """Which of ZeRO's optimizers it is: 2, or 3, whose attributes have other names."""
    return 3 if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3) else 2


def offloads(optimizer: Any) -> bool:
    """Whether the optimizer steps in host memory."""
    return bool(optimizer.offload_optimizer if stage(optimizer) == 3 else optimizer.cpu_offload)


def values(optimizer: Any, table: dict[tuple[int, bool], list[str]]) -> list[Any]:
    """What is in the attributes that a table names for an optimizer."""
    return [getattr(optimizer, name) for name in table[stage(optimizer), offloads(optimizer)]]


def buckets(optimizer: Any) -> list[dict[str, Any]]:
    """What each of the buckets holds that gradients are collected in."""
    return [vars(bucket) for bucket in optimizer.ipg_buckets.values()]


def pieces(optimizer: Any) -> list[torch.Tensor] | None:
    """This rank's pieces of all weights, frozen ones too; None in stage 2, which keeps whole ones."""
    if stage(optimizer) == 2:
        return None
    return [parameter.ds_tensor for parameter in optimizer.module.parameters()]


def replace_in_host_memory(optimizer: Any, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``change`` around the methods that work in host memory under offload."""
    for name in IN_HOST_MEMORY[stage(optimizer)]:
        setattr(optimizer, name, change(getattr(optimizer, name)))


def cpu_adam(optimizer: Any) -> DeepSpeedCPUAdam | None:
    """The Adam for CPUs that ZeRO has inside, or that an optimizer is; None for others."""
    if isinstance(optimizer, DeepSpeedZeroOptimizer | DeepSpeedZeroOptimizer_Stage3):
        optimizer = optimizer.optimizer
    return optimizer if isinstance(optimizer, DeepSpeedCPUAdam) else None


def count_to(adam: DeepSpeedCPUAdam, steps: int) -> None:
    """Let Adam's bias correction count to ``steps``: C++ code multiplies it up, outside of the optimizer's state."""
    nothing = torch.zeros(1)
    for group in adam.param_groups[:1]:
        for step in range(1, steps + 1):
            adam.ds_opt_adam.adam_update(
                adam.opt_id, step, 0.0, *group["betas"], group["eps"], 0.0, group["bias_correction"],
                nothing, nothing, nothing, nothing,
            )  # fmt: skip
