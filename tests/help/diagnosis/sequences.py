"""Logs in which several things went wrong, and the end decides. None is a run without a bad end.

Error messages are those of the libraries; names, numbers and what stands around them are made up.
"""

from log_parts import DEEPSPEED, SRUN, STEPS, TORCHRUN, WANDB, packages, trace
from spellings import BACKWARD, MLP, OOM, SPELLINGS

TRAIN = "train.py:66:main:trainer.train()"
OOM_OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 512.00 MiB (GPU 0; 15.78 GiB total capacity; 14.30 GiB "
    "already "
    "allocated; 201.75 MiB free; 14.41 GiB reserved in total by PyTorch)"
)
WELL = (
    "100%|██████████| 1000/1000 [58:51<00:00,  3.53s/it]\n"
    "{'train_runtime': 3531.2, 'train_samples_per_second': 4.5, 'train_loss': 0.61, 'epoch': 3.0}\n"
)
MORE = "  4%|▍         | 40/1000 [02:24<57:36,  3.60s/it]\n{'loss': 1.1021, 'grad_norm': 0.71, 'epoch': 0.04}\n"
SIGTERM = (
    "W0612 10:41:06.100000 8121 torch/distributed/elastic/multiprocessing/api.py:897] Sending process 8141 "
    "closing signal "
    "SIGTERM\n"
)
CHILD = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
NOT_DESTROYED = (
    "[rank0]:[W612 10:41:06.5 ProcessGroupNCCL.cpp:1496] Warning: WARNING: destroy_process_group() was not "
    "called before "
    "program exit, which can leak resources.\n"
)
LIMIT = "slurmstepd: error: *** JOB 812345 ON node07 CANCELLED AT 2025-03-11T17:00:00 DUE TO TIME LIMIT ***\n"
UNDER_SLURM = "SLURM_JOB_ID=812345\n"


