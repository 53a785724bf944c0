"""Combinations: which values of a run do not go together, and why."""

from typing import TYPE_CHECKING

from labkit.config.errors import ConfigError

if TYPE_CHECKING:
    from labkit.config.schema import RunConfig


def broken_combinations(config: "RunConfig") -> list[ConfigError]:
    """What does not go together; each names both keys of a rule that is broken."""
    return [
        ConfigError(
            f"{one}={getattr(config, one)} does not go with {other}={getattr(config, other)}: {why}.", (one, other)
        )
        for broken, one, other, why in (*_rules(config), *_rules_of_ranks(config))
        if broken
    ]


def _rules(config: "RunConfig") -> list[tuple[bool, str, str, str]]:
    zero, offload = config.placement.uses_zero, config.placement.offloads
    frozen = config.freeze_vision and config.freeze_connector and config.freeze_language
    return [
        (config.optim == "deepspeed_cpu" and not offload, "optim", "strategy",
         "the CPU optimizer is part of DeepSpeed's offload; set strategy=deepspeed_stage_2_offload"),
        (offload and config.optim != "deepspeed_cpu", "optim", "strategy",
         "with offload the optimizer runs on the CPU; set optim=deepspeed_cpu"),
        (zero and config.loss_average == "tokens", "loss_average", "strategy",
         "DeepSpeed sums the micro batches' gradients out of reach; set loss_average=batches"),
        (zero and config.dtypes.full and config.simulated, "precision", "strategy",
         "ZeRO keeps master weights in fp32 next to those of the device, which need 16 bits; set precision=bf16-true"),
        (config.use_lora and config.use_qlora, "use_lora", "use_qlora", "QLoRA is LoRA in 4 bits; set one of them"),
        (config.dtypes.half and config.simulated, "precision", "device",
         "half precision gives NaN on a CPU; use bf16-true or bf16-mixed"),
        (config.dtypes.half and not config.dtypes.mixed and config.optim != "sgd", "precision", "optim",
         "Adam's epsilon is zero in half precision and the loss turns NaN; use bf16-true, or 16-mixed on a GPU"),
        (config.optim == "paged_adam_8bit" and config.simulated, "optim", "device",
         "a CPU has no paged memory; use adam_8bit"),
        (config.optim_impl == "fused" and config.optim not in ("adamw", "sgd"), "optim_impl", "optim",
         "this optimizer has one implementation; leave optim_impl at foreach"),
        (config.double_quant and not config.use_qlora, "double_quant", "use_qlora",
         "there are no 4-bit scales to quantize; set use_qlora=true"),
        (config.freeze_language and (config.use_lora or config.use_qlora) and config.lora_targets is None,
         "freeze_language", "lora_targets", "the layers that LoRA takes by itself are frozen; name others"),
        (config.simulated and config.capacity_gib is None, "capacity_gib", "device",
         "a simulated GPU needs a capacity; set capacity_gib, or take a profile that has one"),
        (config.save_every is not None and not config.enable_checkpointing, "save_every", "enable_checkpointing",
         "nothing is saved without enable_checkpointing=true"),
        (frozen and not (config.use_lora or config.use_qlora), "freeze_language", "freeze_vision",
         "all three parts are frozen and nothing is left to train"),
    ]  # fmt: skip


def _rules_of_ranks(config: "RunConfig") -> list[tuple[bool, str, str, str]]:
    several, split = config.world_size > 1, config.placement.splits_layers
    adapted = config.use_lora or config.use_qlora
    many = "devices" if config.devices > 1 or config.num_nodes == 1 else "num_nodes"
    return [
        (several and not config.placement.takes_several_ranks, many, "strategy",
         "several devices need to know who holds what; set strategy=ddp or strategy=fsdp"),
        (not several and config.placement.divides_model, "strategy", "devices",
         "one device has nothing to split; set devices=2 or more, or strategy=auto"),
        (config.placement.shards and "8bit" in config.optim, "optim", "strategy",
         "bitsandbytes' optimizers take no shards; set optim=adamw, or strategy=ddp"),
        (split and config.batch_size < config.world_size, "batch_size", many,
         "a batch goes through the layers in as many chunks as there are devices; use one sample for each, or more"),
        (split and config.dtypes.loss_scaled, "precision", "strategy",
         "the loss is on one rank, and its scale would be on none; set precision=bf16-mixed"),
        (split and config.val_fraction > 0, "val_fraction", "strategy",
         "the pipeline has no forward of its own; set val_fraction=0, or strategy=fsdp"),
        (split and config.save_model and not adapted, "save_model", "strategy",
         "no rank can write all of the model; set save_model=false, or strategy=fsdp"),
    ]  # fmt: skip
