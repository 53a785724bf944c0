"""The frameworks that write logs, and what each calls the levers that make a run fit, continue, or stay finite."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Framework:
    """A framework: what its logs show, and its words for levers; for the others the plain ones are good."""

    name: str
    pattern: re.Pattern[str]
    words: Mapping[str, str]


_PLAIN = {
    "batch": "batch_size=...  # a smaller micro batch, with gradient accumulation to keep the effective one",
    "checkpointing": "torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)  # activation (gradient) "
                     "checkpointing: computed again in backward instead of kept",
    "sequence": "max_length=...  # shorter sequences, or fewer packed samples; attention grows with their square",
    "pixels": "max_pixels=... (the image processor's; or its size)  # fewer pixels an image, so fewer image tokens",
    "attention": 'attn_implementation="sdpa"  # or flash_attention_2: no matrix of length x length is kept',
    "loss": "logits of the labels only, or a fused cross entropy (Liger)  # logits are batch x length x vocabulary",
    "optimizer": "bitsandbytes.optim.AdamW8bit(...)  # 2 bytes of state a parameter instead of 8",
    "lora": "peft.get_peft_model(model, LoraConfig(r=16))  # gradients and states of the adapter only",
    "quantize": "BitsAndBytesConfig(load_in_4bit=True) with LoRA  # QLoRA: half a byte a weight",
    "shard": "torch.distributed.fsdp.fully_shard(model)  # FSDP or ZeRO-3: each GPU keeps a part of the weights",
    "offload": "optimizer state on the CPU (ZeRO-Offload, FSDP CPUOffload)  # slower; wants host memory",
    "evaluation": "batch size 1, torch.no_grad() and results moved to the CPU  # in the evaluation, which has a "
                  "batch of its own",
    "saving": "FullStateDictConfig(offload_to_cpu=True, rank0_only=True), or a sharded state dict  # FSDP gathers the "
              "whole state dict on the GPU otherwise",
    "bf16": "bf16 in place of fp16 (torch.autocast(dtype=torch.bfloat16))  # the range of 32 bits; fp16 ends at 65504",
    "lr": "lr=...  # ten times smaller, with warm-up steps and clipped gradients (clip_grad_norm_)",
    "workers": "num_workers=0  # fewer loader workers: each takes host memory",
    "resume": "start again from the last checkpoint  # if the program writes any",
}  # fmt: skip

_TRAINER = {
    "batch": "per_device_train_batch_size=1, gradient_accumulation_steps=N  # TrainingArguments; the same effective "
             "batch",
    "checkpointing": 'gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}  # '
                     "TrainingArguments: gradient checkpointing, activations are computed again in backward",
    "sequence": "max_length=... (tokenizer, or TRL's config)  # shorter sequences, or fewer packed samples; attention "
                "grows with their square",
    "optimizer": 'optim="adamw_bnb_8bit"  # TrainingArguments: 2 bytes of state a parameter instead of 8',
    "loss": "use_liger_kernel=True  # TrainingArguments: the logits are never whole in memory",
    "shard": 'fsdp="full_shard auto_wrap", or deepspeed="zero3.json"  # each GPU keeps a part of the weights',
    "evaluation": "per_device_eval_batch_size=1, eval_accumulation_steps=1, prediction_loss_only=True  # logits of the "
                  "evaluation are kept on the GPU otherwise (or preprocess_logits_for_metrics)",
    "saving": "FullStateDictConfig(offload_to_cpu=True, rank0_only=True), or fsdp_state_dict_type: SHARDED_STATE_DICT  "
              "# FSDP gathers the whole state dict on the GPU otherwise",
    "bf16": "bf16=True in place of fp16=True  # TrainingArguments; bf16-mixed: the range of 32 bits",
    "lr": "learning_rate=..., warmup_ratio=0.03, max_grad_norm=1.0  # ten times smaller",
    "workers": "dataloader_num_workers=0  # TrainingArguments; each worker takes host memory",
    "resume": "trainer.train(resume_from_checkpoint=True)  # from the newest checkpoint of output_dir",
}  # fmt: skip

FRAMEWORKS = (
    Framework("axolotl", re.compile(r"axolotl", re.IGNORECASE), {
        "batch": "micro_batch_size: 1, gradient_accumulation_steps: N  # axolotl's YAML",
        "checkpointing": "gradient_checkpointing: true  # axolotl's YAML",
        "sequence": "sequence_len: ...  # axolotl's YAML; with sample_packing every batch has this length",
        "attention": "flash_attention: true  # axolotl's YAML",
        "optimizer": "optimizer: adamw_bnb_8bit  # axolotl's YAML",
        "quantize": "adapter: qlora, load_in_4bit: true  # axolotl's YAML",
        "lora": "adapter: lora  # axolotl's YAML",
        "shard": "deepspeed: deepspeed_configs/zero3_bf16.json  # or fsdp: [full_shard, auto_wrap]",
        "evaluation": "eval_batch_size: 1, eval_sample_packing: false  # axolotl's YAML",
        "bf16": "bf16: true, fp16: false  # axolotl's YAML",
        "lr": "learning_rate: ..., warmup_steps: 100  # axolotl's YAML; ten times smaller",
        "workers": "dataloader_num_workers: 0  # axolotl's YAML",
        "resume": "auto_resume_from_checkpoints: true  # axolotl's YAML",
    }),
    Framework("LLaMA-Factory", re.compile(r"llama.?factory|llmtuner|train_bash\.py", re.IGNORECASE), {
        "sequence": "cutoff_len: ...  # LLaMA-Factory: shorter sequences",
        "quantize": "quantization_bit: 4 with finetuning_type: lora  # LLaMA-Factory: QLoRA, half a byte a weight",
        "lora": "finetuning_type: lora  # LLaMA-Factory",
        "attention": "flash_attn: fa2  # LLaMA-Factory",
        "shard": "deepspeed: examples/deepspeed/ds_z3_config.json  # ZeRO-3 (or FSDP): each GPU keeps a part",
        **{name: _TRAINER[name] for name in ("batch", "checkpointing", "optimizer", "workers", "bf16", "resume")},
    }),
    Framework("torchtune", re.compile(r"torchtune|\btune run\b"), {
        "batch": "batch_size=1 gradient_accumulation_steps=N  # torchtune's overrides",
        "checkpointing": "enable_activation_checkpointing=True  # torchtune's override",
        "sequence": "tokenizer.max_seq_len=...  # torchtune's override",
        "optimizer": "optimizer=bitsandbytes.optim.PagedAdamW8bit  # torchtune's override",
        "offload": "fsdp_cpu_offload=True  # torchtune's override; slower",
        "bf16": "dtype=bf16  # torchtune's override",
        "resume": "resume_from_checkpoint=True  # torchtune's override",
    }),
    Framework("Lightning", re.compile(
        r"(?:pytorch_)?lightning[/._]|\bpl\.Trainer|`Trainer\.fit`|v_num=", re.IGNORECASE), {
        "batch": "DataLoader(batch_size=...) with Trainer(accumulate_grad_batches=N)  # Lightning",
        "shard": 'Trainer(strategy="fsdp"), or "deepspeed_stage_3"  # Lightning: each GPU keeps a part of the weights',
        "offload": 'Trainer(strategy="deepspeed_stage_2_offload")  # Lightning: optimizer state on the CPU',
        "bf16": 'Trainer(precision="bf16-mixed")  # Lightning; the range of 32 bits, fp16 ends at 65504',
        "evaluation": "a smaller batch_size in val_dataloader()  # Lightning; or Trainer(limit_val_batches=...)",
        "saving": 'FSDPStrategy(state_dict_type="sharded")  # Lightning gathers the whole state dict otherwise',
        "lr": "lr=..., Trainer(gradient_clip_val=1.0)  # ten times smaller, with warm-up",
        "resume": 'trainer.fit(model, ckpt_path="last")  # Lightning, with ModelCheckpoint(save_last=True)',
    }),
    Framework("Hugging Face Trainer", re.compile(
        r"transformers/trainer\.py|TrainingArguments|'train_runtime'|\btrainer\.train\(|per_device_train_batch_size"
        r"|transformers/integrations|\btrl/|SFTTrainer|llava/train|'learning_rate': [\d.e-]+, 'epoch'"), _TRAINER),
    Framework("DeepSpeed", re.compile(r"deepspeed", re.IGNORECASE), {
        "batch": '"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": N  # DeepSpeed\'s JSON',
        "shard": '"zero_optimization": {"stage": 3}  # DeepSpeed\'s JSON: each GPU keeps a part of the weights',
        "offload": '"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}  # DeepSpeed\'s JSON',
        "saving": '"stage3_gather_16bit_weights_on_model_save": false  # DeepSpeed\'s JSON; zero_to_fp32.py later',
        "bf16": '"bf16": {"enabled": true} in place of fp16  # DeepSpeed\'s JSON',
        "resume": "model_engine.load_checkpoint(folder)  # DeepSpeed",
    }),
    Framework("accelerate", re.compile(
        r"accelerate[/ ](?:accelerator|launch|commands|utils|state)|accelerator\.\w+\("), {
        "shard": "accelerate config  # FSDP with FULL_SHARD, or DeepSpeed ZeRO-3: each GPU keeps a part",
        "bf16": "accelerate launch --mixed_precision bf16 ...",
        "saving": "fsdp_state_dict_type: SHARDED_STATE_DICT  # in accelerate's config",
        "resume": "accelerator.load_state(folder)",
    }),
)  # fmt: skip


class Levers:
    """The levers of the program that wrote a log, in the words of its frameworks: ``Levers(log)["batch"]``."""

    def __init__(self, log: str) -> None:
        self.frameworks = tuple(framework for framework in FRAMEWORKS if framework.pattern.search(log))
        self._words: dict[str, str] = dict(_PLAIN)
        for framework in reversed(self.frameworks):
            self._words |= framework.words

    def __getitem__(self, name: str) -> str:
        return self._words[name]
