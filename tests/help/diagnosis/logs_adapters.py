"""Logs that end in adapters, quantization or tokenizers."""

from log_parts import DEEPSPEED, LOADING, SRUN, STEPS, TORCHRUN, Told, packages, trace

FROM_PRETRAINED = "train.py:31:main:model = AutoModelForCausalLM.from_pretrained(args.model, quantization_config=bnb)"
TRAIN = "train.py:66:main:trainer.train()"

LOGS = (
    Told(
        "bitsandbytes_missing",
        trace(
            "ImportError: Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install -U "
            "bitsandbytes>=0.46.1`",
            FROM_PRETRAINED,
            f"{packages('transformers/quantizers/quantizer_bnb_4bit.py')}:62:validate_environment:raise",
            before="",
        ),
        ("pip install -U bitsandbytes", "restart"),
        ("memory ran out",),
    ),
    Told(
        "bitsandbytes_kernel",
        STEPS + "Error no kernel image is available for execution on the device at line 167 in file "
        "/build/csrc/ops.cu\n" + SRUN,
        ("compute capability", "load_in_4bit"),
        ("advise",),
    ),
    Told(
        "bitsandbytes_cuda",
        trace(
            "RuntimeError: \n        CUDA Setup failed despite GPU being available. Please run the following command "
            "to get more information:\n\n        python -m bitsandbytes\n",
            f"{packages('bitsandbytes/cextension.py')}:20:<module>:raise RuntimeError('''",
            before="",
        ),
        ("python -m bitsandbytes", "pip install -U bitsandbytes"),
        ("batch",),
    ),
    Told(
        "quantized_offloaded",
        trace(
            "ValueError: Some modules are dispatched on the CPU or the disk. Make sure you have enough GPU RAM to fit "
            "the quantized model. If you want to dispatch the model on the CPU or the disk while keeping these modules "
            "in 32-bit, you need to set `llm_int8_enable_fp32_cpu_offload=True` and pass a custom `device_map` to "
            "`from_pretrained`.",
            FROM_PRETRAINED,
            before="",
        ),
        ("does not fit", "nvidia-smi", "load_in_4bit"),
        ("batch",),
    ),
    Told(
        "quantized_device_map",
        trace(
            "ValueError: You can't train a model that has been loaded in 8-bit or 4-bit precision on a "
            "different device "
            "than the one you're training on. Make sure you loaded the model on the correct device using for example "
            "`device_map={'':torch.cuda.current_device()}`",
            TRAIN,
            f"{packages('accelerate/accelerator.py')}:1868:prepare_model:raise ValueError(",
            after=TORCHRUN,
        ),
        ("torch.cuda.current_device()", "device_map={'':"),
        ("{{", "memory"),
    ),
    Told(
        "quantized_without_adapter",
        trace(
            "ValueError: You cannot perform fine-tuning on purely quantized models. Please attach trainable "
            "adapters on "
            "top of the quantized model to correctly perform fine-tuning. Please see: "
            "https://huggingface.co/docs/transformers/peft for more details",
            "train.py:58:main:trainer = Trainer(model=model, args=args, train_dataset=data)",
        ),
        ("get_peft_model", "adapter: qlora"),
        ("batch",),
    ),
    Told(
        "quantized_moved",
        trace(
            "ValueError: `.to` is not supported for `4-bit` or `8-bit` bitsandbytes models. Please use the model as it "
            "is, since the model has already been set to the correct devices and casted to the correct `dtype`.",
            "train.py:36:main:model = model.to('cuda')",
        ),
        (".to", "device_map"),
        ("memory",),
    ),
    Told(
        "adapter_config_newer",
        trace(
            "TypeError: LoraConfig.__init__() got an unexpected keyword argument 'eva_config'",
            "merge.py:12:<module>:model = PeftModel.from_pretrained(base, args.adapter)",
            f"{packages('peft/config.py')}:134:from_peft_type:return config_cls(**kwargs)",
        ),
        ("pip install -U peft", "eva_config"),
        ("trl",),
    ),
    Told(
        "adapter_targets",
        trace(
            "ValueError: Target modules {'c_attn'} not found in the base model. Please check the target modules "
            "and try "
            "again.",
            "train.py:40:main:model = get_peft_model(model, config)",
            f"{packages('peft/tuners/tuners_utils.py')}:1130:inject_adapter:raise ValueError(",
        ),
        ("all-linear", "lora_target_linear"),
        ("memory",),
    ),
    Told(
        "adapter_missing",
        trace(
            "ValueError: Can't find 'adapter_config.json' at 'out/run-3'",
            "evaluate.py:18:<module>:model = PeftModel.from_pretrained(base, 'out/run-3')",
        ),
        ("ls out/run-3", "adapter_model.safetensors"),
        ("FOLDER",),
    ),
    Told(
        "adapter_rank",
        trace(
            "RuntimeError: Error(s) in loading state_dict for PeftModelForCausalLM:\n"
            "\tsize mismatch for base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight: "
            "copying a param "
            "with shape torch.Size([64, 4096]) from checkpoint, the shape in current model is torch.Size([16, 4096]).",
            TRAIN,
            after=TORCHRUN,
        ),
        ("rank", "adapter_config.json"),
        ("vocabulary",),
    ),
    Told(
        "vocabulary_size",
        trace(
            "RuntimeError: Error(s) in loading state_dict for PeftModelForCausalLM:\n"
            "\tsize mismatch for base_model.model.model.embed_tokens.modules_to_save.default.weight: copying a "
            "param with "
            "shape torch.Size([32005, 2048]) from checkpoint, the shape in current model is torch.Size([32000, 2048]).",
            "merge.py:14:<module>:model = PeftModel.from_pretrained(base, adapter)",
        ),
        ("resize_token_embeddings(32005)", "tokens were added"),
        ("rank",),
    ),
    Told(
        "adapter_merge",
        trace(
            "ValueError: Cannot merge LORA layers when the model is gptq quantized",
            "merge.py:20:<module>:model = model.merge_and_unload()",
        ),
        ("unquantized", "merge_and_unload"),
        ("batch",),
    ),
    Told(
        "tokenizer_newer",
        trace(
            "Exception: data did not match any variant of untagged enum ModelWrapper at line 1251012 column 3",
            "train.py:22:main:tokenizer = AutoTokenizer.from_pretrained(args.model)",
            f"{packages('transformers/tokenization_utils_fast.py')}:111:__init__:TokenizerFast.from_file(file)",
            before="",
        ),
        ("pip install -U transformers tokenizers",),
        ("memory",),
    ),
    Told(
        "tokenizer_converter",
        trace(
            "ValueError: Couldn't instantiate the backend tokenizer from one of: \n"
            "(1) a `tokenizers` library serialization file, \n(2) a slow tokenizer instance to convert or \n"
            "(3) an equivalent slow tokenizer class to instantiate and convert. \n"
            "You need to have sentencepiece installed to convert a slow tokenizer to a fast one.",
            "train.py:22:main:tokenizer = AutoTokenizer.from_pretrained(args.model)",
            before="",
        ),
        ("pip install sentencepiece", "tokenizer.json"),
        ("untagged",),
    ),
    Told(
        "chat_template",
        trace(
            "ValueError: Cannot use chat template functions because tokenizer.chat_template is not set and no template "
            "argument was passed! For information about writing templates and setting the tokenizer.chat_template "
            "attribute, please see the documentation",
            "train.py:50:main:trainer = SFTTrainer(model=args.model, train_dataset=data)",
            before=LOADING
            + "Applying chat template to train dataset:   0%|          | 0/15806 [00:00<?, ? examples/s]\n",
            after=TORCHRUN,
        ),
        ("chat_template_path", "chat_template: chatml"),
        ("memory",),
    ),
    Told(
        "pad_token",
        trace(
            "ValueError: Asking to pad but the tokenizer does not have a padding token. Please select a token "
            "to use as "
            "`pad_token` `(tokenizer.pad_token = tokenizer.eos_token e.g.)` or add a new pad token via "
            "`tokenizer.add_special_tokens({'pad_token': '[PAD]'})`.",
            TRAIN,
            after=DEEPSPEED,
        ),
        ("tokenizer.pad_token = tokenizer.eos_token", "pad_token_id"),
        ("{{",),
    ),
    Told(
        "bitsandbytes_cuda",
        trace("AttributeError: 'NoneType' object has no attribute 'cquantize_blockwise_fp16_nf4'", before=""),
        ("python -m bitsandbytes",),
    ),
    Told(
        "bitsandbytes_missing",
        trace(
            "ImportError: Using `load_in_8bit=True` requires Accelerate: `pip install accelerate` and the latest "
            "version of bitsandbytes `pip install -i https://test.pypi.org/simple/ bitsandbytes`",
            before="",
        ),
        ("accelerate",),
    ),
)
