"""GPUs: memory that ran out outside of PyTorch's own message, drivers, and GPUs that cannot do what was asked."""

from labkit.help.diagnosis.symptoms.symptom import symptom

SYMPTOMS = (
    symptom(
        "index_out_of_range",
        r"(?:srcIndex|idx|index|ind) ?< ?\w{0,30}(?:SelectDimSize|num_embeddings|size)\w{0,30}` failed"
        r"|indexSelect(?:Large|Small)Index.{0,120}Assertion|\b\w{1,60}\.cu:\d+: .{0,160}Assertion `.{0,80}` failed"
        r"|^IndexError: index out of range in self",  # torch 1.4 to 2.13, aten/src/ATen/native/cuda/Indexing.cu
        "An index lies outside of its table: most often a token id outside of the embedding, since tokens (such as "
        "[PAD]) were added and the embedding was not resized; with a loss, a label outside of its classes. It is not "
        "memory, and errors of CUDA or cuBLAS after it follow from it.",
        "model.resize_token_embeddings(len(tokenizer))  # after tokens were added, before training",
        "CUDA_VISIBLE_DEVICES= python ...  # on the CPU the same fault is 'index out of range in self', with its line",
        "CUDA_LAUNCH_BLOCKING=1 python ...  # on the GPU: the trace then names the true line",
    ),
    symptom(
        "gpu_memory",
        r"(?:CUDA|HIP|XPU|NPU|MUSA)\s+out\s+of\s+memory|MPS backend out of memory|torch\.(?:cuda\.)?OutOfMemoryError",
        "The GPU ran out of memory; the message's numbers cannot be read.",
        "nvidia-smi  # who holds the GPU",
        "{fit}",
    ),
    symptom(
        "gpu_full",
        r"NVML_SUCCESS == r",  # c10/cuda/CUDACachingAllocator.cpp; pytorch issue 112377
        "The GPU ran out of memory, in disguise: on a slice of a GPU (MIG), or in a container that may not ask NVML, "
        "PyTorch fails while it gathers the numbers for its message.",
        "nvidia-smi -L  # how large the slice is, and which one the program got",
        "{fit}",
    ),
    symptom(
        "gpu_full",
        r"No executable batch size found, reached zero",  # accelerate, utils/memory.py
        "The GPU is full even with a batch of one sample: the automatic search for a batch size came down to zero.",
        "{fit:no-batch}",
    ),
    symptom(
        "gpu_full",
        r"No available memory for the cache blocks"
        r"|Free memory on device \([\d./]+ GiB\) on startup is less than desired",
        "The GPU has no room for what vLLM wants to keep: it takes a fixed share of the whole GPU for its cache when "
        "it "
        "starts, and the model, or the training on the same GPU, has left less than that.",
        "gpu_memory_utilization=0.3  # vLLM's share (TRL: vllm_gpu_memory_utilization): less next to a training, more "
        "where it is alone and the model fills it",
        "max_model_len=...  # shorter sequences want a smaller cache",
        "nvidia-smi  # who else holds the GPU",
    ),
    symptom(
        "gpu_other_process",
        r"(?:_lazy_init|_cuda_init|emptyCache|empty_cache|set_device|_cuda_setDevice|current_device|manual_seed)"
        r"[^\n]{0,200}\n(?:[^\n]{0,300}\n){0,3}?[^\n]{0,200}CUDA error: (?:out of memory"
        r"|all CUDA-capable devices are busy)"
        r"|CUDA-capable device\(s\) is/are busy or unavailable",  # torch 1.x to 2.13
        "The GPU had no memory left for this process even to begin (its CUDA context, outside of PyTorch's allocator): "
        "somebody else's process holds this GPU, number 0 unless another was chosen.",
        "nvidia-smi  # who holds which GPU, and which one is free",
        "export CUDA_VISIBLE_DEVICES=1  # the number of a free GPU, before the program starts",
    ),
    symptom(
        "gpu_full",
        r"CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|Cuda failure (?:2 )?'out of memory'"
        r"|cudaErrorMemoryAllocation"
        r"|cuda runtime error \(2\) ?: out of memory|Failed to CUDA calloc|Error out of memory at line"
        r"|RESOURCE_EXHAUSTED: Out of memory|ResourceExhaustedError|OOM when allocating tensor"
        r"|bfc_arena.{0,80}Failed to allocate memory",
        "The GPU ran out of memory outside PyTorch's allocator (a library's workspace, NCCL or the CUDA context), so "
        "the message has no numbers.",
        "nvidia-smi  # who holds the GPU; choose a free one with CUDA_VISIBLE_DEVICES",
        "{fit}",
    ),
    symptom(
        "gpu_full",
        r"CUBLAS_STATUS_(?:ALLOC_FAILED|NOT_INITIALIZED)|CUDNN_STATUS_(?:ALLOC_FAILED|NOT_INITIALIZED)"
        r"|cuDNN error: CUDNN_STATUS_INTERNAL_ERROR|CUSOLVER_STATUS_ALLOC_FAILED",
        "A CUDA library could not make its handle or workspace: most often the GPU is full outside of PyTorch's "
        "allocator, so the message has no numbers. An index outside of its table can end like this too.",
        "nvidia-smi  # whether it is full, and who holds it",
        "CUDA_LAUNCH_BLOCKING=1 python ...  # if it is not full: the true error comes earlier",
        "{fit}",
        tier="sign",
    ),
    symptom(
        "driver_mismatch",
        r"driver on your system is too old(?: \(found version \d+\))?"  # torch 2.x
        r"|CUDA driver version is insufficient for CUDA runtime version|Driver/library version mismatch"
        r"|forward compatibility was attempted on non supported HW|Found no NVIDIA driver on your system"
        r"|Installed CUDA version [\d.]+ does not match the version torch was compiled with",  # DeepSpeed 0.19
        "The GPU's driver and this build of PyTorch do not go together: the driver must be as new as PyTorch's CUDA.",
        "nvidia-smi  # 'CUDA Version' in its first lines is the newest that the driver can do",
        "python -c 'import torch; print(torch.version.cuda)'  # what PyTorch was built for",
        "sudo apt install nvidia-driver-580-server && sudo reboot  # a driver for CUDA 13; for CUDA 12 take 570",
    ),
    symptom(
        "no_gpu",
        r"No CUDA GPUs are available|no CUDA-capable device is detected|invalid device ordinal"
        r"|Torch not compiled with CUDA enabled|Attempting to deserialize object on a CUDA device but"
        r"|No supported gpu backend found|HIP error: invalid device ordinal",
        "The process sees no GPU, or not the one that it asks for: CUDA_VISIBLE_DEVICES names one that is not there or "
        "is empty, the Slurm job asked for none, the container was started without GPUs, or this PyTorch is a build "
        "for CPUs.",
        "echo \"$CUDA_VISIBLE_DEVICES\"; nvidia-smi -L  # numbers start at 0; 'unset CUDA_VISIBLE_DEVICES' shows all",
        "#SBATCH --gres=gpu:1  # under Slurm: a job sees only the GPUs that it asked for",
        "docker run --gpus all ...  # in a container (Apptainer: --nv)",
        "python -c 'import torch; print(torch.version.cuda)'  # None is a build for CPUs",
    ),
    symptom(
        "unsupported_gpu",
        r"no kernel image is available|CUDA capability sm_\d+ is not compatible|does not include kernels for this GPU"
        r"|Bfloat16 is only supported on GPUs with compute capability|setup doesn't support bf16"
        r"|FlashAttention only supports Ampere GPUs|requires compute capability",
        "This GPU cannot do what was asked: PyTorch has no code for its compute capability, or it has no bf16.",
        "nvidia-smi --query-gpu=name,compute_cap --format=csv  # bf16 needs 8.0 (A100) or more; a V100 has 7.0",
        "{run:precision=32-true}  # a V100 or older; 16-mixed where memory is short",
        "{doctor}  # what this machine has, against what the run needs",
        "python -c 'import torch; print(torch.cuda.get_arch_list())'  # what this PyTorch has code for",
    ),
)
