# ruff: noqa: E501  # lines of logs are as long as programs print them
"""Logs as people bring them to public threads: error messages as libraries print them, all else in our own words.

Each has the kind of its answer, words that must be in it, and words that must not. What was right comes from the
thread: what its people found or confirmed.
"""

import textwrap

import pytest

from labkit.help.diagnosis.diagnose import diagnose_log

TRACE = "Traceback (most recent call last):\n"


def frame(path, function, code):
    return f'  File "/env/lib/python3.11/site-packages/{path}", line 12, in {function}\n    {code}\n'


def old(tried, capacity, allocated, free, reserved, gpu=0):
    """The message of torch 1.5 to 2.0."""
    return (
        f"CUDA out of memory. Tried to allocate {tried} (GPU {gpu}; {capacity} total capacity; {allocated} already "
        f"allocated; {free} free; {reserved} reserved in total by PyTorch) If reserved memory is >> allocated memory try "
        "setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management and "
        "PYTORCH_CUDA_ALLOC_CONF"
    )


def new(tried, capacity, free, own, allocated, holes, others="", spelled="capacity"):
    """The message since torch 2.1, whose first releases spell it 'capacty'."""
    return (
        f"CUDA out of memory. Tried to allocate {tried}. GPU 0 has a total {spelled} of {capacity} of which {free} is "
        f"free. {others}Including non-PyTorch memory, this process has {own} memory in use. Of the allocated memory "
        f"{allocated} is allocated by PyTorch, and {holes} is reserved by PyTorch but unallocated. If reserved but "
        "unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
    )


BAR = "".join(f" {n}%|##   | {n}/100 [{n // 10:02}:00<09:00,  3.07s/it]\n" for n in range(10, 40, 10))
CHILD_FAILED = """torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
tune.py FAILED
Root Cause (first observed failure):
[0]:
  time      : 2026-01-02_03:04:05
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 4243)
  traceback : {why}
============================================================
"""

