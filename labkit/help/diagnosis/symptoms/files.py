"""Ends in files: file systems, the hub, weights and checkpoints that do not fit or are cut.

A comment names where the text was read: an issue of a public tracker, or the release of an installed library.
"""

from labkit.help.diagnosis.symptoms.wrapped import wrapped

SYMPTOMS = (
    # -- the file system
    wrapped(
        "file_locks",
        # ms-swift#6695 (a newer filelock); LlamaFactory#3388; cactus#1299; datasets pull request 8638; filelock 3
        r"Stale (?:NFS )?file handle"
        r"|\[Errno 116\]"
        r"|No locks available|\[Errno 37\]"
        r"|The file lock '(?P<lock>[^'\n]{1,300})' could not be acquired",
        "A network file system lost a file that several processes share, or gives no locks; a cache lies there.",
        "export HF_HOME=/local/huggingface HF_DATASETS_CACHE=/local/datasets  # on the node's own disk",
        "pip install -U filelock datasets  # newer ones bear a lock that vanished",
        "with accelerator.main_process_first():  # one rank prepares the data, the others read them",
        "fuser {lock} ; rm {lock}  # only a lock that no process holds: left by a run that was killed",
    ),
    wrapped(
        "read_only",
        # huggingface_hub#2797; executorch pull request 20782; proteinfold#463; wyoming-faster-whisper#27
        r"Read-only file system|\[Errno 30\]",
        "Something is to be written where nothing can be: a cache in a container's image or on a read-only disk.",
        "export HF_HOME=/scratch/$USER/huggingface TRITON_CACHE_DIR=/tmp/triton XDG_CACHE_HOME=/tmp  # writable",
        "apptainer exec --nv --bind /scratch ...  # docker run -v /data:/data: give the container one",
        "sudo dmesg -T | grep -i remount  # a disk of your own becomes read-only after errors",
    ),
    wrapped(
        "disk_io",
        # the kernel's errno 5
        r"\[Errno 5\]|\b(?:OSError|IOError)[^\n]{0,40}Input/output error",
        "The disk or the network file system failed while it was read or written. That is not the program.",
        "sudo dmesg -T | tail -50  # the disk's own errors",
        "cp -r DATA /local/  # read from the node's own disk; then the same run again",
    ),
    wrapped(
        "permission",
        # Python's errno 13
        r"PermissionError: \[Errno 13\] Permission denied(?:: '(?P<path>[^'\n]{1,300})')?",
        "A file or folder may not be read or written by this user.",
        "ls -ld {path} ; id  # whose it is; in a container the user is another one",
        "export HF_HOME=/scratch/$USER/huggingface TRITON_CACHE_DIR=/tmp/$USER-triton  # caches of your own",
        "docker run --user $(id -u):$(id -g) ...  # files written by root belong to root",
    ),
    # -- the hub
    wrapped(
        "hub_rate_limit",
        # huggingface_hub#3312; transformers#21129, #34841; yomitoku#99; Google-Cloud-Containers#145
        r"429 Client Error"
        r"|429 Too Many Requests",
        "The hub answers no more for a while: too many requests from this address, as of many jobs that start at once.",
        "export HF_HUB_OFFLINE=1  # once everything is in the cache: no requests at all",
        "hf auth login  # with a token the limit is yours, not that of everybody at your site",
        "hf download ORG/MODEL  # once, before the jobs; local_files_only=True in the script",
    ),
    wrapped(
        "tls",
        # devika#446; ucx pull request 2346; private-gpt#1060; requests and httpx
        r"CERTIFICATE_VERIFY_FAILED",
        "A proxy or firewall between here and the hub signs with a certificate of its own, which Python does not know.",
        "export REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
        "  # the system's list, if your site added its own there",
        "pip install pip-system-certs  # the same for all of Python",
        "hf download ORG/MODEL  # on another machine; then copy the folder, and HF_HUB_OFFLINE=1",
    ),
    wrapped(
        "proxy",
        # urllib3, httpx
        r"ProxyError\b"
        r"|Tunnel connection failed: (?P<code>\d{3})",
        "The proxy that the environment names does not let the download through.",
        "env | grep -i proxy  # HTTPS_PROXY and NO_PROXY: in a job they may differ from your login shell's",
        "curl -sI https://huggingface.co | head -1  # through the same proxy",
        "export HF_HUB_OFFLINE=1  # with what is in the cache already",
    ),
    wrapped(
        "xet",
        # huggingface_hub#3036; xet-core#322 (fixed in 1.1.2), #394, #850; torchforge pull request 109
        r"Data processing error: "
        r"|CAS service error",
        "The hub's newer way to download (hf-xet) failed.",
        "export HF_HUB_DISABLE_XET=1  # the older way; in most threads it works at once",
        "pip install -U hf_xet huggingface_hub  # later releases try again by themselves",
        "df -h ~/.cache/huggingface  # it also fails so when the disk is full",
    ),
    wrapped(
        "download_cut",
        # huggingface_hub 2.4, file_download.py; requests, urllib3
        r"Consistency check failed: file should be of size"
        r"|ChunkedEncodingError"
        r"|IncompleteRead\(",
        "The connection broke in the middle of a download; the file is not whole.",
        "hf download ORG/MODEL  # once more: it resumes where it stopped",
        "export HF_HUB_DOWNLOAD_TIMEOUT=60  # more patience than 10 s",
        "hf download ORG/MODEL --force-download  # if the size still differs",
    ),
    wrapped(
        "hub_not_found",
        # huggingface_hub 2.4, errors.py; transformers 5.23, utils/hub.py; datasets 5.2
        r"(?:Repository|Revision|Entry) Not Found for url"
        r"|\b(?:Repository|Revision|RemoteEntry|Entry)NotFoundError: "
        r"|is not a local folder and is not a valid model identifier"
        r"|Repo id must (?:be in the form|use alphanumeric)"
        r"|doesn't exist on the Hub or cannot be accessed",
        "The hub has no such model, data set, revision or file, or does not show it without a token. A path to a "
        "folder that is not there is taken for a name.",
        "ls PATH  # if it was meant as a folder: absolute, and as the container sees it",
        "hf auth whoami  # a private one is 'not found' for everybody else",
        "https://huggingface.co/ORG/MODEL/tree/REVISION  # spelling, capitals, and the files that it has",
    ),
    wrapped(
        "hub_down",
        # huggingface_hub: the server's own errors
        r"50[0234] Server Error[\s\S]{0,200}(?:huggingface\.co|hf\.co)",
        "The hub itself had an error.",
        "export HF_HUB_OFFLINE=1  # if everything is in the cache",
        "hf download ORG/MODEL  # later again; status.huggingface.co tells",
    ),
    wrapped(
        "hub_retry",
        # huggingface_hub 2.4: a warning; the download continues
        r"Retrying in \S{1,8} \[Retry \d+/\d+\]"
        r"|Trying to resume download\.\.\.",
        "A download was interrupted and tried again.",
        "export HF_HUB_DOWNLOAD_TIMEOUT=60  # more patience than 10 s",
        tier="warning",
    ),
    # -- weights and checkpoints
    wrapped(
        "lfs_pointer",
        # torch.load of a file that git clone left as a pointer ('version https://git-lfs...')
        r"invalid load key, '(?:v|<)'",
        "The weights file is not a weights file: a git-lfs pointer of some 130 bytes, or a web page.",
        "ls -l MODEL ; head -c 100 FILE  # 'version https://git-lfs' or '<!DOCTYPE'",
        "git lfs pull  # in the cloned folder; or hf download ORG/MODEL --local-dir MODEL",
    ),
    wrapped(
        "weights_cut",
        # LaTeX-OCR#267, OpenChatKit#58, yolov10#154 (download again); torch 2.13; safetensors 0.8
        r"PytorchStreamReader failed"
        r"|(?:M|m)etadataIncompleteBuffer|InvalidHeaderDeserialization|incomplete metadata, file not fully covered"
        r"|HeaderTooSmall|InvalidHeaderLength"
        r"|EOFError: Ran out of input"
        r"|unexpected EOF, expected \d+ more bytes",
        "A weights or checkpoint file is cut: a download that broke, a disk that was full, or a run that was killed "
        "while it saved.",
        "ls -l CHECKPOINT  # a file much smaller than its neighbours; take the checkpoint before it",
        "hf download ORG/MODEL --force-download  # if it came from the hub",
        "df -h . ; quota -s  # was the disk full while it was written?",
    ),
    wrapped(
        "checkpoint_missing",
        # transformers 5.23, trainer.py
        r"Can't find a valid checkpoint at (?P<folder>\S{1,300})"
        r"|No valid checkpoint found in output directory \((?P<output>[^)\n]{1,300})\)",
        "Training is to resume from a checkpoint, and the folder holds none that is whole.",
        "ls OUTPUT_DIR  # checkpoint-N folders, each with trainer_state.json",
        "trainer.train(resume_from_checkpoint=False)  # from the start; or the path of one checkpoint-N",
    ),
    wrapped(
        "model_file_missing",
        # transformers 5.23, modeling_utils.py and utils/hub.py
        r"Error no file named (?P<file>[\w.-]{1,80})[^\n]{0,200} found in directory"
        r"|does not appear to have a file named (?P<name>[\w.-]{1,80})",
        "The folder or repository has no {file} {name}: it holds an adapter only, other weights, or half a download.",
        "ls MODEL  # adapter_model.safetensors alone: AutoPeftModelForCausalLM.from_pretrained(MODEL)",
        "python zero_to_fp32.py . pytorch_model.bin  # in a DeepSpeed checkpoint: makes whole weights of the shards",
        "hf download ORG/MODEL --local-dir MODEL  # again, all files",
    ),
    wrapped(
        "optimizer_groups",
        # pysot#92; ms-swift#107; sd-scripts#378; stereo-transformer#58; torch 2.13
        r"contains a parameter group that doesn't match the size of optimizer's group"
        r"|loaded state dict has a different number of parameter groups",
        "The checkpoint's optimizer trained other weights than this run does: other layers are frozen, another "
        "adapter, or another model.",
        "diff OLD_CONFIG NEW_CONFIG  # what is trained must be the same to resume",
        "from_pretrained(CHECKPOINT)  # to continue with the weights only: a new run, without resume_from_checkpoint",
        "Model.load_from_checkpoint(FILE)  # Lightning: in place of trainer.fit(ckpt_path=FILE)",
    ),
    wrapped(
        "weights_sizes",
        # torch 2.13, nn/modules/module.py
        r"size mismatch for (?P<parameter>\S{1,200}): copying a param with shape",
        "The checkpoint is of a model with other sizes ({parameter}).",
        "diff <(python -m json.tool A/config.json) <(python -m json.tool B/config.json)  # sizes, number of labels",
        "from_pretrained(..., ignore_mismatched_sizes=True)  # only for a head that is to be trained from the start",
    ),
    wrapped(
        "weights_keys",
        # torch 2.13, nn/modules/module.py
        r"(?:Missing|Unexpected) key\(s\) in state_dict",
        "The checkpoint's weights have other names than the model's: a prefix of DDP, torch.compile or an adapter, or "
        "another model.",
        "{k.removeprefix('module.').removeprefix('_orig_mod.'): v for k, v in state.items()}  # the usual prefixes",
        "PeftModel.from_pretrained(base, FOLDER)  # for names with 'base_model.model.' or 'lora_'",
        "model.load_state_dict(state, strict=False)  # only if what is missing is trained afresh; print what it "
        "returns",
    ),
    # -- any file
    wrapped(
        "file_missing",
        # Python's errno 2; /tmp/pymp-* and torchelastic folders vanish at an exit and mean nothing
        r"FileNotFoundError: \[Errno 2\] No such file or directory: "
        r"'(?P<path>(?!/tmp/pymp-|/tmp/torchelastic)[^'\n]{1,300})'",
        "A file is not there: {path}.",
        "ls -l {path} ; pwd  # a path that is not absolute counts from where the job starts",
        "docker run -v /data:/data ...  # a container sees only what is mounted; apptainer exec --bind /data",
    ),
)
