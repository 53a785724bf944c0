"""Logs of runs that are well, and warnings that mean no end: no symptom may be found in them."""

HARMLESS = {
    "Trainer": (
        "{'loss': 0.8123, 'grad_norm': 1.42, 'learning_rate': 9.1e-05, 'epoch': 0.31}\n"
        "{'eval_loss': 0.79, 'eval_runtime': 12.1, 'eval_samples_per_second': 8.2, 'epoch': 0.31}\n"
        "{'train_runtime': 1812.4, 'train_samples_per_second': 5.5, 'train_loss': 0.61, 'epoch': 3.0}\n"
    ),
    "Lightning": (
        "GPU available: True (cuda), used: True\nTPU available: False, using: 0 TPU cores\n"
        "LOCAL_RANK: 0 - CUDA_VISIBLE_DEVICES: [0]\n"
        "Epoch 2: 100%|██████████| 500/500 [04:10<00:00,  2.00it/s, v_num=3, train_loss=0.412]\n"
        "`Trainer.fit` stopped: `max_epochs=3` reached.\n"
    ),
    "weights that are new": (
        "Some weights of LlamaForSequenceClassification were not initialized from the model checkpoint at x/y "
        "and are newly "
        "initialized: ['score.weight']\nYou should probably TRAIN this model on a down-stream task to be able "
        "to use it.\n"
    ),
    "a sequence that is longer": (
        "Token indices sequence length is longer than the specified maximum sequence length for this model "
        "(1540 > 1024). "
        "Running this sequence through the model will result in indexing errors\n"
    ),
    "use_cache": "`use_cache=True` is incompatible with gradient checkpointing. Setting `use_cache=False`.\n",
    "use_reentrant": (
        "torch/utils/checkpoint.py:464: UserWarning: torch.utils.checkpoint: the use_reentrant parameter should "
        "be passed "
        "explicitly. use_reentrant=False is recommended\n"
    ),
    "cuDNN plan": (
        "torch/nn/modules/conv.py:456: UserWarning: Plan failed with a cudnnException: "
        "CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: cudnnFinalizeDescriptor Failed cudnn_status: "
        "CUDNN_STATUS_NOT_SUPPORTED "
        "(Triggered internally at ../aten/src/ATen/native/cudnn/Conv_v8.cpp:919.)\n"
    ),
    "TensorFlow": (
        "E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] Unable to register cuDNN factory: "
        "Attempting to "
        "register factory for plugin cuDNN when one has already been registered\n"
        "Could not find cuda drivers on your machine, GPU will not be used.\n"
    ),
    "minor toolkit": (
        "UserWarning: The detected CUDA version (12.4) has a minor version mismatch with the version that was used to "
        "compile PyTorch (12.6). Most likely this shouldn't be a problem.\n"
    ),
    "DeepSpeed": (
        "[WARNING]  async_io requires the dev libaio .so object and headers but these were not found.\n"
        "[2025-03-11 10:00:00,000] [INFO] [real_accelerator.py:219:get_accelerator] Setting ds_accelerator to cuda\n"
        "[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768\n"
        "Invalidate trace cache @ step 271: expected module 2, but got module 271\n"
    ),
    "NCCL": (
        "node07:15:94 [0] NCCL INFO NET/Plugin : Plugin load (libnccl-net.so) returned 2 : libnccl-net.so: cannot open "
        "shared object file: No such file or directory\nnode07:15:94 [0] NCCL INFO NET/IB : No device found.\n"
        "node07:15:94 [0] NCCL INFO Bootstrap : Using ens7:10.128.0.32<0>\n"
        "node07:15:94 [0] NCCL INFO Channel 00 : 0[100000] -> 1[200000] via direct shared memory\n"
    ),
    "torchrun begins": (
        "*****************************************\nSetting OMP_NUM_THREADS environment variable for each "
        "process to be 1 "
        "in default, to avoid your system being overloaded\n*****************************************\n"
        "master_addr is only used for static rdzv_backend and when rdzv_endpoint is not specified.\n"
    ),
    "the end of a process group": (
        "[rank0]:[W321 ProcessGroupNCCL.cpp:1496] Warning: WARNING: destroy_process_group() was not called "
        "before program "
        "exit, which can leak resources.\n"
    ),
    "dynamo recompiles": (
        "torch._dynamo hit config.recompile_limit (8)\n   function: 'forward' (model.py:31)\n"
        "W0311 torch/_inductor/utils.py:1137] [0/0] Not enough SMs to use max_autotune_gemm mode\n"
    ),
    "tokenizers and fork": (
        "huggingface/tokenizers: The current process just got forked, after parallelism has already been used. "
        "Disabling "
        "parallelism to avoid deadlocks...\n"
    ),
    "pad token set": (
        "The tokenizer has new PAD/BOS/EOS tokens that differ from the model config and generation config. The "
        "model config "
        "was aligned accordingly: {'pad_token_id': 2}.\n"
        "Setting `pad_token_id` to `eos_token_id`:2 for open-end generation.\n"
    ),
    "bitsandbytes casts": (
        "bitsandbytes/autograd/_functions.py:383: UserWarning: MatMul8bitLt: inputs will be cast from "
        "torch.bfloat16 to "
        "float16 during quantization\n"
    ),
    "accelerate offloads": (
        "Some parameters are on the meta device because they were offloaded to the cpu.\n"
        "WARNING:root:Detected kernel version 5.4.17, which is below the recommended minimum of 5.5.0; this can "
        "cause the "
        "process to hang.\n"
    ),
    "a download": (
        "Downloading shards: 100%|██████████| 4/4 [02:12<00:00, 33.1s/it]\n"
        "Xet Storage is enabled for this repo, but the 'hf_xet' package is not installed. Falling back to regular HTTP "
        "download.\n"
    ),
    "pip": (
        "Collecting bitsandbytes>=0.46.1\n  Downloading bitsandbytes-0.48.1-py3-none-manylinux_2_24_x86_64.whl "
        "(60.1 MB)\n"
        "Installing collected packages: safetensors, tokenizers, peft, bitsandbytes\n"
        "Successfully installed bitsandbytes-0.48.1 peft-0.17.1\n"
        "WARNING: Running pip as the 'root' user can result in broken permissions\n"
    ),
    "a configuration": (
        "LoraConfig(task_type='CAUSAL_LM', target_modules={'q_proj', 'v_proj'}, r=16, "
        "modules_to_save=['embed_tokens'])\n"
        "zero_optimization: {stage: 3, stage3_gather_16bit_weights_on_model_save: true}\n"
        "ddp_find_unused_parameters: null\nload_best_model_at_end: true\nfsdp_transformer_layer_cls_to_wrap: null\n"
        "chat_template: null\ntrust_remote_code: false\nresume_from_checkpoint: null\nremove_unused_columns: true\n"
    ),
    "axolotl's dump": (
        '[INFO] [axolotl.cli.config] config:\n{\n  "adapter": "qlora",\n  "flash_attention": true,\n  '
        '"pad_to_sequence_len": '
        'true,\n  "gradient_checkpointing_kwargs": {"use_reentrant": false},\n  "special_tokens": {"pad_token": '
        '"<|end|>"}\n}\n'
    ),
    "docker inspect": (
        '"State": {\n  "Status": "exited",\n  "Running": false,\n  "OOMKilled": false,\n  "Dead": false,\n  '
        '"ExitCode": 0\n}\n'
    ),
    "nvidia-smi": (
        "| NVIDIA-SMI 570.133.20    Driver Version: 570.133.20    CUDA Version: 12.8     |\n"
        "| N/A   51C    P0    39W / 250W |      0MiB / 32510MiB |      0%      Default |\n"
        "|  No running processes found                                                  |\n"
    ),
    "Slurm begins and ends": (
        "srun: job 812345 queued and waiting for resources\nsrun: job 812345 has been allocated resources\n"
        "SLURM_JOB_ID=812345 SLURM_GPUS_ON_NODE=4\nJob finished at 2025-03-11T12:00:00\n"
    ),
    "a folder that vanished at the exit": (
        "Exception ignored in: <Finalize object, dead>\nTraceback (most recent call last):\n"
        '  File "/usr/lib/python3.11/multiprocessing/util.py", line 224, in __call__\n'
        "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/pymp-8f2k1c0a'\n"
    ),
    "optional files": (
        "Could not locate the tokenizer configuration file, will try to use the model config instead.\n"
        "loading file added_tokens.json from cache at None\nloading file chat_template.jinja from cache at None\n"
    ),
    "a custom model that was allowed": (
        "A new version of the following files was downloaded from https://huggingface.co/some-lab/odd-7b:\n- "
        "modeling_odd.py\n"
        ". Make sure to double-check they do not contain any added malicious code.\n"
    ),
    "wandb": (
        "wandb: Tracking run with wandb version 0.19.1\nwandb: W&B syncing is set to `offline` in this directory.\n"
        "wandb: Run history:\nwandb: train/loss █▅▃▂▁\nwandb: Run summary:\nwandb: train/loss 0.41\n"
    ),
    "sdpa in place of flash": (
        "You are attempting to use Flash Attention 2 without specifying a torch dtype. This might lead to unexpected "
        "behaviour\nFlash Attention 2 only supports torch.float16 and torch.bfloat16 dtypes, but the current dtype in "
        "OddModel is torch.float32.\n"
    ),
    "data that talks about errors": (
        '{"messages": [{"role": "user", "content": "Why do I see a CUDA error in my code?"}, {"role": "assistant", '
        '"content": "Run it on the CPU first, and look at the labels."}]}\n'
        "Sample 12: What is a stale handle? How many files may be open?\n"
    ),
    "a shape in a report": "torch.Size([32000, 4096]) torch.bfloat16\nEmbedding(32000, 4096)\nsize of tensor a: 3\n",
    "resumes": "Continuing training from checkpoint, will skip to saved global_step\n  Continuing training from "
               "epoch 1\n",
    "no GPU, and goes on without": (
        "UserWarning: CUDA initialization: CUDA unknown error - this may be due to an incorrectly set up environment, "
        "e.g. changing env variable CUDA_VISIBLE_DEVICES after program start. (Triggered internally at "
        "../c10/cuda/CUDAFunctions.cpp:108.)\n  return torch._C._cuda_getDeviceCount() > 0\n"
    ),
}  # fmt: skip
