"""Ends on a GPU that are not about its memory: hardware, driver, container, which device, kernels that crash.

A comment names where the text was read: an issue of a public tracker, or the release of an installed library.
"""

from labkit.help.diagnosis.symptoms.wrapped import wrapped

SYMPTOMS = (
    # -- hardware
    wrapped(
        "gpu_lost",
        # NVIDIA/open-gpu-kernel-modules#387, #507 (heat, power, the slot); OWOD#81; gpud#604
        r"fallen off the bus"
        r"|Unable to determine the device handle for GPU"
        r"|GPU is lost\b"
        r"|Xid \(PCI:[\w:.]{1,40}\): (?:79|119|120)\b",
        "The GPU does not answer the machine any more. That is heat, power, its slot or its firmware, not the program.",
        "sudo dmesg -T | grep -i -E 'xid|nvrm'  # the driver's own words; hand them to who runs the machine",
        "#SBATCH --exclude=NODE  # under Slurm: another node, until this one is repaired",
        "sudo nvidia-smi -pl 250  # less power, if it happens under load; a restart of the machine brings it back",
        "trainer.train(resume_from_checkpoint=True)  # there; Lightning: trainer.fit(model, ckpt_path='last')",
    ),
    wrapped(
        "gpu_memory_faulty",
        # vllm#5222 (other hardware, or a restart); DeepFaceLab_Linux#89; ChatGLM3#681; sglang#3204
        r"uncorrectable ECC error"
        r"|uncorrectable NVLink error"
        r"|CUDA_ERROR_ECC_UNCORRECTABLE"
        r"|Xid \(PCI:[\w:.]{1,40}\): (?:48|63|64|74|94|95)\b",
        "The GPU's memory or its link returned a wrong value that cannot be repaired. That is the hardware, not the "
        "program.",
        "nvidia-smi -q -d ECC,ROW_REMAPPER  # the counters; pending rows are repaired by a restart of the machine",
        "#SBATCH --exclude=NODE  # under Slurm: another node, and tell who runs it",
        "trainer.train(resume_from_checkpoint=True)  # there; Lightning: trainer.fit(model, ckpt_path='last')",
    ),
    # -- driver and containers
    wrapped(
        "fabric_manager",
        # pytorch#35710; gpustack#1254, #4154; dorado#1214 (its version must be the driver's)
        r"Error 802: system not yet initialized"
        r"|cuda runtime error \(802\)"
        r"|CUDA_ERROR_SYSTEM_NOT_READY",
        "A machine with NVSwitch (A100, H100 and later) needs the fabric manager, and it does not run.",
        "sudo systemctl start nvidia-fabricmanager  # and 'status' says why it does not",
        "sudo apt install nvidia-fabricmanager-570  # of exactly the version of the driver ('nvidia-smi', first line)",
    ),
    wrapped(
        "driver_compat",
        # vllm#15335 and the 803 it quotes; CUDA's compatibility package in a container
        r"Error 803: system has unsupported display driver"
        r"|CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "The driver's kernel module and the libcuda that the program found are of different versions.",
        "export LD_LIBRARY_PATH=$(echo $LD_LIBRARY_PATH | tr ':' '\\n' | grep -v compat | paste -sd:)  # a "
        "container's 'compat' libcuda is older than the driver",
        "sudo reboot  # after the driver was updated, the old module is still loaded",
    ),
    wrapped(
        "container_lost_gpu",
        # nvidia-container-toolkit#48, #251, #1227; nvidia-docker#1671, #1730
        r"Failed to initialize NVML: Unknown Error",
        "The container had its GPU and lost it: a 'systemctl daemon-reload' on the host takes it away.",
        "docker restart CONTAINER  # a container that has lost its GPU does not get it back",
        '"exec-opts": ["native.cgroupdriver=cgroupfs"]  # in the host\'s /etc/docker/daemon.json: it does not recur',
        "docker run --gpus all --device=/dev/nvidia0 --device=/dev/nvidiactl --device=/dev/nvidia-uvm ...  # or this",
    ),
    wrapped(
        "container_toolkit",
        # nvidia-docker#1034, #1088; LlamaFactory#5268; ragflow#9573
        r"could not select device driver \S{2,12} with capabilities: \[\[gpu",
        "Docker does not know how to give a GPU to a container: NVIDIA's toolkit is not installed on the host, or not "
        "set up.",
        "sudo apt install nvidia-container-toolkit  # on the host",
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
    ),
    wrapped(
        "container_cuda_newer",
        # nvidia-docker#1442; nvidia-container-toolkit#152 (the variable); llama.cpp#9665; Kokoro-FastAPI#341
        r"unsatisfied condition: cuda ?>= ?(?P<version>[\d.]+)",
        "The image wants a driver for CUDA {version}, and the host's driver is older.",
        "nvidia-smi  # on the host: 'CUDA Version' is the newest that its driver can do; take an image of that or less",
        "sudo apt install nvidia-driver-570-server && sudo reboot  # on the host: a newer driver",
        "docker run -e NVIDIA_DISABLE_REQUIRE=true ...  # skips the check; minor versions often work nevertheless",
    ),
    wrapped(
        "container_driver",
        # nvidia-container-toolkit#154; libnvidia-container#231; docker/for-win#13835 (no driver at all)
        r"nvidia-container-cli: (?:initialization|mount|ldcache|device|container) error",
        "The container could not be given the GPU: the host has no working NVIDIA driver where the toolkit looks.",
        "nvidia-smi  # on the host, outside of any container: it must list the GPU",
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker  # after a new driver",
        "docker info | grep -i -E 'root dir|rootless|snap'  # Docker from a snap or Docker Desktop does not see it",
    ),
    wrapped(
        "libcuda_missing",
        # bitsandbytes#487; proteinfold and vllm reports; the driver's library, not the toolkit's
        r"libcuda\.so(?:\.1)?: cannot open shared object file"
        r"|libnvidia-ml\.so(?:\.1)?: cannot open shared object file",
        "The driver's own library is not there: no driver on this machine, or a container that was not given a GPU.",
        "docker run --gpus all ...  # or 'apptainer exec --nv': only then is the driver's library inside",
        "srun --gres=gpu:1 --pty nvidia-smi  # on a login node there is no GPU: ask for one",
    ),
    wrapped(
        "cuda_library_mixed",
        # pytorch#111469, #119932, #131312, #134929 (LD_LIBRARY_PATH, or a second CUDA from pip); nccl#1180; psifx#16
        r"undefined symbol: (?:__nvJitLink|nccl|cublas|cudnn|cusparse)\w*"
        r"|symbol __nvJitLink\w+, version \S{1,60} not defined",
        "PyTorch loads a CUDA library of another version than its own, so 'import torch' fails.",
        "unset LD_LIBRARY_PATH  # a CUDA toolkit or module there comes before PyTorch's own libraries",
        "pip list | grep -E 'nvidia|torch'  # packages for CUDA 11 beside CUDA 12 are the other reason",
        "pip install --force-reinstall torch torchvision  # brings the libraries that it was built with",
    ),
    wrapped(
        "cuda_library_missing",
        # bitsandbytes#1559, xformers#516, vllm reports: built for another major CUDA
        r"lib(?P<library>cudart|cublas|cublasLt|cudnn\w{0,24}|nccl|nvrtc|cusparse|cufft|curand|cupti|nvJitLink)\.so"
        r"(?P<version>[.\d]{0,12}): cannot open shared object file",
        "A package was compiled for another CUDA than the one of PyTorch: lib{library}.so{version} is not here.",
        "python -c 'import torch; print(torch.__version__, torch.version.cuda)'  # what PyTorch was built for",
        "pip install --force-reinstall --no-cache-dir PACKAGE  # the one named in the trace, for this CUDA",
    ),
    wrapped(
        "torch_without_cuda",
        # torch 2.13, cuda/__init__.py; accelerate and lightning reports
        r"Torch not compiled with CUDA enabled",
        "The PyTorch installed is the build without CUDA: pip or conda took the CPU one.",
        "python -c 'import torch; print(torch.__version__, torch.version.cuda)'  # '+cpu' or None: the wrong build",
        "pip install --force-reinstall torch  # with the index that pytorch.org gives for your driver",
    ),
    wrapped(
        "checkpoint_from_gpu",
        # torch 2.13, serialization.py
        r"Attempting to deserialize object on (?:a )?CUDA device",
        "The checkpoint was saved on a GPU (or on another one), and this process does not see such a device.",
        "torch.load(FILE, map_location='cpu')  # loads it anywhere; move the model afterwards",
        "nvidia-smi  # does this process see a GPU at all? CUDA_VISIBLE_DEVICES, --gpus all, --gres=gpu:1",
    ),
    # -- which device
    wrapped(
        "mig_several",
        # pytorch#130181, #102715 (one process sees one slice); nccl#1716; dorado#812
        r"device >= 0 && device < num_gpus[^\n]{0,40}INTERNAL ASSERT FAILED"
        r"|device_index >= 0 && device_index < num_gpus",
        "The GPU is cut into MIG slices, and a process sees one slice only, however many it was given.",
        "nvidia-smi -L  # the slices with their UUIDs",
        "CUDA_VISIBLE_DEVICES=MIG-UUID python train.py  # one process, one slice; DDP over slices does not work",
        "#SBATCH --gres=gpu:1  # under Slurm: one larger slice, or a whole GPU, in place of several",
    ),
    wrapped(
        "gpu_ordinal",
        # torch 2.13; torchrun with more processes than GPUs, CUDA_VISIBLE_DEVICES=1 on one GPU
        r"CUDA error: invalid device ordinal"
        r"|CUDA_ERROR_INVALID_DEVICE\b",
        "A process asked for a GPU by a number that there is not: more processes than GPUs, or a number of another "
        "machine.",
        "nvidia-smi -L ; echo $CUDA_VISIBLE_DEVICES  # the GPUs here are counted from 0 within that list",
        "torchrun --nproc_per_node=N train.py  # N is the number of GPUs; num_processes in accelerate's config",
        "torch.cuda.set_device(int(os.environ['LOCAL_RANK']))  # not RANK, which counts over all nodes",
    ),
    wrapped(
        "gpu_busy",
        # pytorch#3871; jade-hpc-gpu#73; DIGITS#2005 (all with exclusive compute mode)
        r"CUDA-capable device(?:\(s\)|s) (?:is/)?are busy or unavailable"
        r"|CUDA_ERROR_DEVICE_UNAVAILABLE",
        "The GPU is reserved by another process (exclusive compute mode), or its MIG slice is gone.",
        "nvidia-smi -q -d COMPUTE | grep -i mode  # Exclusive_Process lets one process in",
        "nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv  # who has it; end what is yours",
        "CUDA_VISIBLE_DEVICES=1 python train.py  # another GPU; 'sudo nvidia-smi -c 0' admits several processes",
    ),
    wrapped(
        "cuda_unknown",
        # pytorch#49081, #60600; a warning with the same words begins 'CUDA initialization'
        r"RuntimeError: CUDA unknown error - this may be due to"
        r"|(?:RuntimeError|AcceleratorError): CUDA error: unknown error",
        "CUDA could not be started: its driver modules are in a bad state (often after standby), or "
        "CUDA_VISIBLE_DEVICES was changed after the program had begun.",
        "nvidia-smi ; python -c 'import torch; torch.cuda.init()'  # does the smallest program fail as well",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm  # loads the module again; after standby that is enough",
        "CUDA_VISIBLE_DEVICES=0 python train.py  # set it before Python starts, not in the program",
    ),
    wrapped(
        "cuda_forked",
        # pytorch#40403; accelerate#940; spconv#408 (CUDA in a data set); lightning 2.6
        r"Cannot re-initialize CUDA in forked subprocess"
        r"|RuntimeError: CUDA error: initialization error"
        r"|Lightning can't create new processes if CUDA is already initialized",
        "CUDA was used before the process was forked: in the notebook before the launch, or in a data set that loader "
        "workers run.",
        "torch.cuda.is_initialized()  # must be False before notebook_launcher: restart the kernel, load the model "
        "inside the function",
        "batch.to('cuda')  # in the training step, never in Dataset.__getitem__ or collate_fn",
        "DataLoader(..., multiprocessing_context='spawn')  # if a worker must use CUDA",
    ),
    # -- kernels that crash; what the program did wrong comes before what CUDA says of it
    wrapped(
        "labels_out_of_range",
        # pytorch#1204, #25537; Pytorch-UNet#258; LightCNN#5; super-gradients#1307 (labels or classes, always)
        r"Assertion `(?:t|cur_target|target_val|label)\b[^`\n]{0,60}n_classes` failed"
        r"|Assertion `target_val >= zero && target_val <= one` failed"
        r"|Assertion `input_val >= zero && input_val <= one` failed"
        r"|IndexError: Target (?P<label>-?\d+) is out of bounds",
        "A label is outside of the classes that the model has: they count from 0 to num_labels - 1, and -100 is "
        "ignored.",
        "print(min(labels), max(labels), model.config.num_labels)  # the two must fit",
        "from_pretrained(..., num_labels=N)  # one for each class; labels that start at 1 want one less",
        "label_pad_token_id=-100  # padding must not be a class of its own",
    ),
    wrapped(
        "sampling_nan",
        # lit-llama#460; xtuner#573; modelscope#909; MiniCPM-V#549 (16-bit overflow)
        r"probability tensor contains either `?inf`?, `?nan`? or element < 0",
        "The model's output is NaN or infinite while it generates: its weights are, or 16-bit floats overflowed.",
        "torch_dtype=torch.bfloat16  # in place of float16, which ends at 65504; needs compute capability 8.0",
        "grep -n -i nan LOG  # a loss that became NaN before means that the weights are lost: lower learning_rate",
    ),
    wrapped(
        "index_out_of_bounds",
        # torch's ScatterGatherKernel.cu, IndexKernel.cu
        r"Assertion `[^`]{0,80}(?:index out of bounds|idx_dim < index_size|index < sizes\[i\])[^`]{0,60}` failed",
        "A kernel was given an index outside of its tensor: a position beyond the longest input, or a wrong mask.",
        "CUDA_LAUNCH_BLOCKING=1 python train.py  # names the line; on the CPU the message has the numbers",
        "print(input_ids.shape, model.config.max_position_embeddings)  # longer samples want truncation",
    ),
    wrapped(
        "cuda_assert",
        # pytorch#1204; every other device-side assertion
        r"device-side assert triggered",
        "A check inside of a GPU kernel failed: an index or a label out of its range. The trace shows a later line.",
        "CUDA_LAUNCH_BLOCKING=1 python train.py  # the trace then ends at the line that did it",
        "CUDA_VISIBLE_DEVICES= python train.py  # on the CPU the message has the index, and the range",
        tier="follow_up",
    ),
    wrapped(
        "illegal_access",
        # GauHuman#21 (a newer CUDA); SphereFormer#31; RegTR#33; bitsandbytes' "Error an illegal memory access"
        r"an illegal memory access was encountered"
        r"|CUDA_ERROR_ILLEGAL_ADDRESS|cudaErrorIllegalAddress",
        "A GPU kernel read or wrote beyond its memory: a fault of a compiled package, or of the index it was given. It "
        "is not a matter of how much memory there is.",
        "CUDA_LAUNCH_BLOCKING=1 python train.py  # the trace then names the kernel's package",
        "attn_implementation='sdpa'  # without flash-attn; optim='adamw_torch' without bitsandbytes: is it one of them",
        "pip install -U flash-attn bitsandbytes triton  # the package that the trace names",
        "sudo dmesg -T | grep -i xid  # another number than 13 or 31 points at the hardware",
    ),
    wrapped(
        "kernel_crash",
        # torch 2.13, CUDA runtime's words; pytorch#49832; FastVideo#1008; ttfnet#9; neuraltalk2#127
        r"CUDA(?: kernel)? [eE]rror[^\n]{0,30}: (?:unspecified launch failure|misaligned address"
        r"|an illegal instruction was encountered|invalid program counter|hardware stack error)"
        r"|CUDA_ERROR_(?:LAUNCH_FAILED|MISALIGNED_ADDRESS|ILLEGAL_INSTRUCTION)"
        r"|cuda runtime error \(\d+\) : unspecified launch failure",
        "A GPU kernel crashed. That is a fault of a compiled package, or of the GPU itself if it happens at random.",
        "CUDA_LAUNCH_BLOCKING=1 python train.py  # the trace then names the kernel's package",
        "pip install -U torch flash-attn triton  # kernels for newer GPUs had such faults",
        "sudo dmesg -T | grep -i xid  # and the same run on another GPU: fails it there too?",
    ),
    wrapped(
        "cudnn",
        # LLaVA#458 (two CUDA versions); jaxlib-feedstock#329; automl#33; cudarc#113
        r"cuDNN (?:error|version incompatibility)\s?:"
        r"|CUDNN_STATUS_(?:NOT_INITIALIZED|VERSION_MISMATCH|SUBLIBRARY_VERSION_MISMATCH|EXECUTION_FAILED)\b"
        r"|Loaded runtime CuDNN library: \S{1,20} but source was compiled with",
        "cuDNN cannot be used: another version of it was found first, or the GPU had no memory left for it.",
        "unset LD_LIBRARY_PATH  # an own cuDNN there comes before the one that PyTorch brings",
        "nvidia-smi  # a GPU that is full gives the same message",
        "pip install --force-reinstall torch  # brings the cuDNN that it was built with",
        tier="sign",
    ),
    wrapped(
        "cublas",
        # DeepSpeed#294, #6723; GaussianEditor#46; SpeechGPT#37
        r"CUBLAS_STATUS_(?:NOT_INITIALIZED|EXECUTION_FAILED|NOT_SUPPORTED|INVALID_VALUE|INTERNAL_ERROR|ARCH_MISMATCH)"
        r" when calling",
        "A matrix product failed. Most often an earlier kernel had a wrong index; else another cuBLAS was found first, "
        "or the GPU cannot do the precision.",
        "CUDA_LAUNCH_BLOCKING=1 python train.py  # the first line that fails; on the CPU the message is plainer",
        "unset LD_LIBRARY_PATH  # another cuBLAS there comes before the one that PyTorch brings",
        "TrainingArguments(fp16=True, bf16=False)  # NOT_SUPPORTED with CUDA_R_16BF: bf16 wants an A100 or newer",
        tier="sign",
    ),
)