THREADS = {
    # case 01: dmesg showed the kernel's kill, more RAM cured it
    "a rank killed under DeepSpeed": (
        BAR + "[2026-01-02 03:04:05,120] [INFO] [launch.py:319:sigkill_handler] Killing subprocess 4211\n"
        "[2026-01-02 03:04:06,120] [ERROR] [launch.py:325:sigkill_handler] ['python', '-u', 'sft.py', '--local_rank=3', "
        "'--deepspeed', 'zero3_offload.json', '--per_device_train_batch_size', '8'] exits with return code = -9\n",
        "host_out_of_memory", ["CPU RAM", "dmesg", "dataloader_num_workers", "offload"], ["labkit", "gpu_full"],
    ),
    # case 02
    "a bus error under DeepSpeed": (
        "[comm.py:616:init_distributed] Initializing TorchBackend in DeepSpeed with backend nccl\n"
        "[launch.py:315:sigkill_handler] Killing subprocess 1793\n"
        "[ERROR] [launch.py:321:sigkill_handler] ['python', '-u', 'tune.py', '--local_rank=1'] exits with return code = -7",
        "shared_memory", ["/dev/shm", "--shm-size", "--ipc=host", "SIGBUS"], ["labkit"],
    ),
    # case 03: a batch of 1 worked
    "forward of a LoRA model, torch 1": (
        TRACE + frame("../../train_lora.py", "<module>", "out = lora_vit(images)")
        + frame("torch/nn/modules/module.py", "_call_impl", "return forward_call(*input, **kwargs)")
        + frame("timm/models/vision_transformer.py", "forward", "attn = attn.softmax(dim=-1)")
        + "torch.cuda.OutOfMemoryError: " + old("1.50 GiB", "15.78 GiB", "13.19 GiB", "1.41 GiB", "13.22 GiB"),
        "gpu_full", ["1.50 GiB", "1.41 GiB", "13.19 GiB", "15.78 GiB", "forward", "batch_size", "checkpointing",
                     "LoRA"], ["expandable_segments", "Somebody else"],
    ),
    # case 04, torch 1.2
    "more is free than was asked for": (
        TRACE + frame("torch/nn/modules/module.py", "cuda", "return self._apply(lambda t: t.cuda(device))")
        + "RuntimeError: CUDA out of memory. Tried to allocate 12.50 MiB (GPU 0; 10.92 GiB total capacity; 8.57 MiB "
        "already allocated; 9.28 GiB free; 4.68 MiB cached)",
        "gpu_blocked", ["9.28 GiB", "8.57 MiB", "limit", "nvidia-smi"], ["batch", "really full"],
    ),
    # case 05: fewer pixels cured it
    "one request of a vision tower's attention": (
        "[rank0]: " + TRACE + '[rank0]:   File "/env/transformers/models/qwen2_vl/modeling_qwen2_vl.py", line 329, in forward\n'
        "[rank0]:     attn_output = F.scaled_dot_product_attention(q, k, v, attention_mask, dropout_p=0.0)\n"
        "[rank0]: torch.OutOfMemoryError: "
        + new("34.83 GiB", "44.55 GiB", "22.25 GiB", "22.29 GiB", "20.98 GiB", "901.12 MiB"),
        "gpu_full", ["34.83 GiB", "one request", "attention", "pixels", "max_pixels"],
        ["batch_size", "AdamW8bit", "LoraConfig", "really full"],
    ),
    # case 06
    "no room for a context": (
        TRACE + frame("torch/cuda/memory.py", "empty_cache", "torch._C._cuda_emptyCache()")
        + "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API "
        "call,so the stacktrace below might be incorrect.\n",
        "gpu_other_process", ["nvidia-smi", "CUDA_VISIBLE_DEVICES", "context"], ["batch"],
    ),
    # case 07
    "a worker's bus error": (
        "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).\n"
        + TRACE + "RuntimeError: DataLoader worker (pid 47) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory. Please try to raise your shared memory limit.",
        "shared_memory", ["--shm-size", "num_workers=0", "/dev/shm"], ["labkit", "kernel killed"],
    ),
    # case 08
    "a pointer in place of weights": (
        TRACE + frame("transformers/modeling_utils.py", "load_state_dict", "with safe_open(file, framework='pt') as f:")
        + "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
        "weights_file", ["git-lfs", "git lfs pull", "hf download", "130 bytes"], [],
    ),
    "a pointer read by torch.load": (
        TRACE + "_pickle.UnpicklingError: invalid load key, 'v'.", "lfs_pointer", ["git-lfs"], ["weights_only"],
    ),
    # case 09
    "a library of another torch": (
        TRACE + "ImportError: /env/flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so: undefined symbol: _ZN3c104cuda9SetDeviceEi\n"
        "\nThe above exception was the direct cause of the following exception:\n\n" + TRACE
        + "RuntimeError: Failed to import transformers.modeling_utils because of the following error",
        "extension_mismatch", ["flash-attn", "--no-build-isolation", "sdpa"], [],
    ),
    # case 10: one rank did other work
    "a collective that timed out": (
        "[rank0]:[E321 02:07:08.4 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: "
        "WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168, Timeout(ms)=600000) ran for 600060 milliseconds before "
        "timing out.\nterminate called after throwing an instance of 'c10::DistBackendError'\n"
        + CHILD_FAILED.format(code=-6, why="Signal 6 (SIGABRT) received by PID 4243"),
        "distributed_timeout", ["rank", "evaluation on one rank", "ddp_timeout"], ["NCCL_P2P"],
    ),
    # case 13
    "an optimizer that could not be compiled": (
        "FAILED: cpu_adam.o\n/env/deepspeed/ops/csrc/includes/gemm_test.h:6:10: fatal error: cuda_profiler_api.h: No such "
        "file or directory\nninja: build stopped: subcommand failed.\n" + TRACE
        + "subprocess.CalledProcessError: Command '['ninja', '-v']' returned non-zero exit status 1.\n"
        "The above exception was the direct cause of the following exception:\n" + TRACE
        + "RuntimeError: Error building extension 'cpu_adam'\nException ignored in: <function DeepSpeedCPUAdam.__del__ at "
        "0x7f>\n" + TRACE + frame("deepspeed/ops/adam/cpu_adam.py", "__del__", "self.ds_opt_adam.destroy_adam(self.opt_id)")
        + "AttributeError: 'DeepSpeedCPUAdam' object has no attribute 'ds_opt_adam'\n",
        "cpu_adam_build", ["CUDA_HOME", "toolkit", "CPU Adam"], [],
    ),
    # case 16: tokens had been added
    "an index below a cuBLAS error": (
        "".join(f"../aten/src/ATen/native/cuda/Indexing.cu:1146: indexSelectLargeIndex: block: [157,0,0], thread: [{n},0,0] "
                "Assertion `srcIndex < srcSelectDimSize` failed.\n" for n in range(88, 90))
        + TRACE + frame("torch/nn/modules/linear.py", "forward", "return F.linear(input, self.weight, self.bias)")
        + "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "index_out_of_range", ["resize_token_embeddings", "srcIndex < srcSelectDimSize", "on the CPU"], ["batch_size"],
    ),
    # case 18
    "Slurm's kill of a worker": (
        TRACE + frame("torch/utils/data/dataloader.py", "_try_get_data", "data = self._data_queue.get(timeout=timeout)")
        + "RuntimeError: DataLoader worker (pid 164244) is killed by signal: Killed. \nslurmstepd: error: Detected 1 oom-kill "
        "event(s) in StepId=11300781.0. Some of your processes may have been killed by the cgroup out-of-memory handler.\n"
        "srun: error: node001: task 0: Out Of Memory\n",
        "host_out_of_memory", ["--mem=", "num_workers", "DataLoader worker"], ["swap", "free -h", "labkit"],
    ),
    # case 19
    "a quota at home": (
        "Downloading (…)of-00002.safetensors:  41%|####      | 4.08G/9.98G [00:51<01:14, 79.2MB/s]\n" + TRACE
        + frame("huggingface_hub/file_download.py", "http_get", "temp_file.write(chunk)")
        + "OSError: [Errno 122] Disk quota exceeded",
        "quota", ["HF_HOME", "home", "scratch"], ["labkit"],
    ),
    # case 20
    "a time limit without a warning": (
        "Epoch 10:  93%|########6 | 18626/20000 [5:43:21<25:19,  0.90it/s, v_num=0txx, train_loss=3.400]\n"
        "slurmstepd: error: *** STEP 55595933.0 ON n17 CANCELLED AT 2026-01-10T15:27:25 DUE TO TIME LIMIT ***\n"
        "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.\n[rank: 0] Received SIGTERM: 15\n"
        "Bypassing SIGTERM: 15\n"
        "Epoch 10:  93%|########6 | 18627/20000 [5:43:23<25:18,  0.90it/s, v_num=0txx, train_loss=3.970]\n",
        "job_time_limit", ["--signal=SIGUSR1@90", "--requeue", "--time", "srun", "without 'B:'", "ckpt_path"], ["labkit"],
    ),
    # case 21: training was over
    "saving under FSDP": (
        "100%|##########| 1218/1218 [5:12:01<00:00, 15.37s/it]\n{'train_runtime': 18721.3, 'train_loss': 0.61}\n"
        "/env/torch/distributed/fsdp/_state_dict_utils.py:312: UserWarning: Failed to clone() tensor with name "
        "lm_head.weight. Error: " + old("502.00 MiB", "39.59 GiB", "35.54 GiB", "276.19 MiB", "37.22 GiB", gpu=1),
        "gpu_full", ["saved", "FullStateDictConfig(offload_to_cpu=True, rank0_only=True)", "batch does not matter"],
        ["per_device_train_batch_size", "Somebody else"],
    ),
    # case 24: DDP had the whole 70 B on each GPU
    "weights under DDP": (
        TRACE + frame("accelerate/accelerator.py", "prepare_model", "model = torch.nn.parallel.DistributedDataParallel(")
        + frame("torch/nn/modules/module.py", "convert", "return t.to(device, dtype if t.is_floating_point() else None)")
        + "torch.cuda.OutOfMemoryError: " + old("448.00 MiB", "79.19 GiB", "78.13 GiB", "193.56 MiB", "78.13 GiB", gpu=1)
        + "\nWARNING:torch.distributed.elastic.multiprocessing.api:Sending process 4241 closing signal SIGTERM\n"
        "ERROR:torch.distributed.elastic.multiprocessing.api:failed (exitcode: 1) local_rank: 1 (pid: 4242) of binary: "
        "/env/bin/python3\n" + CHILD_FAILED.format(code=1, why="To enable traceback see: elastic/errors.html"),
        "gpu_full", ["weights were loaded", "whole model on each GPU", "ZeRO-3", "QLoRA", "smaller one cannot help"],
        ["gradient_accumulation"],
    ),
    # case 26
    "a crash below Python": (
        "W1204 09:12:01.1 512 torch/distributed/elastic/multiprocessing/api.py:897] Sending process 530 closing signal SIGTERM\n"
        "E1204 09:12:01.5 512 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: -11) local_rank: 0 (pid: "
        "529) of binary: /env/bin/python\n" + CHILD_FAILED.format(code=-11, why="Signal 11 (SIGSEGV) received by PID 529"),
        "crashed", ["SIGSEGV", "PYTHONFAULTHANDLER=1", "flash-attn"], [],
    ),
    # case 27
    "a tracker out of reach": (
        "wandb: Network error (ConnectionError), entering retry loop.\n" + TRACE
        + "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.wandb.ai', port=443): Max retries exceeded with "
        "url: /graphql (Caused by NewConnectionError('Failed to establish a new connection: [Errno 111] Connection refused'))\n"
        "wandb.errors.CommError: Run initialization has timed out after 90.0 sec.",
        "tracker_unreachable", ["WANDB_MODE=offline", "wandb sync"], ["hub", "Hugging"],
    ),
    # case 28: srun had been forgotten
    "a rendezvous of one": (
        TRACE + frame("torch/distributed/elastic/rendezvous/dynamic_rendezvous.py", "run", "raise RendezvousTimeoutError()")
        + "torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError",
        "rendezvous_timeout", ["srun torchrun", "--rdzv-endpoint", "one node only"], [],
    ),
    # case 29: a fault in packing
    "a tensor larger than the GPU": (
        TRACE + frame("axolotl/monkeypatch/mistral_attn.py", "generate_qkv", "q_unpad, indices_q = unpad_input(")
        + frame("flash_attn/bert_padding.py", "forward", "return torch.gather(")
        + "torch.cuda.OutOfMemoryError: " + old("341.70 GiB", "79.33 GiB", "14.31 GiB", "63.21 GiB", "15.40 GiB"),
        "gpu_larger_than_gpu", ["341.70 GiB", "79.33 GiB", "shape", "torch.gather("], ["really full", "micro_batch_size"],
    ),
    # case 31
    "backward of packed attention": (
        frame("flash_attn/flash_attn_interface.py", "_flash_attn_varlen_backward", "dq, dk, dv = flash_attn_cuda.varlen_bwd(")
        + "torch.cuda.OutOfMemoryError: " + old("8.81 GiB", "23.68 GiB", "14.97 GiB", "7.56 GiB", "15.71 GiB", gpu=1),
        "gpu_full", ["backward", "attention", "8.81 GiB", "7.56 GiB", "packed"], ["Somebody else"],
    ),
    # case 33
    "a gradient twice": (
        "[rank1]: RuntimeError: Expected to mark a variable ready only once. This error is caused by one of the following "
        "reasons: 1) Use of a module parameter outside the `forward` function. 2) Reused parameters in multiple reentrant "
        "backward passes.",
        "ready_twice", ["use_reentrant", "ddp_find_unused_parameters=False", "static_graph=True"], [],
    ),
    # case 34
    "a scaler and fp16 weights": (
        TRACE + 'ValueError: Attempting to unscale FP16 gradients.', "unscale_fp16", ["fp32", "bf16"], [],
    ),
    # case 36
    "a GPU that is not there": (
        TRACE + "    torch._C._cuda_init()\nRuntimeError: No CUDA GPUs are available",
        "no_gpu", ["CUDA_VISIBLE_DEVICES", "--gres=gpu:1"], ["batch"],
    ),
    # case 38
    "a checkpoint of other objects": (
        TRACE + "_pickle.UnpicklingError: Weights only load failed. This file can still be loaded, to do so you have two "
        "options.\n\tWeightsUnpickler error: Unsupported global: GLOBAL conf.ListConfig was not an allowed global by default.",
        "weights_only", ["add_safe_globals", "weights_only=False", "2.6"], [],
    ),
    # case 39
    "an out-of-memory that was caught, hours before": (
        "10:01:11 | WARNING | trainer | ran out of memory with exception: "
        + old("1.02 GiB", "23.69 GiB", "20.11 GiB", "811.00 MiB", "21.70 GiB") + "; skipping batch\n"
        "epoch 001:  12%|#2        | 1200/10000 [1:01:22<7:31:00,  3.07s/it, loss=1.92]\n"
        "epoch 001:  78%|#######8  | 7800/10000 [6:58:41<1:52:34,  3.07s/it, loss=1.41]\n"
        "slurmstepd: error: *** JOB 991234 ON n17 CANCELLED AT 2026-05-02T17:00:00 DUE TO TIME LIMIT ***\n",
        "job_time_limit", ["survived", "--time"], ["really full"],
    ),
    # case 42
    "the spelling of torch 2.1": (
        TRACE + frame("../../train_c_lora.py", "<module>", "loss.backward()") + "torch.cuda.OutOfMemoryError: "
        + new("20.00 MiB", "23.69 GiB", "13.38 MiB", "23.66 GiB", "22.90 GiB", "363.92 MiB", spelled="capacty"),
        "gpu_full", ["23.69 GiB", "13.38 MiB", "backward"], ["Somebody else", "in pieces"],
    ),
    # case 43: the slice was too small
    "a slice that may not be asked": (
        '  0%|          | 0/30 [00:00<?, ?it/s]\n' + TRACE + frame("torch/nn/modules/linear.py", "forward", "return F.linear(x)")
        + 'RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":830, please report a '
        "bug to PyTorch. ",
        "gpu_full", ["MIG", "slice", "nvidia-smi -L"], [],
    ),
    # case 44: bf16-mixed cured it
    "a loss that is nan": (
        "iter 18: loss 2.6632, time: 64.10ms\niter 19: loss nan, time: 66.12ms\niter 20: loss nan, time: 63.90ms\n",
        "nan_loss", ["bf16-mixed"], [],
    ),
    # case 46
    "a server that still runs": (
        "[rank0]: torch.OutOfMemoryError: " + new("238.00 MiB", "22.05 GiB", "10.81 MiB", "17.05 GiB", "15.43 GiB", "1.07 GiB",
                                                  others="Process 43872 has 4.97 GiB memory in use. "),
        "gpu_other_process", ["43872", "4.97 GiB", "end "], ["batch"],
    ),
    # case 49
    "a port": (
        "RuntimeError: The server socket has failed to listen on any local network address. The server socket has failed to "
        "bind to [::]:29500 (errno: 98 - Address already in use).",
        "port_in_use", ["29500", "--master_port"], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("log", "kind", "must", "must_not"), THREADS.values(), ids=THREADS)
def test_a_log_from_a_thread_is_explained(log, kind, must, must_not):
    found = diagnose_log(log)
    said = "\n".join(found.lines())
    assert found.kind == kind, said
    assert [words for words in must if words not in said] == [], said
    assert [words for words in must_not if words in said] == [], said


# -- the end decides

OOM = TRACE + frame("../../tune.py", "step", "loss.backward()") + "torch.OutOfMemoryError: " + new(
    "2.00 GiB", "79.15 GiB", "1.23 GiB", "77.90 GiB", "77.00 GiB", "0.30 GiB")  # fmt: skip
MORE = "".join(f"step {n} loss 1.{n}\n" for n in range(500, 520))
KEY = TRACE + frame("../../tune.py", "collate", "row['text']") + "KeyError: 'text'\n"

SEQUENCES = {
    "caught, and it went on to its end": (OOM + "\n" + MORE, "no_failure"),
    "caught while a traceback was shown, and then something unknown": (OOM + "\nretrying with a batch of 4\n" + MORE + KEY, "unknown"),
    "caught, and then a full disk": (OOM + "\n" + MORE + TRACE + "OSError: [Errno 28] No space left on device", "disk_full"),
    "not caught, and other ranks follow": (
        OOM + "\n[rank0]: gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242\n"
        + CHILD_FAILED.format(code=1, why="<N/A>"), "gpu_full",
    ),
    "not caught, and the job hangs to its limit": (
        OOM + "\nslurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***", "gpu_full",
    ),
    "another rank goes on for a while": (OOM + "\n" + MORE + CHILD_FAILED.format(code=1, why="<N/A>"), "gpu_full"),
    "a bar that is drawn once more is no sign of life": (BAR + OOM + "\n" + BAR.splitlines()[-1], "gpu_full"),
    "the loss was nan once, and is a number again": (
        "step 1 loss nan\nstep 2 loss 2.0\nstep 3 loss 1.9\n" + TRACE + "OSError: [Errno 28] No space left on device",
        "disk_full",
    ),
    "a run that ended well, with warnings": (
        MORE + "UserWarning: offline mode is enabled, no updates are looked for\n{'train_runtime': 12.0}\n", "no_failure",
    ),
    "an error while Python ends": (
        OOM + "\nException ignored in: <function Pool.__del__ at 0x7f>\n" + TRACE + "OSError: [Errno 28] No space left on "
        "device\n", "gpu_full",
    ),
    "Ctrl-C in a handler": (
        OOM + "\nDuring handling of the above exception, another exception occurred:\n" + TRACE + "KeyboardInterrupt\n",
        "gpu_full",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("log", "kind"), SEQUENCES.values(), ids=SEQUENCES)
def test_the_end_decides(log, kind):
    assert diagnose_log("starting\n" + log).kind == kind


# -- spellings

MESSAGE = new("2.00 GiB", "79.15 GiB", "1.23 GiB", "77.90 GiB", "77.00 GiB", "0.30 GiB")


@pytest.mark.parametrize("width", [40, 79, 80, 81, 100, 132])
@pytest.mark.parametrize("at_words", [True, False])
def test_a_message_that_was_wrapped_is_read(width, at_words):
    lines = (
        textwrap.wrap(MESSAGE, width) if at_words else [MESSAGE[i : i + width] for i in range(0, len(MESSAGE), width)]
    )
    found = diagnose_log("torch.OutOfMemoryError:\n" + "\n".join(lines))
    assert found.kind == "gpu_full"
    assert "1.23 GiB of 79.15 GiB were free" in found.happened


@pytest.mark.parametrize("length", range(22, len(MESSAGE), 7))
def test_a_message_that_was_cut_is_still_about_the_gpus_memory(length):
    assert diagnose_log("torch.OutOfMemoryError: " + MESSAGE[:length]).kind == "gpu_full"


@pytest.mark.parametrize("text", [
    "RuntimeError: cuda runtime error (2) : out of memory at /pytorch/aten/src/THC/generic/THCStorage.cu:58",
    "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 63.98 GiB of "
    "which 0 bytes is free. Of the allocated memory 62.00 GiB is allocated by PyTorch, and 1.00 GiB is reserved by PyTorch "
    "but unallocated.",
    "RuntimeError: MPS backend out of memory (MPS allocated: 17.84 GB, other allocations: 384.00 KB, max allowed: 18.13 GB). "
    "Tried to allocate 360.00 MB on private pool.",
    "torch.OutOfMemoryError: XPU out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.56 GiB total capacity; 14.01 GiB already "
    "allocated; 14.10 GiB reserved in total by PyTorch)",
    "Error out of memory at line 380 in file /build/csrc/ops.cu",
    "RuntimeError: CUDA out of memory. Tried to allocate x GiB (GPU ?; ??",
    '{"level":"error","msg":"train failed: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"}',
], ids=lambda text: text[:40])  # fmt: skip
def test_other_allocators_and_unreadable_numbers_are_gpu_memory(text):
    assert diagnose_log(f"starting\n{text}\n").kind == "gpu_full"


@pytest.mark.parametrize("line", [
    "loss: nan", "Loss=NaN", "train_loss nan", "'loss': nan, 'grad_norm': nan", '{"loss": NaN}', "train/loss: inf",
    "loss = tensor(nan, device='cuda:0')", "| loss nan | ppl nan |", "epoch 3 - loss: nan - accuracy: 0.1", "val_loss=nan.0",
    "{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 2e-05}", "Step 12 | loss:nan | lr 1e-4", "loss -inf",
])  # fmt: skip
def test_a_loss_that_is_no_number_is_found_in_every_form(line):
    assert diagnose_log(f"step 11 loss 2.1\nstep 12 {line}\n").kind == "nan_loss"


@pytest.mark.parametrize("line", ["loss 2.1", "nanoseconds: 12", "loss info: ok", "finance loss 1.0", "infer loss 0.2"])
def test_a_loss_that_is_a_number_is_not(line):
    assert diagnose_log(f"step 12 {line}\n").kind == "no_failure"


# -- the framework's words


@pytest.mark.parametrize(("shown", "word"), [
    (frame("transformers/trainer.py", "training_step", "self.accelerator.backward(loss)"), "per_device_train_batch_size"),
    (frame("pytorch_lightning/trainer/trainer.py", "fit", "call._call_and_handle_interrupt("), "accumulate_grad_batches"),
    (frame("axolotl/cli/train.py", "do_train", "trainer.train()"), "micro_batch_size: 1"),
    (frame("torchtune/recipes/lora.py", "train", "loss.backward()"), "enable_activation_checkpointing=True"),
    (frame("deepspeed/runtime/engine.py", "backward", "self.optimizer.backward(loss)"), "train_micro_batch_size_per_gpu"),
    (frame("llamafactory/train/tuner.py", "run_exp", "run_sft("), "cutoff_len"),
    (frame("../../train.py", "main", "loss.backward()"), "batch_size="),
])  # fmt: skip
def test_the_lever_has_the_name_that_the_framework_gives_it(shown, word):
    log = TRACE + shown + frame("torch/autograd/graph.py", "_engine_run_backward", "return run_backward(")
    found = diagnose_log(log + "torch.OutOfMemoryError: " + MESSAGE)
    steps = "\n".join(found.next_steps)
    assert word in steps
    assert "labkit" not in steps
    assert "backward" in found.happened


@pytest.mark.parametrize(("shown", "words", "lever"), [
    (frame("transformers/modeling_utils.py", "from_pretrained", "model.cuda()"), "loaded", "4bit"),
    (frame("transformers/trainer.py", "evaluate", "self.evaluation_loop(") + frame("torch/nn/modules/module.py", "_call_impl",
     "return forward_call("), "evaluated", "per_device_eval_batch_size"),
    (frame("torch/optim/adamw.py", "_init_group", "state['exp_avg'] = torch.zeros_like("), "optimizer step", "8bit"),
    (frame("transformers/loss/loss_utils.py", "ForCausalLMLoss", "logits = logits.float()"), "loss", "logits"),
    (frame("transformers/trainer.py", "_save_checkpoint", "self.save_model()") + frame("torch/nn/modules/module.py",
     "state_dict", "x.clone()"), "saved", "FullStateDictConfig"),
    (frame("transformers/models/llama/modeling_llama.py", "forward", "down_proj = self.down_proj(x)"), "forward", "batch"),
    (frame("torch/optim/optimizer.py", "wrapper", "optimizer.step(closure)") + frame("lightning/pytorch/loops/x.py", "closure",
     "self.training_step()") + frame("m.py", "forward", "self.mlp(x)"), "forward", "batch"),
])  # fmt: skip
def test_the_cure_is_that_of_the_place(shown, words, lever):
    found = diagnose_log(TRACE + shown + "torch.OutOfMemoryError: " + MESSAGE)
    assert words in found.happened
    assert lever in "\n".join(found.next_steps)
