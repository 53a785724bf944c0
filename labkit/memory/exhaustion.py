"""Exhaustion: whether an error of any library says that the GPU's memory is used up.

Texts are read without importing torch.
"""

import re

FULL_BYTES = 2**29
"""What is left of a GPU that is full: less than a library's handle with its workspace and code may need; assumed."""

LAST_LINES = 20
"""Lines at the end of a log in which a library may say why it has ended the process."""

_CERTAIN = re.compile(
    r"CUDA out of memory"  # as DeepSpeed and others say it again
    r"|CUDA (?:driver )?error: out of memory"  # torch 2.13, AcceleratorError: a context, or code loaded at first use
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation"
    r"|Triton Error \[CUDA\]: out of memory"
    r"|Cuda failure (?:2 )?'out of memory'"  # NCCL
    r"|CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
    r"|Error out of memory at line \d+ in file \S*ops\.cu"  # bitsandbytes, which then ends the process
    r"|NVML_SUCCESS == r INTERNAL ASSERT FAILED"  # the allocator, where it may not ask NVML for its message's numbers
)

_AMBIGUOUS = re.compile(
    r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR)\b|CUDNN_STATUS_EXECUTION_FAILED\b"
    r"|Unable to find a valid cuDNN algorithm|unable to find an engine to execute this computation"
)
"""What libraries say when memory is used up, but also for a wrong index or a mixed installation."""


def says_exhausted(text: str) -> bool:
    """Whether ``text`` can mean nothing but that the GPU has no memory left."""
    return bool(_CERTAIN.search(text))


def ends_exhausted(log: str) -> bool:
    """Whether the log of a process, which is all that is left of it, says so; bitsandbytes ends a process like this."""
    return says_exhausted("\n".join(log.strip().splitlines()[-LAST_LINES:]))


def is_exhausted(error: BaseException) -> bool:
    """Whether ``error`` means that the GPU has no memory left, be it outside of torch's allocator.

    Where the words say less, the GPU is looked at: call it at once, before anything is freed. Host memory is none of
    it.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):  # as all of torch's are, and those of who calls CUDA through it
        return False
    return says_exhausted(str(error)) or (bool(_AMBIGUOUS.search(str(error))) and _is_full())


def _is_full() -> bool:
    """Whether next to nothing is left, of the GPU or of what this process may reserve; False where CUDA is no more."""
    import torch

    if not torch.cuda.is_initialized():
        return False
    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        allowed_bytes = torch.cuda.get_per_process_memory_fraction() * total_bytes
        return min(free_bytes, allowed_bytes - torch.cuda.memory_reserved()) < FULL_BYTES
    except RuntimeError:  # after some errors it answers nothing any more
        return False
