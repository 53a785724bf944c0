"""Logs that end in libraries that do not go together, or in their settings."""

from log_parts import DEEPSPEED, LOADING, STEPS, TORCHRUN, WANDB, Told, packages, trace

TRAIN = "train.py:66:main:trainer.train()"
LOOP = f"{packages('transformers/trainer.py')}:2481:_inner_training_loop:loss = self.training_step(model, inputs)"

LOGS = (
    Told(
        "numpy_abi",
        trace(
            "RuntimeError: Numpy is not available", "data.py:14:__getitem__:return torch.from_numpy(pixels)", before=""
        ),
        ("numpy<2", "pip install -U torch"),
        ("memory",),
    ),
    Told(
        "torchvision_build",
        trace(
            "RuntimeError: Failed to import transformers.models.auto.processing_auto because of the following "
            "error (look "
            "up to see its traceback):\noperator torchvision::nms does not exist",
            "train.py:3:<module>:from transformers import AutoProcessor",
            before="",
        ),
        ("torchvision", "--force-reinstall"),
        ("operator missing",),
    ),
    Told(
        "protobuf_generated",
        trace(
            "TypeError: Descriptors cannot not be created directly.\n"
            "If this call came from a _pb2.py file, your generated code is out of date and must be regenerated "
            "with protoc "
            ">= 3.19.0.",
            f"{packages('tensorboard/compat/proto/tensor_shape_pb2.py')}:36:<module>:_descriptor.FieldDescriptor(",
            before="",
        ),
        ("protobuf<3.21",),
        ("memory",),
    ),
    Told(
        "library_versions",
        trace(
            "ImportError: cannot import name 'EncoderDecoderCache' from 'transformers' "
            "(/opt/env/lib/python3.11/site-packages/transformers/__init__.py)",
            "train.py:4:<module>:from peft import LoraConfig, get_peft_model",
            f"{packages('peft/peft_model.py')}:37:<module>:from transformers import Cache, EncoderDecoderCache",
            before="",
        ),
        ("pip install -U transformers peft", "peft<0.14"),
        ("PACKAGE",),
    ),
    Told(
        "trainer_argument",
        trace(
            "TypeError: SFTTrainer.__init__() got an unexpected keyword argument 'dataset_text_field'",
            "train.py:52:main:trainer = SFTTrainer(model=model, dataset_text_field='text', tokenizer=tokenizer)",
            f"{packages('transformers/utils/deprecation.py')}:165:wrapped_func:return func(*args, **kwargs)",
        ),
        ("SFTConfig", "dataset_text_field", "processing_class"),
        ("adapter was saved",),
    ),
    Told(
        "compute_loss_argument",
        trace(
            "TypeError: DistillTrainer.compute_loss() got an unexpected keyword argument 'num_items_in_batch'",
            TRAIN,
            LOOP,
            before=LOADING + "  0%|          | 0/3000 [00:00<?, ?it/s]\n",
        ),
        ("num_items_in_batch=None",),
        ("SFTConfig",),
    ),
    Told(
        "lightning_twice",
        trace(
            "TypeError: `model` must be a `LightningModule` or `torch._dynamo.OptimizedModule`, got `Captioner`",
            "train.py:40:main:trainer.fit(model, data)",
            before="GPU available: True (cuda), used: True\n",
        ),
        ("pytorch_lightning",),
        ("torch.compile",),
    ),
    Told(
        "unknown_architecture",
        trace(
            "ValueError: The checkpoint you are trying to load has model type `qwen9_vl` but Transformers does not "
            "recognize this architecture. This could be because of an issue with the checkpoint, or because "
            "your version "
            "of Transformers is out of date.",
            "train.py:30:main:config = AutoConfig.from_pretrained(args.model)",
            before="",
        ),
        ("qwen9_vl", "pip install -U transformers"),
        ("TYPE",),
    ),
    Told(
        "remote_code",
        trace(
            "ValueError: The repository some-lab/odd-7b contains custom code which must be executed to "
            "correctly load the "
            "model. You can inspect the repository content at https://hf.co/some-lab/odd-7b .\n"
            "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
            "train.py:30:main:config = AutoConfig.from_pretrained(args.model)",
            before="",
        ),
        ("trust_remote_code=True", "revision"),
        ("memory",),
    ),
    Told(
        "flash_attention_gpu",
        trace(
            "RuntimeError: FlashAttention only supports Ampere GPUs or newer.",
            TRAIN,
            f"{packages('flash_attn/flash_attn_interface.py')}:51:_flash_attn_forward:out = flash_attn_cuda.fwd(",
            after=TORCHRUN,
        ),
        ("sdpa", "8.0"),
        ("memory ran out",),
    ),
    Told(
        "flash_attention_dtype",
        trace("RuntimeError: FlashAttention only support fp16 and bf16 data type", TRAIN, LOOP),
        ("bfloat16", "bf16=True"),
        ("Ampere",),
    ),
    Told(
        "flash_attention_missing",
        trace(
            "ImportError: FlashAttention2 has been toggled on, but it cannot be used due to the following error: the "
            "package flash_attn seems to be not installed. Please refer to the documentation to install Flash "
            "Attention 2.",
            "train.py:31:main:model = AutoModelForCausalLM.from_pretrained(args.model)",
            before="",
        ),
        ("sdpa", "flash_attention: false"),
        ("undefined",),
    ),
    Told(
        "deepspeed_batch_sizes",
        trace(
            "AssertionError: Check batch related parameters. train_batch_size is not equal to micro_batch_per_gpu * "
            "gradient_acc_step * world_size 64 != 4 * 8 * 1",
            f"{packages('deepspeed/runtime/config.py')}:603:_batch_assertion:assert train_batch == micro_batch "
            f"* grad_acc",
            after=DEEPSPEED,
        ),
        ("64", "4 * 8 * 1", '"auto"'),
        ("memory",),
    ),
    Told(
        "deepspeed_values",
        trace(
            "ValueError: Please correct the following DeepSpeed config values that mismatch TrainingArguments values:\n"
            "- ds gradient_accumulation_steps=4 vs hf gradient_accumulation_steps=2\n"
            "- ds optimizer.params.lr=0.0001 vs hf learning_rate=5e-05\n"
            "The easiest method is to set these DeepSpeed config values to 'auto'.",
            TRAIN,
            after=DEEPSPEED,
        ),
        ('"auto"', "gradient_accumulation_steps"),
        ("world_size",),
    ),
    Told(
        "zero3_device_map",
        trace(
            "ValueError: DeepSpeed Zero-3 is not compatible with passing a `device_map`.",
            "train.py:31:main:model = AutoModelForCausalLM.from_pretrained(args.model, device_map='auto')",
            before="",
            after=DEEPSPEED,
        ),
        ("without device_map", '"stage": 2'),
        ("memory",),
    ),
    Told(
        "zero3_inflight",
        trace(
            "RuntimeError: still have inflight params [{'id': 723, 'status': 'AVAILABLE', 'numel': 4194304}]",
            TRAIN,
            f"{packages('deepspeed/runtime/zero/partitioned_param_coordinator.py')}:204:reset_step:raise RuntimeError(",
            before=STEPS,
            after=DEEPSPEED,
        ),
        ("set_z3_leaf_modules", '"stage": 2'),
        ("advise",),
    ),
    Told(
        "fsdp_dtypes",
        trace(
            "ValueError: Must flatten tensors with uniform dtype but got torch.bfloat16 and torch.float32",
            TRAIN,
            f"{packages('torch/distributed/fsdp/_flat_param.py')}:814:_validate_tensors_to_flatten:raise ValueError(",
            after=TORCHRUN,
        ),
        ("bnb_4bit_quant_storage", "torch.float32"),
        ("requires_grad",),
    ),
    Told(
        "fsdp_frozen",
        trace(
            "ValueError: Must flatten tensors with uniform `requires_grad` when `use_orig_params=False`",
            TRAIN,
            after=TORCHRUN,
        ),
        ("fsdp_use_orig_params: true",),
        ("precisions",),
    ),
    Told(
        "fsdp_layer_class",
        trace(
            "Exception: Could not find the transformer layer class to wrap in the model.",
            f"{packages('accelerate/utils/dataclasses.py')}:1570:set_auto_wrap_policy:raise Exception(",
            after=TORCHRUN,
        ),
        ("fsdp_transformer_layer_cls_to_wrap",),
        ("{{",),
    ),
    Told(
        "several_devices",
        trace(
            "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:1 and "
            "cuda:0! (when checking argument for argument index in method wrapper_CUDA__index_select)",
            TRAIN,
            LOOP,
            before=LOADING + "  0%|          | 0/1250 [00:00<?, ?it/s]\n",
        ),
        ("CUDA_VISIBLE_DEVICES=0", "LOCAL_RANK"),
        ("FIRST", "memory"),
    ),
    Told(
        "meta_weights",
        trace("NotImplementedError: Cannot copy out of meta tensor; no data!", TRAIN, before=LOADING, after=DEEPSPEED),
        ('"stage": 2', "low_cpu_mem_usage"),
        ("memory ran out",),
    ),
    Told(
        "best_model_strategies",
        trace(
            "ValueError: --load_best_model_at_end requires the save and eval strategy to match, but found\n"
            "- Evaluation strategy: IntervalStrategy.STEPS\n- Save strategy: SaveStrategy.EPOCH",
            "train.py:44:main:args = TrainingArguments(output_dir='out', load_best_model_at_end=True)",
            before="",
        ),
        ("eval_strategy", "save_strategy"),
        ("checkpoint is cut",),
    ),
    Told(
        "checkpointing_unsupported",
        trace(
            "ValueError: OddForCausalLM does not support gradient checkpointing.",
            TRAIN,
            f"{packages('transformers/modeling_utils.py')}:3010:gradient_checkpointing_enable:raise ValueError(",
        ),
        ("OddForCausalLM", "gradient_checkpointing=False"),
        ("MODEL has",),
    ),
    Told(
        "accelerate_config",
        "ValueError: The config file at /home/u/.cache/huggingface/accelerate/default_config.yaml had unknown keys "
        "(['parallelism_config']), please try upgrading your `accelerate` version or fix (and potentially "
        "remove) these "
        "keys from your config file.\n",
        ("accelerate config", "pip install -U accelerate"),
        ("memory",),
    ),
    Told(
        "config_refused",
        trace(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for DeepSpeedZeroConfig\n"
            "stage3_prefetch_bucket_size\n  Input should be a valid integer, got a number with a fractional part "
            "[type=int_from_float, input_value=11796480.5, input_type=float]",
            f"{packages('deepspeed/runtime/zero/config.py')}:82:get_zero_config:return DeepSpeedZeroConfig(**zero)",
            after=DEEPSPEED,
        ),
        ("DeepSpeedZeroConfig", "name each key"),
        ("MODEL",),
    ),
    Told(
        "shared_tensors",
        trace(
            "RuntimeError: \n            Some tensors share memory, this will lead to duplicate memory on disk and "
            "potential differences when loading them again: [{'language_model.lm_head.weight', "
            "'language_model.model.embed_tokens.weight'}].",
            f"{packages('safetensors/torch.py')}:307:save_file:serialize_file(_flatten(tensors), filename)",
            before=STEPS,
            after=WANDB,
        ),
        ("save_safetensors=False", "save_model"),
        ("memory ran out", "memory (RAM)"),
    ),
)
