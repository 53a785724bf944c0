"""Ends that adapters, quantization and tokenizers bring: what each means, and the cure that its thread confirmed.

A comment names where the text was read: an issue of a public tracker, or the release of an installed library.
"""

from labkit.help.diagnosis.symptoms.wrapped import wrapped

SYMPTOMS = (
    # -- bitsandbytes and quantized weights
    wrapped(
        "bitsandbytes_missing",
        # transformers 5.23; huggingface/transformers quantizers since 4.30
        r"Using `?bitsandbytes`? (?:4|8)-bit quantization requires"
        r"|Using `load_in_[48]bit=True`[^\n]{0,80} requires Accelerate"
        r"|No package metadata was found for bitsandbytes"
        r"|You need to install `bitsandbytes` in order to use",
        "Quantization or an 8-bit optimizer was asked for, and bitsandbytes is not installed, or too old.",
        "pip install -U bitsandbytes accelerate  # then restart the notebook's kernel, which still has the old state",
        "TrainingArguments(optim='adamw_torch')  # if only the 8-bit optimizer asked for it; needs more memory",
    ),
    wrapped(
        "bitsandbytes_kernel",
        # bitsandbytes#91, #310; alpaca-lora#320 (V100, int8)
        r"Error (?:no kernel image is available|invalid device function)[^\n]{0,80} at line \d+ in file",
        "bitsandbytes has no code for this GPU's compute capability, or int8 needs a newer GPU than this one.",
        "pip install -U bitsandbytes  # a release built for this GPU",
        "BitsAndBytesConfig(load_in_4bit=True)  # 4-bit runs on GPUs that 8-bit does not (int8 needs 7.5, T4 or newer)",
        "nvidia-smi --query-gpu=name,compute_cap --format=csv  # what the GPU is",
    ),
    wrapped(
        "bitsandbytes_cuda",
        # bitsandbytes#487, #492, #966, #1559, #1614; bitsandbytes 0.50
        r"CUDA Setup failed despite (?:GPU|CUDA) being available"
        r"|Attempted to use bitsandbytes native library functionality but it's not available"
        r"|Configured \w+ binary not found at"
        r"|has no attribute 'c(?:get_managed|quantize|dequantize|igemm)\w{0,40}'"
        r"|libbitsandbytes_\w+\.so: (?:undefined symbol|cannot open shared object file)",
        "bitsandbytes finds no compiled library for the CUDA that PyTorch uses.",
        "python -m bitsandbytes  # which library it looks for, and where",
        "pip install -U bitsandbytes  # newer releases bring the libraries of all CUDA versions; the maintainers' cure",
        "unset BNB_CUDA_VERSION  # it overrides the CUDA version of PyTorch",
        "export LD_LIBRARY_PATH=/usr/local/cuda/lib64:$LD_LIBRARY_PATH  # if it reports that libcudart is missing",
    ),
    wrapped(
        "quantized_offloaded",
        # llama-cookbook#56, #333; Senna#17 (a larger GPU solved it); transformers 5.23
        r"Some modules are dispatched on the CPU or the disk\. Make sure you have enough GPU RAM"
        r"|precision with CPU or disk offload",
        "The quantized model does not fit on the GPU, so a part was placed on the CPU, which quantized training cannot "
        "use.",
        "nvidia-smi  # somebody else's process on the GPU is the most frequent reason; end it if it is yours",
        "device_map={'': 0}  # in from_pretrained: everything on one GPU; its error then has the missing size",
        "BitsAndBytesConfig(load_in_4bit=True)  # half of what 8-bit takes; or a smaller model",
        "BitsAndBytesConfig(llm_int8_enable_fp32_cpu_offload=True)  # only to generate text, not to train",
    ),
    wrapped(
        "quantized_device_map",
        # accelerate#2713, peft#414; accelerate 1.15
        r"You can't train a model that has been loaded in 8-bit[^\n]{0,30} precision"
        r" (?:on a different device|on multiple devices)",
        "The quantized model lies on another GPU than the process that trains it, or on several.",
        "device_map={'': torch.cuda.current_device()}  # in from_pretrained: each process loads it on its own GPU",
        "device_map={'': PartialState().process_index}  # the same under accelerate launch (from accelerate)",
        "CUDA_VISIBLE_DEVICES=0 python train.py  # with one process: one GPU",
        "pip install -U accelerate  # releases before 0.21 refused several devices altogether",
    ),
    wrapped(
        "quantized_without_adapter",
        # unsloth#241, #1110; LLM-Adapters#55, #57; Bunny#112; transformers 5.23
        r"You cannot perform fine-tuning on purely quantized models",
        "Quantized weights cannot be trained: they need an adapter on top, and the Trainer sees none.",
        "model = get_peft_model(model, LoraConfig(...))  # before the Trainer; in TRL: SFTTrainer(peft_config=...)",
        "adapter: qlora  # in axolotl's YAML, beside load_in_4bit: true",
        "grep -n merge_and_unload train.py  # it takes the adapter away again; only after training",
        "load_in_4bit=False  # for full fine-tuning: no quantization, much more memory",
    ),
    wrapped(
        "quantized_moved",
        # transformers 5.23, modeling_utils
        r"`\.?(?:to|cuda|half|float)(?:\(\))?` is not supported for `(?:4-bit|8-bit|4|8)",
        "A quantized model was moved or cast; it is already on its device, in its precision.",
        "grep -n '\\.to(\\|\\.cuda()\\|\\.half()' train.py  # take it out for the quantized model",
        "device_map={'': 0}  # in from_pretrained says where it goes",
    ),
    # -- adapters
    wrapped(
        "adapter_config_newer",
        # peft#2275; ms-swift#3141; LlamaFactory#2696
        r"\b(?P<config>\w*(?:Lora|IA3|Prompt|Prefix|AdaLora|Vera)\w*Config)\.__init__\(\) got an unexpected keyword"
        r" argument '(?P<argument>\w+)'",
        "The adapter was saved by a newer PEFT: this one does not know '{argument}' of its {config}.",
        "pip install -U peft  # at least the release that saved the adapter",
        "grep -n {argument} adapter_config.json  # or take this line out, if it says null or false",
    ),
    wrapped(
        "adapter_targets",
        # peft#758, #1206; petals#508; peft 0.21
        r"not found in the base model\. Please check the target modules"
        r"|No modules were targeted for adaptation"
        r"|Please specify `target_modules`(?: or `target_parameters`)? ?in `peft_config`",
        "No layer of this model has a name that LoraConfig's target_modules asks for: each family calls its layers "
        "otherwise.",
        "print([n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)])  # the names that there are",
        "LoraConfig(target_modules='all-linear')  # all but the head, whatever their names",
        "lora_target_linear: true  # the same in axolotl's YAML",
    ),
    wrapped(
        "adapter_missing",
        # peft 0.21, config.py and peft_model.py
        r"Can't find 'adapter_config\.json' at '(?P<folder>[^'\n]{0,300})'"
        r"|Can't find weights for \S{1,300} in \S{1,300} or in the Hugging Face Hub",
        "The folder or repository given as adapter holds no adapter.",
        "ls {folder}  # adapter_config.json and adapter_model.safetensors lie in the checkpoint-N folders of a run",
        "AutoModelForCausalLM.from_pretrained(...)  # if the folder holds a whole, merged model",
        "hf auth whoami  # a private repository is not found without a token",
    ),
    wrapped(
        "adapter_rank",
        # LlamaFactory#3154; peft#1700
        r"size mismatch for (?P<parameter>\S{0,200}lora_[AB]\S{0,100}): copying a param with shape",
        "The adapter was trained with another rank, or on another model, than the one it is loaded into ({parameter}).",
        "grep -E '\"r\"|base_model' adapter_config.json  # rank and model that it was trained with; use the same",
        "PeftModel.from_pretrained(base, FOLDER)  # takes the rank from the file, where get_peft_model takes yours",
    ),
    wrapped(
        "vocabulary_size",
        # unsloth#943; peft#2290 (resizing before loading is the cure); LlamaFactory#3125; textgen#959
        r"size mismatch for \S{0,200}(?:embed_tokens|lm_head|wte|word_embeddings|shared|embed_out)\S{0,80}"
        r": copying a param with shape torch\.Size\(\[(?P<saved>\d+)",
        "The checkpoint's vocabulary has {saved} entries and this model's has another number: tokens were added before "
        "it was trained.",
        "model.resize_token_embeddings({saved})  # before PeftModel.from_pretrained or load_state_dict",
        "AutoTokenizer.from_pretrained(CHECKPOINT)  # the tokenizer that was saved with it, not the base model's",
        "resize_vocab: true  # in LLaMA-Factory, for training and for export",
    ),
    wrapped(
        "adapter_merge",
        # peft 0.21, tuners/lora/model.py
        r"Cannot merge LORA layers when (?:the model is (?:gptq quantized|loaded in 8-bit)|base model layers)",
        "The adapter cannot be merged into weights in this form: they are quantized, or layers share them.",
        "AutoModelForCausalLM.from_pretrained(BASE, torch_dtype=torch.bfloat16)  # the base unquantized; then merge",
        "model.merge_and_unload()  # on the CPU if the GPU is too small: device_map='cpu'",
    ),
    # -- tokenizers
    wrapped(
        "tokenizer_newer",
        # open-instruct#738 (transformers 4.43); tokenizers#1297; moondream#242 (an upgrade solved it)
        r"data did not match any variant of untagged enum",
        "tokenizer.json was written by a newer tokenizers than the one installed, which cannot read it.",
        "pip install -U transformers tokenizers  # the cure in every thread; 4.45 or newer for files of 2024 on",
        "head -c 300 tokenizer.json  # a git-lfs pointer or an HTML page is not a tokenizer either",
    ),
    wrapped(
        "tokenizer_converter",
        # AIwaifu#40 (sentencepiece); DeBERTa#159, joy_caption_two#8; transformers 5.23
        r"Couldn't instantiate the backend tokenizer from one of"
        r"|Converting from (?:Tiktoken|SentencePiece)[^\n]{0,40} failed"
        r"|requires the (?:SentencePiece|protobuf) library but it was not found",
        "The tokenizer has to be converted, and what that needs is not installed, or the folder has no tokenizer file.",
        "pip install sentencepiece protobuf tiktoken  # then restart the notebook's kernel",
        "ls MODEL  # tokenizer.json or tokenizer.model must be there; a checkpoint has it only where it was saved too",
    ),
    wrapped(
        "chat_template",
        # unsloth#2096; OpenRLHF#613; trl pull requests 3309, 3599; transformers 5.23
        r"tokenizer\.chat_template is not set and no template argument was passed"
        r"|No chat template is set for this (?:processor|tokenizer)",
        "The data are conversations, and this tokenizer has no chat template: base models often have none.",
        "SFTConfig(chat_template_path='ORG/MODEL-Instruct')  # TRL: takes it from the model's chat version",
        "tokenizer.chat_template = AutoTokenizer.from_pretrained('ORG/MODEL-Instruct').chat_template  # by hand",
        "chat_template: chatml  # in axolotl's YAML; a template with tokens of its own wants them trained too",
    ),
    wrapped(
        "pad_token",
        # trl#466; BioMedLM#4; mamba-hf#2; transformers 5.23
        r"Asking to pad but the tokenizer does not have a padding token"
        r"|Cannot handle batch sizes > 1 if no padding token is defined",
        "Samples of different length are to become one batch, and the tokenizer has no token to fill up with.",
        "tokenizer.pad_token = tokenizer.eos_token  # adds nothing to the vocabulary",
        "model.config.pad_token_id = tokenizer.pad_token_id  # a classification head reads it from there",
        "tokenizer.add_special_tokens({'pad_token': '[PAD]'})  # then model.resize_token_embeddings(len(tokenizer))",
    ),
)
