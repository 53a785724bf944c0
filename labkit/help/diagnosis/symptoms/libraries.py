"""Libraries that do not go together, files that are not what they are taken for, hubs and trackers out of reach."""

from labkit.help.diagnosis.symptoms.symptom import symptom

SYMPTOMS = (
    symptom(
        "extension_mismatch",
        r"(?:flash_attn|xformers|bitsandbytes|torchvision|torchaudio|apex|deepspeed|detectron2|mmcv|causal_conv1d"
        r"|mamba_ssm|vllm|torch_scatter|auto_gptq|exllama\w*)[^\s:]{0,120}\.so[\w.]{0,20}: undefined symbol"
        r"|\.so[\w.]{0,20}: undefined symbol: \w+|DLL load failed while importing \w+",
        "A compiled package was built for another version of PyTorch: its library does not find the symbols "
        "that it was linked with.",
        "pip uninstall -y flash-attn && pip install --no-build-isolation --no-cache-dir flash-attn  # the package "
        "that the "
        "line names (flash_attn is flash-attn), built again for the torch that is installed",
        "pip install PACKAGE==VERSION  # or a wheel that was made for this torch and CUDA",
        'attn_implementation="sdpa"  # without flash-attn: PyTorch\'s own attention is as good a choice',
    ),
    symptom(
        "cpu_adam_build",
        r"Error building extension '\w+'|Unable to JIT load the \w+ op|MissingCUDAException: CUDA_HOME"
        r"|CUDA_HOME does not exist, unable to compile CUDA op|fatal error: \w+\.h(?:pp)?: No such file or directory",
        "An extension (DeepSpeed's CPU Adam or the like) could not be compiled at its first use: headers of the CUDA "
        "toolkit or of Python, or "
        "the compiler, are missing or do not match this PyTorch. Errors in __del__ after it follow from it.",
        "nvcc --version; python -c 'import torch; print(torch.version.cuda)'  # both must be of one major version",
        "export CUDA_HOME=/usr/local/cuda  # the toolkit that matches torch (conda: cuda-toolkit; apt: "
        "cuda-toolkit-12-8)",
        "sudo apt install g++ ninja-build python3-dev  # the compiler, and Python's headers",
        "ds_report  # DeepSpeed: which of its ops can be built here",
    ),
    symptom(
        "weights_file",
        r"Error while deserializing header: (?:HeaderTooLarge|HeaderTooSmall|InvalidHeader\w*|MetadataIncomplete\w*|"
        r"InvalidHeaderDeserialization)|SafetensorError: .{0,80}header"
        r"|failed finding central directory|PytorchStreamReader failed reading (?:zip archive|file)"
        r"|incomplete metadata, file not fully covered",
        "A file of weights is not what its name says: a git-lfs pointer (cloned without git-lfs), a page of a web "
        "site, "
        "or a download that broke off.",
        "ls -l FOLDER; head -c 200 FILE  # a pointer has about 130 bytes and begins with 'version https://git-lfs'",
        "git lfs install && git lfs pull  # in the clone; or: hf download OWNER/MODEL --local-dir FOLDER",
    ),
    symptom(
        "weights_only",
        r"Weights only load failed|WeightsUnpickler error|Unsupported global: GLOBAL",
        "The checkpoint holds other objects than tensors, and torch 2.6 and later refuse to unpickle those, for a "
        "pickle "
        "can run any code.",
        "torch.serialization.add_safe_globals([CLASS])  # the class that the message names, if you trust it",
        "torch.load(file, weights_only=False)  # only for a file of your own",
    ),
    symptom(
        "tracker_unreachable",
        r"wandb\.errors|wandb: (?:Network error|ERROR)|api\.wandb\.ai|wandb.{0,60}(?:timed out|CommError)"
        r"|api\.comet\.com|(?:mlflow|neptune)\S*(?:Exception|Error)",
        "The experiment tracker (Weights & Biases or the like) cannot be reached from here, or refuses the key. "
        "Compute "
        "nodes of a cluster often have no way out.",
        "export WANDB_MODE=offline  # and later, where there is a network: wandb sync wandb/offline-run-*",
        "export WANDB_DISABLED=true  # or report_to='none' (TrainingArguments), logger=False (Lightning): without it",
        tier="sign",
    ),
    symptom(
        "token",
        r"GatedRepoError|Cannot access gated repo|access a gated repo|is gated: ask for access"
        r"|\b40[13] Client Error|Invalid (?:username or password|user token|credentials)|\(HTTP 40[13]\)",
        "The Hugging Face hub refused the download: the token is missing or not accepted, or you have no access to "
        "this model yet.",
        "hf auth login  # with a token of yours; or export HF_TOKEN",
        "hf auth whoami  # whether the token is accepted; a gated model also wants a click on its page",
        "{doctor}",
    ),
    symptom(
        "hub_offline",
        r"OfflineModeIsEnabled|offline mode is enabled|HF_HUB_OFFLINE=1 keeps",
        "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE keeps this machine off the hub, and what was asked for is not in the "
        "cache.",
        "HF_HUB_OFFLINE=0 labkit fetch {model}  # bring it once, where there is a network",
        "HF_HUB_OFFLINE=0 hf download OWNER/MODEL  # for any model: once, where there is a network",
        "{run:weights=random}  # the same memory and time, and no download",
    ),
    symptom(
        "hub_unreachable",
        r"couldn't connect to 'https?://|LocalEntryNotFoundError|is out of reach \("
        r"|httpx\w*\.Connect(?:Error|Timeout)"
        r"|Temporary failure in name resolution|Name or service not known|Max retries exceeded with url",
        "The Hugging Face hub cannot be reached from here, and what was asked for is not in the cache.",
        "{doctor}  # tries the hub, with a short time-out",
        "labkit fetch {model}  # on a node with a network; compute nodes of a cluster often have none",
        "hf download OWNER/MODEL  # for any model: on a node with a network, then HF_HUB_OFFLINE=1",
        "{run:weights=random}  # the same memory and time, and no download",
        tier="sign",
    ),
)
