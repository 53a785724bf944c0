"""Optimizers and learning-rate schedules by config value."""

import sys
from collections.abc import Iterable
from typing import Any

import torch

from labkit.config.schema import RunConfig
from labkit.train.extensions import alone


def build_optimizer(config: RunConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a run over the parameters that require gradients."""
    # in a group: torch takes one without parameters, which a rank of a pipeline may have, and no list without any
    trainable = [{"params": [p for p in parameters if p.requires_grad]}]
    impl = {"foreach": config.optim_impl == "foreach", "fused": config.optim_impl == "fused"}
    match config.optim:
        case "adamw":
            return torch.optim.AdamW(trainable, lr=config.scaled_lr, **impl)
        case "sgd":
            return torch.optim.SGD(trainable, lr=config.scaled_lr, **impl)
        case "adam_8bit":
            import bitsandbytes

            return bitsandbytes.optim.AdamW8bit(trainable, lr=config.scaled_lr)
        case "paged_adam_8bit":
            import bitsandbytes

            return bitsandbytes.optim.PagedAdamW8bit(trainable, lr=config.scaled_lr)
        case "deepspeed_cpu":
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            with alone():
                return DeepSpeedCPUAdam(trainable, lr=config.scaled_lr, weight_decay=0.01, adamw_mode=True)
    raise ValueError(f"optim={config.optim} has no optimizer here")


def build_scheduler(config: RunConfig, optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
    """The learning-rate schedule, stepped once per optimizer step; ``total_steps`` is the run's length."""
    name = config.lr_schedule
    if name == "constant":
        if not config.warmup_steps:
            return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        name = "constant_with_warmup"
    from transformers import get_scheduler  # brings PEFT, bitsandbytes and torch's compiler: two seconds

    return get_scheduler(name, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=total_steps)


def count_up(optimizer: Any, steps: int) -> None:
    """Let DeepSpeed's CPU Adam count to ``steps`` before a run resumes; nothing for other optimizers.

    It multiplies its bias correction up step by step, outside of its state; computed as a power, as it does when a step
    number does not follow the last, the result differs in the last bit.
    """
    if "deepspeed" not in sys.modules:  # so this optimizer is none of its own, and its seconds of import are saved
        return
    from labkit.borrowed.deepspeed import count_to, cpu_adam

    adam = cpu_adam(optimizer)
    if adam is not None:
        count_to(adam, steps)
