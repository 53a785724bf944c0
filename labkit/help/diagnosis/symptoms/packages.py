"""Ends that come from libraries that do not go together, or from their settings: what each means, and its cure.

A comment names where the text was read: an issue of a public tracker, or the release of an installed library.
"""

from labkit.help.diagnosis.symptoms.wrapped import wrapped

SYMPTOMS = (
    # -- releases that do not go together
    wrapped(
        "numpy_abi",
        # pytorch#132179 (torch before 2.3); ai2cm/ace#378; openfederatedlearning#999
        r"RuntimeError: Numpy is not available"
        r"|numpy\.dtype size changed, may indicate binary incompatibility"
        r"|Could not infer dtype of numpy\.\w+",
        "A compiled package was built for NumPy 1 and meets NumPy 2, or the other way round.",
        "pip install 'numpy<2'  # PyTorch before 2.3 works with NumPy 1 only",
        "pip install -U torch  # or a PyTorch that was built for NumPy 2",
    ),
    wrapped(
        "numpy_built_for_1",
        # pytorch#107302: a warning at import; the program may well continue
        r"A module that was compiled using NumPy 1\.x cannot be run in",
        "A package warned at its import that it was built for NumPy 1. What uses NumPy in it will fail.",
        "pip install 'numpy<2'  # or a newer release of the package that the traceback below the warning names",
        tier="warning",
    ),
    wrapped(
        "torchvision_build",
        # llama-cookbook#710; diffusers#9109; autotrain-advanced#692; pytorch#157648
        r"operator torchvision::nms does not exist"
        r"|Couldn't load custom C\+\+ ops\. This can happen if your PyTorch and torchvision versions are incompatible",
        "torchvision was built for another PyTorch than the one installed. transformers imports it, so nothing loads.",
        "pip install -U --force-reinstall torch torchvision torchaudio  # all in one command, so that they match",
        "pip uninstall torchvision  # a model of text alone does not need it",
    ),
    wrapped(
        "protobuf_generated",
        # tensorboard#5817; prompt2model#220 and deep-rl-class#232 (3.20 solved it); rf-detr#844
        r"Descriptors cannot (?:not )?be created directly",
        "A package (most often tensorboard, wandb or sentencepiece) has code that an older protobuf generated.",
        "pip install 'protobuf<3.21'  # 3.20 is the last that reads it",
        "export PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python  # without another release; slower",
        "pip install -U tensorboard wandb  # or newer releases of what brought it",
    ),
    wrapped(
        "library_versions",
        # peft#2292, #2362 (EncoderDecoderCache); LLaVA#1794, #1808; transformers 5.23 dependency check
        r"cannot import name '\w+' from '(?:transformers|peft|accelerate|trl|datasets|tokenizers"
        r"|huggingface_hub|diffusers|deepspeed|bitsandbytes|torchao|torch)\b"
        r"|is required for a normal functioning of this module, but found",
        "Two libraries do not go together: one asks the other for something that its release has not, or not any more.",
        "pip list | grep -iE 'torch|transformers|peft|accelerate|trl|datasets|hub|tokenizers'  # what is installed",
        "pip install -U transformers peft accelerate trl datasets  # all to releases of the same time",
        "pip install 'peft<0.14'  # where transformers must stay below 4.45: peft 0.14 imports newer classes",
    ),
    wrapped(
        "trainer_argument",
        # unsloth#1264, #2010, #10785; Hands-On-Large-Language-Models#32; fms-hf-tuning#399; course#1170
        r"\b(?P<class>\w*(?:Trainer|TrainingArguments|SFTConfig|DPOConfig|GRPOConfig|Accelerator))\.__init__\(\)"
        r" got an unexpected keyword argument '(?P<argument>\w+)'",
        "This release of the library has no '{argument}' in {class} any more, or not yet: the script was written for "
        "another one.",
        "SFTConfig(dataset_text_field='text', max_length=1024, packing=False)  # TRL 0.13 on: in the config, and "
        "max_seq_length is max_length",
        "SFTTrainer(processing_class=tokenizer)  # in place of tokenizer=, also in transformers' Trainer",
        "TrainingArguments(eval_strategy='steps')  # in place of evaluation_strategy=",
        "pip install 'trl==VERSION'  # or the release that the script names in its requirements",
    ),
    wrapped(
        "compute_loss_argument",
        # transformers#36331; hub-docs#1600; closer-look-LLM-unlearning#1; GLM-4#652
        r"compute_loss\(\) got an unexpected keyword argument 'num_items_in_batch'",
        "The Trainer of transformers 4.46 on hands one more argument to compute_loss, which this script's own does not "
        "take.",
        "def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # in your Trainer",
        "pip install 'transformers<4.46'  # for a script that you cannot change",
    ),
    wrapped(
        "lightning_twice",
        # lightning 2.6, utilities/compile.py
        r"must be a `LightningModule`(?: or `torch\._dynamo\.OptimizedModule`)?, got",
        "Module and Trainer come from two packages: 'lightning' and 'pytorch_lightning' have classes of the same name.",
        "grep -rn 'import.*lightning' .  # use one of the two everywhere",
    ),
    wrapped(
        "unknown_architecture",
        # ModernBERT#145; ComfyUI-QwenVL#3 (an upgrade solved both); transformers 5.23
        r"has model type `(?P<type>[^`\n]{1,60})` but Transformers does not recognize this architecture",
        "This release of transformers does not know the model type {type}: the model is newer, or has code of its own.",
        "pip install -U transformers  # the release that the model's page asks for",
        "trust_remote_code=True  # only where the repository brings its own modeling_*.py, and you have read it",
    ),
    wrapped(
        "remote_code",
        # transformers 5.23, dynamic_module_utils
        r"contains custom code which must be executed to correctly load the model\. You can inspect"
        r"|Please pass the argument `trust_remote_code=True` to allow custom code to be run",
        "The repository brings Python code, and it was not allowed to run.",
        "trust_remote_code=True, revision='COMMIT'  # once you have read it; the revision keeps it as you read it",
        "pip install -U transformers  # newer releases have many such models built in, without code from the hub",
    ),
    # -- attention kernels
    wrapped(
        "flash_attention_gpu",
        # flash-attention#762; ms-swift#1603; MInference#51 (V100)
        r"FlashAttention only supports Ampere GPUs or newer",
        "flash-attn needs a GPU of compute capability 8.0 (A100, RTX 30) or newer; a V100 or T4 is older.",
        "attn_implementation='sdpa'  # in from_pretrained: PyTorch's own kernel, nearly as lean",
        "flash_attention: false  # in axolotl's YAML, with sdp_attention: true",
    ),
    wrapped(
        "flash_attention_dtype",
        # flash-attention 2.x, csrc/flash_attn/flash_api.cpp
        r"FlashAttention only supports? fp16(?:, bf16,?)? and (?:bf16|fp8)",
        "flash-attn was given 32-bit tensors; it computes in 16 bits only.",
        "from_pretrained(..., torch_dtype=torch.bfloat16)  # and bf16=True in TrainingArguments",
        "attn_implementation='sdpa'  # to stay in 32 bits",
    ),
    wrapped(
        "flash_attention_missing",
        # EasyR1#43; ComfyUI-Florence2#17; transformers 5.23
        r"FlashAttention-?\d? has been toggled on, but it cannot be used"
        r"|the package flash_attn seems to be not installed",
        "The model was asked for with flash-attn, which is not installed here.",
        "attn_implementation='sdpa'  # in from_pretrained: needs nothing; about the same memory",
        "pip install flash-attn --no-build-isolation  # compiles long, or takes a wheel that matches torch exactly",
        "flash_attention: false  # in axolotl's YAML",
    ),
    # -- DeepSpeed
    wrapped(
        "deepspeed_batch_sizes",
        # DeepSpeed#6914, #3228; OpenRLHF#346; AnomalyGPT#19; DeepSpeed 0.19
        r"train_batch_size is not equal to micro_batch_per_gpu \* gradient_acc_step \* world_size"
        r"(?: ?(?P<total>\d+) != (?P<micro>\d+) \* (?P<steps>\d+) \* (?P<world>\d+))?",
        "DeepSpeed's three batch sizes contradict each other: {total} is not {micro} * {steps} * {world} processes.",
        '"train_batch_size": "auto"  # and the other two as well: the Trainer fills them in',
        "deepspeed --num_gpus N train.py  # if you have more GPUs than {world}: started with python it is one process",
        '"train_batch_size": MICRO * STEPS * PROCESSES  # without the Trainer: the exact product',
    ),
    wrapped(
        "deepspeed_values",
        # transformers#29348 and pull request 12021; LlamaFactory#201, #1116; MedicalGPT#191
        r"Please correct the following DeepSpeed config values that mismatch TrainingArguments values",
        "DeepSpeed's JSON and TrainingArguments say different things about the same value; the lines below name them.",
        '"gradient_accumulation_steps": "auto"  # each value named: "auto" takes the Trainer\'s; "8" is not 8',
        "gradient_accumulation_steps: auto  # in accelerate's config file, where DeepSpeed is set up there",
    ),
    wrapped(
        "zero3_device_map",
        # transformers 5.23, integrations/accelerate.py
        r"DeepSpeed Zero-3 is not compatible with",
        "ZeRO-3 shards the weights itself while they load; a device_map or low_cpu_mem_usage contradicts that.",
        "from_pretrained(NAME)  # without device_map and low_cpu_mem_usage, after TrainingArguments was made",
        '"stage": 2  # in DeepSpeed\'s JSON, if quantized weights want a device_map',
    ),
    wrapped(
        "zero3_inflight",
        # DeepSpeed#3068, #3156, #5381, #5648, #5828 (branches by data); OpenRLHF#312 (another release)
        r"still have inflight params"
        r"|assert param\.ds_status == ZeroParamStatus\.AVAILABLE"
        r"|'status': 'INFLIGHT'",
        "Under ZeRO-3 a step used other layers than the one before: experts, layers chosen by data, or generating "
        "within training.",
        "deepspeed.utils.set_z3_leaf_modules(model, [MoeBlock])  # the class of the experts: gathered as a whole",
        '"stage": 2  # in DeepSpeed\'s JSON: no weights are gathered, so nothing can be left',
        "pip install -U deepspeed  # fixed for several models; or the release that the model's authors name",
    ),
    # -- FSDP, and weights that lie in several places
    wrapped(
        "fsdp_dtypes",
        # axolotl#1482, #1494; trl#1723; LlamaFactory#3853, #7993; torch 2.13
        r"Must flatten tensors with uniform dtype but got (?P<first>[\w.]+) and (?P<second>[\w.]+)",
        "FSDP joins the weights of a block into one tensor, and they are in two precisions: {first} and {second}.",
        "BitsAndBytesConfig(bnb_4bit_quant_storage=torch.bfloat16)  # QLoRA: the storage in the precision of the rest",
        "from_pretrained(..., torch_dtype=torch.bfloat16)  # all weights; adapters too: no float32 cast before FSDP",
        "bnb_config_kwargs: {bnb_4bit_quant_storage: bfloat16}  # in axolotl's YAML",
    ),
    wrapped(
        "fsdp_frozen",
        # torch 2.13, distributed/fsdp/_flat_param.py
        r"Must flatten tensors with uniform `?requires_grad`? when",
        "FSDP joins the weights of a block into one tensor, and some are trained while others are frozen.",
        "fsdp_use_orig_params: true  # in accelerate's config; FSDP(use_orig_params=True) in PyTorch and Lightning",
        "peft.utils.other.fsdp_auto_wrap_policy(model)  # wraps adapters by themselves; saves more memory with LoRA",
    ),
    wrapped(
        "fsdp_layer_class",
        # accelerate#1943, #2872; BCEmbedding#66 (XLMRobertaLayer, not BertLayer); LlamaFactory#8279
        r"Could not find the transformer layer class(?: (?P<layer>\w+))?",
        "FSDP is to wrap layers of a class that this model has none of.",
        "print({type(m).__name__ for m in model.modules()})  # the classes; take the block, as LlamaDecoderLayer",
        "fsdp_transformer_layer_cls_to_wrap: NAME  # in accelerate's config or TrainingArguments(fsdp_config=...)",
        "fsdp_auto_wrap_policy: SIZE_BASED_WRAP  # without a class",
    ),
    wrapped(
        "several_devices",
        # visual-openllm#20 (no device_map=auto); smollm#32; trl#1151; torch 1.8 to 2.13
        r"Expected all tensors to be on the same device, but (?:found at least two devices|got \w+ is on)",
        "Tensors of one operation lie on different devices: device_map spread the model, or the inputs were not moved.",
        "CUDA_VISIBLE_DEVICES=0 python train.py  # one GPU: device_map='auto' then has nothing to spread over",
        "device_map={'': int(os.environ['LOCAL_RANK'])}  # with torchrun or accelerate launch: one copy a GPU",
        "inputs = {k: v.to(model.device) for k, v in inputs.items()}  # in a loop of your own",
    ),
    wrapped(
        "meta_weights",
        # accelerate#2082, #2809; axolotl#1249; transformers#31104; LlamaFactory#7750
        r"Cannot copy out of meta tensor; no data!",
        "Some weights were never loaded: they are placeholders, since the model was offloaded, sharded before it was "
        "loaded, or lacks them in its file.",
        '"stage": 2  # in DeepSpeed\'s JSON: with QLoRA and ZeRO-3 this is the known cure',
        "from_pretrained(NAME)  # without device_map='auto' and low_cpu_mem_usage, for training",
        "model.to_empty(device='cuda')  # only for weights that you fill yourself afterwards",
    ),
    # -- settings that contradict each other
    wrapped(
        "best_model_strategies",
        # transformers 5.23, training_args.py
        r"--load_best_model_at_end requires the save and eval(?:uation)? strategy to match"
        r"|--load_best_model_at_end requires the saving steps to be a round multiple of the evaluation steps",
        "The best model can only be loaded at the end if each save follows an evaluation.",
        "TrainingArguments(eval_strategy='steps', save_strategy='steps', eval_steps=200, save_steps=200)  # the same",
        "TrainingArguments(load_best_model_at_end=False)  # or keep the last",
    ),
    wrapped(
        "checkpointing_unsupported",
        # transformers 5.23, modeling_utils
        r"\b(?P<model>\w{1,80}) does not support gradient checkpointing\.",
        "{model} has no gradient checkpointing, and it was asked for.",
        "TrainingArguments(gradient_checkpointing=False)  # memory: a smaller batch or shorter samples instead",
        "pip install -U transformers  # newer releases have it for more models",
    ),
    wrapped(
        "accelerate_config",
        # accelerate 1.15, commands/config/config_args.py
        r"The config file at (?P<file>\S{1,300}) had unknown keys \(",
        "accelerate's config file was written by another release; it has keys that this one does not know.",
        "pip install -U accelerate  # at least the release that wrote it",
        "accelerate config  # or answer its questions again; it writes the file again",
    ),
    wrapped(
        "config_refused",
        # pydantic 2: DeepSpeed 0.19, axolotl
        r"\b\d{1,4} validation errors? for (?P<model>\w{1,80})",
        "{model} refuses its configuration; the lines below name each key, and what is wrong with its value.",
        "axolotl preprocess CONFIG.yml  # axolotl: checks the file without a GPU",
        "python -m json.tool DS_CONFIG.json  # DeepSpeed: a number in quotes, or a key at the wrong depth",
    ),
    wrapped(
        "shared_tensors",
        # trl#5150; trlx#591; LlamaFactory#3400; gemma3-object-detection#48
        r"Some tensors share memory, this will lead to duplicate memory on disk"
        r"|The weights trying to be saved contained shared tensors",
        "Saving failed: safetensors does not write two names for one tensor (as embedding and head), and this class "
        "does not say that they are tied. Training itself was done up to there.",
        "TrainingArguments(save_safetensors=False)  # transformers 4: saves with torch.save",
        "safetensors.torch.save_model(model, FILE)  # in place of save_file: it knows about tied weights",
        "_tied_weights_keys = ['lm_head.weight']  # in a model class of your own",
    ),
)
