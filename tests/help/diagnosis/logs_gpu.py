"""Logs that end on a GPU, in its driver, or in a container."""

from log_parts import DEEPSPEED, LOADING, SRUN, STEPS, TORCHRUN, Told, packages, trace

TRAIN = "train.py:66:main:trainer.train()"
BACKWARD = (
    f"{packages('torch/autograd/graph.py')}:824:_engine_run_backward:return Variable._execution_engine.run_backward("
)
ASYNC = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)
PULLED = "Status: Downloaded newer image for ghcr.io/some-lab/train:2.1\n"
DAEMON = "docker: Error response from daemon: "
HOOK = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: error running prestart hook #0: exit status 1, "
    "stdout: , stderr: Auto-detected mode as 'legacy'\n"
)

LOGS = (
    Told(
        "gpu_lost",
        STEPS
        + "Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.  Reboot the system to recover "
        "this GPU\n" + SRUN,
        ("does not answer", "dmesg", "--exclude"),
        ("batch",),
    ),
    Told(
        "gpu_lost",
        STEPS
        + "Mar 11 10:41:07 node07 kernel: NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the "
        "bus.\n",
        ("dmesg",),
        ("memory ran out",),
    ),
    Told(
        "gpu_memory_faulty",
        trace("RuntimeError: CUDA error: uncorrectable ECC error encountered" + ASYNC, TRAIN, BACKWARD, before=STEPS),
        ("hardware", "ROW_REMAPPER"),
        ("batch", "full"),
    ),
    Told(
        "fabric_manager",
        trace(
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
            "NumCudaDevices() that might have already set an error? Error 802: system not yet initialized",
            "train.py:20:main:torch.cuda.set_device(0)",
            before="",
        ),
        ("nvidia-fabricmanager",),
        ("memory",),
    ),
    Told(
        "driver_compat",
        trace(
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
            "NumCudaDevices() that might have already set an error? Error 803: system has unsupported display driver / "
            "cuda driver combination",
            "train.py:20:main:torch.cuda.set_device(0)",
            before="",
        ),
        ("compat", "reboot"),
        ("fabric",),
    ),
    Told(
        "container_lost_gpu",
        STEPS + "Failed to initialize NVML: Unknown Error\n",
        ("docker restart", "cgroupfs"),
        ("memory",),
    ),
    Told(
        "container_toolkit",
        PULLED + DAEMON + 'could not select device driver "" with capabilities: [[gpu]].\n',
        ("nvidia-container-toolkit", "nvidia-ctk"),
        ("memory",),
    ),
    Told(
        "container_cuda_newer",
        PULLED + DAEMON + HOOK + "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please "
        "update your driver to a newer version, or use an earlier cuda container: unknown\n",
        ("CUDA 12.8", "NVIDIA_DISABLE_REQUIRE"),
        ("VERSION",),
    ),
    Told(
        "container_driver",
        PULLED + DAEMON + HOOK + "nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: "
        "cannot open shared object file: no such file or directory: unknown.\n",
        ("on the host", "nvidia-smi"),
        ("--gpus all",),
    ),
    Told(
        "libcuda_missing",
        trace(
            "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
            f"{packages('triton/runtime/driver.py')}:9:_create_driver:return actives[0]()",
            before="",
        ),
        ("--gpus all", "--nv"),
        ("another CUDA",),
    ),
    Told(
        "cuda_library_mixed",
        trace(
            "ImportError: /opt/env/lib/python3.11/site-packages/torch/lib/../../nvidia/cusparse/lib/libcusparse.so.12: "
            "undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12",
            f"{packages('torch/__init__.py')}:367:<module>:from torch._C import *",
            before="",
        ),
        ("unset LD_LIBRARY_PATH",),
        ("flash",),
    ),
    Told(
        "cuda_library_missing",
        trace(
            "ImportError: libcudart.so.11.0: cannot open shared object file: No such file or directory",
            "train.py:5:<module>:import odd_kernels",
            before="",
        ),
        ("libcudart.so.11.0", "torch.version.cuda"),
        ("LIBRARY",),
    ),
    Told(
        "torch_without_cuda",
        trace(
            "AssertionError: Torch not compiled with CUDA enabled",
            f"{packages('torch/cuda/__init__.py')}:522:_lazy_init:raise AssertionError",
            before="",
        ),
        ("+cpu", "build"),
        ("memory",),
    ),
    Told(
        "checkpoint_from_gpu",
        trace(
            "RuntimeError: Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is "
            "False. If "
            "you are running on a CPU-only machine, please use torch.load with map_location=torch.device('cpu')",
            "evaluate.py:12:<module>:state = torch.load('best.pt')",
            before="",
        ),
        ("map_location='cpu'",),
        ("cut",),
    ),
    Told(
        "mig_several",
        trace(
            "RuntimeError: device >= 0 && device < num_gpus INTERNAL ASSERT FAILED at "
            '"../aten/src/ATen/cuda/CUDAContext.cpp":49, please report a bug to PyTorch. device=, num_gpus=',
            "train.py:21:main:torch.cuda.get_device_properties(1)",
            after=TORCHRUN,
        ),
        ("MIG", "one slice"),
        ("memory ran out",),
    ),
    Told(
        "gpu_ordinal",
        trace(
            "RuntimeError: CUDA error: invalid device ordinal" + ASYNC,
            "train.py:20:main:torch.cuda.set_device(rank)",
            before="",
            after=TORCHRUN,
        ),
        ("LOCAL_RANK", "nproc_per_node"),
        ("memory",),
    ),
    Told(
        "gpu_busy",
        trace(
            "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable" + ASYNC,
            "train.py:33:main:model.to('cuda')",
        ),
        ("compute mode", "another GPU"),
        ("smaller batch",),
    ),
    Told(
        "cuda_forked",
        trace(
            "RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, "
            "you must use "
            "the 'spawn' start method",
            "data.py:30:__getitem__:return pixels.to('cuda')",
        ),
        ("__getitem__", "notebook_launcher"),
        ("memory",),
    ),
    Told(
        "labels_out_of_range",
        STEPS
        + "../aten/src/ATen/native/cuda/Loss.cu:250: nll_loss_forward_reduce_cuda_kernel_2d: block: [0,0,0], thread: "
        "[3,0,0] Assertion `t >= 0 && t < n_classes` failed.\n"
        + trace("RuntimeError: CUDA error: device-side assert triggered" + ASYNC, TRAIN, BACKWARD, before=""),
        ("num_labels", "label"),
        ("memory",),
    ),
    Told(
        "labels_out_of_range",
        trace(
            "IndexError: Target 7 is out of bounds.",
            TRAIN,
            f"{packages('torch/nn/functional.py')}:3500:cross_entropy:return torch._C._nn.cross_entropy_loss(",
        ),
        ("num_labels",),
        ("cuda",),
    ),
    Told(
        "sampling_nan",
        trace(
            "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0",
            f"{packages('transformers/generation/utils.py')}:2900:_sample:next_tokens = torch.multinomial(probs, 1)",
        ),
        ("bfloat16", "NaN"),
        ("memory",),
    ),
    Told(
        "index_out_of_bounds",
        STEPS
        + "../aten/src/ATen/native/cuda/ScatterGatherKernel.cu:144: operator(): block: [12,0,0], thread: [64,0,0] "
        'Assertion `idx_dim >= 0 && idx_dim < index_size && "index out of bounds"` failed.\n'
        + trace("RuntimeError: CUDA error: device-side assert triggered" + ASYNC, TRAIN, before=""),
        ("max_position_embeddings",),
        ("label",),
    ),
    Told(
        "cuda_assert",
        trace("RuntimeError: CUDA error: device-side assert triggered" + ASYNC, TRAIN, BACKWARD, before=STEPS),
        ("CUDA_LAUNCH_BLOCKING=1",),
        ("memory",),
    ),
    Told(
        "illegal_access",
        trace(
            "RuntimeError: CUDA error: an illegal memory access was encountered" + ASYNC,
            TRAIN,
            BACKWARD,
            before=STEPS,
            after=TORCHRUN,
        ),
        ("CUDA_LAUNCH_BLOCKING=1", "sdpa"),
        ("smaller batch", "advise", "full"),
    ),
    Told(
        "illegal_access",
        STEPS + "Error an illegal memory access was encountered at line 90 in file /src/csrc/ops.cu\n" + DEEPSPEED,
        ("bitsandbytes",),
        ("full",),
    ),
    Told(
        "kernel_crash",
        trace("RuntimeError: CUDA error: unspecified launch failure" + ASYNC, TRAIN, BACKWARD, before=STEPS),
        ("CUDA_LAUNCH_BLOCKING=1", "xid"),
        ("smaller batch",),
    ),
    Told(
        "kernel_crash",
        trace("torch.AcceleratorError: CUDA error: misaligned address" + ASYNC, TRAIN, BACKWARD, before=STEPS),
        ("kernel",),
        ("full",),
    ),
    Told(
        "cudnn",
        trace(
            "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
            TRAIN,
            f"{packages('torch/nn/modules/conv.py')}:549:_conv_forward:return F.conv2d(",
        ),
        ("LD_LIBRARY_PATH", "nvidia-smi"),
        ("advise",),
    ),
    Told(
        "cublas",
        trace(
            "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling "
            "`cublasGemmStridedBatchedEx(handle, opa, "
            "opb, (int)m, (int)n, (int)k, (void*)&falpha, a, CUDA_R_16BF, (int)lda, stridea)`",
            TRAIN,
            before=LOADING,
            after=DEEPSPEED,
        ),
        ("bf16", "CUDA_LAUNCH_BLOCKING=1"),
        ("memory ran out",),
    ),
    Told(
        "cuda_unknown",
        trace(
            "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing "
            "env variable CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero.",
            before="",
        ),
        ("nvidia_uvm", "before Python starts"),
        ("memory",),
    ),
)