SEQUENCES = [
    # -- an out-of-memory that was caught
    dict(
        name="caught, the batch was skipped, ended well",
        log=STEPS + f"WARNING | trainer | skipped a batch: {OOM}\n" + MORE + WELL,
        kind=None, must=[], must_not=["memory ran out", "full"],
    ),
    dict(
        name="caught, then the time limit",
        log=UNDER_SLURM + STEPS + f"WARNING | trainer | skipped a batch: {OOM}\n" + MORE + LIMIT,
        kind="job_time_limit", must=["--time"], must_not=["batch size", "smaller batch"],
    ),
    dict(
        name="accelerate halves the batch until it fits",
        log=trace(OOM, TRAIN, MLP) + "Decreasing batch size to: 16.\n" + trace(OOM, TRAIN, MLP, before="")
        + "Decreasing batch size to: 8.\n" + STEPS + WELL,
        kind=None, must=[], must_not=["full"],
    ),
    dict(
        name="accelerate halves the batch until nothing is left",
        log=f"{OOM}\nDecreasing batch size to: 2.\n{OOM}\nDecreasing batch size to: 1.\n{OOM}\n"
        + trace("RuntimeError: No executable batch size found, reached zero.", TRAIN, before=""),
        kind="gpu_full", must=["gradient checkpointing"], must_not=["per_device_train_batch_size=1"],
    ),
    dict(
        name="caught while evaluating, then another error",
        log=STEPS + f"evaluation failed, going on: {OOM}\n" + MORE
        + trace("ValueError: Image features and image tokens do not match, tokens: 14650, features: "
                "17152", TRAIN, before=""),
        kind="image_tokens", must=["max_length=None"], must_not=["memory ran out"],
    ),
    dict(
        name="the second message is the one that ended it",
        log=STEPS + f"WARNING | skipped a batch: {OOM_OLD}\n" + MORE + trace(OOM, TRAIN, BACKWARD, before=""),
        kind="gpu_full", must=["1.25 GiB", "backward"], must_not=["512.00 MiB"],
    ),
    # -- an out-of-memory, and what follows from it
    dict(
        name="one of four ranks, the others are stopped",
        log=STEPS + "".join(f"[rank2]: {line}\n" for line in trace(OOM, TRAIN, MLP, before="").splitlines())
        + NOT_DESTROYED + SIGTERM * 3 + trace(CHILD, before="", after=TORCHRUN),
        kind="gpu_full", must=["1.25 GiB"], must_not=["SIGTERM", "--tee"],
    ),
    dict(
        name="a rank is out of memory, NCCL of another one times out",
        log=STEPS + trace(OOM, TRAIN, MLP, before="")
        + "[rank1]:[E612 10:51:08.4 ProcessGroupNCCL.cpp:607] [Rank 1] Watchdog caught collective operation timeout: "
        "WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600060 milliseconds before timing out.\n"
        + SIGTERM + trace(CHILD, before="", after=TORCHRUN),
        kind="gpu_full", must=["1.25 GiB"], must_not=["ddp_timeout"],
    ),
    dict(
        name="under DeepSpeed",
        log=STEPS + trace(OOM, TRAIN, BACKWARD, before="") + DEEPSPEED,
        kind="gpu_full", must=["1.25 GiB", "backward"], must_not=["exit code"],
    ),
    dict(
        name="the clean-up fails too",
        log=STEPS + trace(OOM, TRAIN, MLP, before="")
        + "\nDuring handling of the above exception, another exception occurred:\n\n"
        + trace("RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported "
                "at some other "
                "API call", "train.py:80:main:torch.cuda.empty_cache()", before=""),
        kind="gpu_full", must=["1.25 GiB"], must_not=["another process"],
    ),
    dict(
        name="an ignored exception at the exit",
        log=STEPS + trace(OOM, TRAIN, MLP, before="")
        + "Exception ignored in: <function DeepSpeedCPUAdam.__del__ at 0x7f2b6c1d0ca0>\nTraceback (most recent "
          "call last):\n"
        "AttributeError: 'DeepSpeedCPUAdam' object has no attribute 'ds_opt_adam'\n",
        kind="gpu_full", must=["1.25 GiB"], must_not=["ds_opt_adam'"],
    ),
    dict(
        name="wandb talks on",
        log=STEPS + trace(OOM, TRAIN, MLP, before="") + WANDB,
        kind="gpu_full", must=["1.25 GiB"], must_not=["WANDB_MODE"],
    ),
    dict(
        name="srun reports the exit code after it",
        log=UNDER_SLURM + STEPS + trace(OOM, TRAIN, MLP, before="") + SRUN,
        kind="gpu_full", must=["1.25 GiB"], must_not=["--mem="],
    ),
    # -- other chains
    dict(
        name="a loader worker is killed, Slurm says why",
        log=UNDER_SLURM + STEPS
        + trace("RuntimeError: DataLoader worker (pid 164244) is killed by signal: Killed. ", TRAIN, before="")
        + "slurmstepd: error: Detected 1 oom_kill event in StepId=812345.0. Some of the step tasks have been "
          "OOM Killed.\n",
        kind="host_out_of_memory", must=["--mem"], must_not=["swap", "GPU is full"],
    ),
    dict(
        name="offline warnings, then an error of its own",
        log="'(MaxRetryError(\"HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: "
        "/api/models/some-lab/odd-7b\"))' thrown while requesting HEAD https://huggingface.co/some-lab/odd-7b\n"
        "Retrying in 1s [Retry 1/5].\n" + STEPS
        + trace("RuntimeError: stack expects each tensor to be equal size, but got [3, 430, 360] at entry 0 and "
                "[3, 334, 500] "
                "at entry 1", TRAIN, before=""),
        kind="batch_stack", must=["collate_fn"], must_not=["hub"],
    ),
    dict(
        name="Ctrl-C while an error is handled",
        log=STEPS + trace("ConnectionResetError: [Errno 104] Connection reset by peer", TRAIN, before="")
        + "\nDuring handling of the above exception, another exception occurred:\n\n"
        + trace("KeyboardInterrupt", "train.py:71:main:time.sleep(30)", before=""),
        kind="interrupted", must=["Ctrl-C"], must_not=["hub"],
    ),
    dict(
        name="a forked worker's error, with the original trace",
        log=STEPS + trace(
            "RuntimeError: Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback (most "
            "recent call "
            "last):\n  File \"data.py\", line 21, in __getitem__\n    image = "
            "Image.open(path)\nFileNotFoundError: [Errno 2] No "
            "such file or directory: '/data/train/000412.jpg'\n", TRAIN, before=""),
        kind="file_missing", must=["/data/train/000412.jpg"], must_not=["num_workers=0"],
    ),
    dict(
        name="the first rank has the cause, the others lost it",
        log="[rank1]: Traceback (most recent call last):\n[rank1]: torch.distributed.DistBackendError: [1] is "
            "setting up NCCL "
        "communicator and retrieving ncclUniqueId from [0] via c10d key-value store by key '0', but "
        "store->get('0') got error: "
        "Connection reset by peer\n[rank0]: Traceback (most recent call last):\n[rank0]:   File \"train.py\", "
        "line 31, in main\n"
        "[rank0]: ValueError: Target modules {'c_attn'} not found in the base model. Please check the target "
        "modules and try "
        "again.\n" + SIGTERM + trace(CHILD, before="", after=TORCHRUN),
        kind="adapter_targets", must=["all-linear"], must_not=["NCCL_DEBUG"],
    ),
    dict(
        name="labels out of range, told as a cuBLAS error",
        log=STEPS + "../aten/src/ATen/native/cuda/Loss.cu:250: nll_loss_forward_reduce_cuda_kernel_2d: block: "
                    "[0,0,0], thread: "
        "[3,0,0] Assertion `t >= 0 && t < n_classes` failed.\n"
        + trace("RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling "
                "`cublasCreate(handle)`", TRAIN, BACKWARD,
                before=""),
        kind="labels_out_of_range", must=["num_labels"], must_not=["LD_LIBRARY_PATH"],
    ),
    dict(
        name="an ugly warning and a good end",
        log="A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.0.2 as it may crash.\n"
        "torch/utils/checkpoint.py:85: UserWarning: None of the inputs have requires_grad=True. Gradients will "
        "be None\n"
        + STEPS + WELL + NOT_DESTROYED + WANDB,
        kind=None, must=[], must_not=["numpy", "enable_input_require_grads"],
    ),
    dict(
        name="a good end, and an exception in the interpreter's exit",
        log=STEPS + WELL + "Exception ignored in: <function _ConnectionBase.__del__ at 0x7f2b>\nTraceback (most "
                           "recent call "
        "last):\nOSError: [Errno 9] Bad file descriptor\n",
        kind=None, must=[], must_not=["Bad file"],
    ),
    dict(
        name="the disk is full while it saves, after training",
        log=STEPS + WELL + trace(
            "RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 1152 vs 1046",
            f"{packages('torch/serialization.py')}:850:__exit__:self.file_like.write_end_of_file()", before="")
        + "OSError: [Errno 28] No space left on device\n",
        kind="disk_full", must=["df -h"], must_not=["cut"],
    ),
    dict(
        name="the run before, appended to by one that was cancelled",
        log=trace(OOM, TRAIN, MLP) + "\n=== restarted 2025-03-11 10:00 ===\n" + STEPS + MORE
        + "slurmstepd: error: *** STEP 812346.0 ON node07 CANCELLED AT 2025-03-11T10:41:07 ***\n",
        kind="slurm_cancelled", must=["scancel"], must_not=["1.25 GiB"],
    ),
    dict(
        name="preempted, with the echo of SIGTERM",
        log=UNDER_SLURM + STEPS
        + "slurmstepd: error: *** JOB 812345 ON node07 CANCELLED AT 2025-03-11T10:41:07 DUE TO PREEMPTION ***\n"
        + "torch.distributed.elastic.multiprocessing.api.SignalException: Process 8121 got signal: 15\n",
        kind="slurm_preempted", must=["--requeue"], must_not=["time limit"],
    ),
    dict(
        name="NaN for an hour, then generating fails",
        log=STEPS + "{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 9.1e-05, 'epoch': 0.4}\n" * 20
        + trace("RuntimeError: probability tensor contains either `inf`, `nan` or element < 0", TRAIN, before=""),
        kind="sampling_nan", must=["bfloat16"], must_not=["memory"],
    ),
    *SPELLINGS,
]  # fmt: skip
