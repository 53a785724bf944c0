"""An error says that the GPU is full, in every library's words; in doubt the GPU is asked."""

import pytest
import torch

from labkit.memory.exhaustion import FULL_BYTES, ends_exhausted, is_exhausted

GIB = 2**30

# texts of torch 2.13 (c10/cuda, ATen/cuda), NCCL, Triton and cuDNN 9, with public reports of them
CERTAIN = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 93.10 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "Triton Error [CUDA]: out of memory",
    "NCCL error in: ProcessGroupNCCL.cpp:94, unhandled cuda error\nCuda failure 'out of memory'",
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":1016, please report',
]
AMBIGUOUS = [
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasGemmEx`",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "GET was unable to find an engine to execute this computation",
]
NEVER = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: no kernel image is available for execution on the device",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`",
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
]


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 90 GiB with some bytes free, of which this process may reserve a part and has reserved some."""

    def make(free=GIB, reserved=0, allowed=1.0, answers=True):
        def info():
            if not answers:
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            return free, 90 * GIB

        for name, value in {
            "is_initialized": lambda: True, "mem_get_info": info, "memory_reserved": lambda: reserved,
            "get_per_process_memory_fraction": lambda: allowed,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, value)

    return make


@pytest.mark.parametrize("text", CERTAIN)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_what_can_mean_nothing_else_needs_no_look(text, kind):
    assert is_exhausted(kind(text))


def test_torchs_own_error_needs_no_words():
    assert is_exhausted(torch.OutOfMemoryError())


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_what_may_mean_something_else_means_it_on_a_gpu_that_is_full(gpu, text):
    assert not is_exhausted(RuntimeError(text))  # CUDA was never begun with
    gpu()
    assert not is_exhausted(RuntimeError(text))
    gpu(free=FULL_BYTES - 1)
    assert is_exhausted(RuntimeError(text))
    gpu(reserved=80 * GIB, allowed=80.2 / 90)  # the cap of a profile, with room on the device
    assert is_exhausted(RuntimeError(text))
    gpu(free=0, answers=False)  # after a kernel's error
    assert not is_exhausted(RuntimeError(text))


@pytest.mark.parametrize("text", NEVER)
def test_other_errors_are_none_on_a_full_gpu_too(gpu, text):
    gpu(free=0)
    assert not is_exhausted(RuntimeError(text))


@pytest.mark.parametrize("error", [ValueError(CERTAIN[0]), MemoryError(CERTAIN[1]), KeyboardInterrupt()])
def test_only_errors_of_a_runtime_are_asked(error):
    assert not is_exhausted(error)


def test_the_last_lines_of_a_process_without_a_trace():
    says = "Error out of memory at line 117 in file /src/csrc/ops.cu\n"  # bitsandbytes, which ends the process with 1
    assert ends_exhausted("loading\n" + says)
    assert not ends_exhausted(says + "step\n" * 30)
    # managed memory that the host has no room for
    assert not ends_exhausted("Error out of memory at line 380 in file /src/csrc/pythonInterface.c\n")
    assert not ends_exhausted("")
