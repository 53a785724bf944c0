"""Logs that end in a file system, at the hub, or in a checkpoint."""

from log_parts import DEEPSPEED, LOADING, STEPS, TORCHRUN, Told, packages, trace

TRAIN = "train.py:66:main:trainer.train()"
LOAD = "train.py:31:main:model = AutoModelForCausalLM.from_pretrained(args.model)"
DATA = "train.py:24:main:data = load_dataset(args.data, split='train')"
FETCH = "Fetching 12 files:  25%|██▌       | 3/12 [00:09<00:27,  3.02s/it]\n"

LOGS = (
    Told(
        "file_locks",
        trace(
            "OSError: [Errno 116] Stale file handle",
            DATA,
            f"{packages('filelock/_unix.py')}:42:_acquire:os.open(file)",
            before="",
            after=TORCHRUN,
        ),
        ("HF_DATASETS_CACHE", "filelock"),
        ("memory",),
    ),
    Told(
        "file_locks",
        trace("OSError: [Errno 37] No locks available", DATA, before=""),
        ("HF_HOME",),
        ("memory",),
    ),
    Told(
        "read_only",
        trace("OSError: [Errno 30] Read-only file system: '/mnt/hf_cache/datasets'", DATA, before=""),
        ("HF_HOME", "TRITON_CACHE_DIR"),
        ("full",),
    ),
    Told(
        "disk_io",
        trace("OSError: [Errno 5] Input/output error", "data.py:21:__getitem__:image = Image.open(path)", before=STEPS),
        ("dmesg",),
        ("full",),
    ),
    Told(
        "permission",
        trace("PermissionError: [Errno 13] Permission denied: '/shared/cache/triton/8f2k'", TRAIN, before=STEPS),
        ("/shared/cache/triton/8f2k", "TRITON_CACHE_DIR"),
        ("quota",),
    ),
    Told(
        "hub_rate_limit",
        trace(
            "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: "
            "https://huggingface.co/some-lab/odd-7b/resolve/main/config.json",
            LOAD,
            before="",
        ),
        ("HF_HUB_OFFLINE=1", "hf auth login"),
        ("gated",),
    ),
    Told(
        "tls",
        trace(
            "httpx.ConnectError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed "
            "certificate in "
            "certificate chain (_ssl.c:1007)",
            LOAD,
            before="",
        ),
        ("SSL_CERT_FILE", "certificate"),
        ("token",),
    ),
    Told(
        "proxy",
        trace(
            "requests.exceptions.ProxyError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries "
            "exceeded "
            "with url: /api/models/some-lab/odd-7b (Caused by ProxyError('Cannot connect to proxy.', "
            "OSError('Tunnel connection failed: 403 Forbidden')))",
            LOAD,
            before="",
        ),
        ("NO_PROXY",),
        ("token",),
    ),
    Told(
        "xet",
        trace(
            "RuntimeError: Data processing error: CAS service error : ReqwestMiddleware Error: Request failed after 5 "
            "retries",
            LOAD,
            f"{packages('huggingface_hub/file_download.py')}:629:xet_get:download_files(",
            before=FETCH,
        ),
        ("HF_HUB_DISABLE_XET=1",),
        ("token",),
    ),
    Told(
        "download_cut",
        trace(
            "OSError: Consistency check failed: file should be of size 4976698672 but has size 1711276032 "
            "(model-00001-of-00004.safetensors).",
            LOAD,
            before=FETCH,
        ),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "--force-download"),
        ("full",),
    ),
    Told(
        "hub_not_found",
        trace(
            "OSError: models/odd-7b is not a local folder and is not a valid model identifier listed on "
            "'https://huggingface.co/models'\nIf this is a private repository, make sure to pass a token having "
            "permission "
            "to this repo",
            LOAD,
            before="",
        ),
        ("ls PATH", "hf auth whoami"),
        ("offline",),
    ),
    Told(
        "hub_not_found",
        trace(
            "datasets.exceptions.DatasetNotFoundError: Dataset 'some-lab/odd-captions' doesn't exist on the Hub "
            "or cannot be "
            "accessed.",
            DATA,
            before="",
        ),
        ("hf auth whoami",),
        ("memory",),
    ),
    Told(
        "hub_down",
        trace(
            "huggingface_hub.errors.HfHubHTTPError: 503 Server Error: Service Temporarily Unavailable for url: "
            "https://huggingface.co/api/models/some-lab/odd-7b",
            LOAD,
            before="",
        ),
        ("HF_HUB_OFFLINE=1",),
        ("token",),
    ),
    Told(
        "lfs_pointer",
        trace(
            "_pickle.UnpicklingError: invalid load key, 'v'.",
            LOAD,
            f"{packages('torch/serialization.py')}:1500:_legacy_load:magic_number = pickle_module.load(f)",
            before="",
        ),
        ("git lfs pull",),
        ("weights_only",),
    ),
    Told(
        "weights_cut",
        trace(
            "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory",
            "train.py:60:main:state = torch.load(last / 'optimizer.pt')",
            after=TORCHRUN,
        ),
        ("cut", "--force-download"),
        ("git lfs",),
    ),
    Told(
        "weights_cut",
        trace(
            "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not "
            "fully covered",
            LOAD,
            before="",
        ),
        ("cut", "df -h"),
        ("git lfs",),
    ),
    Told(
        "checkpoint_missing",
        trace("ValueError: Can't find a valid checkpoint at out/checkpoint-400", TRAIN),
        ("trainer_state.json",),
        ("FOLDER", "adapter_config"),
    ),
    Told(
        "model_file_missing",
        trace(
            "OSError: Error no file named model.safetensors, or pytorch_model.bin, found in directory "
            "out/checkpoint-400.",
            LOAD,
            before="",
        ),
        ("model.safetensors", "AutoPeftModelForCausalLM", "zero_to_fp32"),
        ("memory",),
    ),
    Told(
        "optimizer_groups",
        trace(
            "ValueError: loaded state dict contains a parameter group that doesn't match the size of optimizer's group",
            TRAIN,
            f"{packages('torch/optim/optimizer.py')}:951:load_state_dict:raise ValueError(",
            after=DEEPSPEED,
        ),
        ("other layers are frozen", "load_from_checkpoint"),
        ("memory",),
    ),
    Told(
        "weights_sizes",
        trace(
            "RuntimeError: Error(s) in loading state_dict for Classifier:\n\tsize mismatch for "
            "classifier.weight: copying a "
            "param with shape torch.Size([7, 768]) from checkpoint, the shape in current model is "
            "torch.Size([3, 768]).",
            "evaluate.py:14:<module>:model.load_state_dict(state)",
        ),
        ("classifier.weight", "ignore_mismatched_sizes"),
        ("vocabulary", "rank"),
    ),
    Told(
        "weights_keys",
        trace(
            "RuntimeError: Error(s) in loading state_dict for Captioner:\n\tMissing key(s) in state_dict: "
            '"proj.weight", '
            '"proj.bias". \n\tUnexpected key(s) in state_dict: "module.proj.weight", "module.proj.bias". ',
            "evaluate.py:14:<module>:model.load_state_dict(state)",
        ),
        ("removeprefix('module.')", "strict=False"),
        ("{{",),
    ),
    Told(
        "file_missing",
        trace(
            "FileNotFoundError: [Errno 2] No such file or directory: '/data/captions/train.jsonl'",
            DATA,
            before=LOADING,
            after=TORCHRUN,
        ),
        ("/data/captions/train.jsonl", "docker run -v"),
        ("memory",),
    ),
)
