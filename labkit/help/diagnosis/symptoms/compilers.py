"""Ends of what compiles at run time or was compiled elsewhere: nvcc, gcc, Triton, torch.compile, C libraries.

A comment names where the text was read: an issue of a public tracker, or the release of an installed library.
"""

from labkit.help.diagnosis.symptoms.wrapped import wrapped

SYMPTOMS = (
    wrapped(
        "cuda_home",
        # flash-attention#779, #1736 (a prebuilt wheel needs none); cuda-toolkit#374; DeepSpeed 0.19
        r"CUDA_HOME environment variable is not set\. Please set it"
        r"|CUDA_HOME does not exist, unable to compile CUDA op",
        "A package wants to compile for CUDA, and the CUDA toolkit (nvcc) is not installed, or not where it looks.",
        "export CUDA_HOME=/usr/local/cuda  # if it has bin/nvcc; 'module load cuda' on a cluster",
        "conda install -c nvidia cuda-nvcc  # of the version that torch.version.cuda says",
        "pip install WHEEL  # a wheel built for your torch, CUDA and Python compiles nothing (flash-attn's releases)",
    ),
    wrapped(
        "toolkit_version",
        # torch 2.13, utils/cpp_extension.py; a minor difference is a warning only
        r"The detected CUDA version \((?P<found>[\d.]+)\) mismatches the version that was used to compile"
        r"(?:[^()]{0,80}PyTorch \((?P<built>[\d.]+)\))?",
        "nvcc is of CUDA {found} and PyTorch of CUDA {built}: what is compiled with one does not load into the other.",
        "module load cuda/{built}  # or conda install -c nvidia cuda-nvcc={built}",
        "export CUDA_HOME=/usr/local/cuda-{built}  # if several are installed",
    ),
    wrapped(
        "gcc_newer",
        # CUDA's crt/host_config.h
        r"unsupported GNU version! gcc versions later than (?P<version>\d+) are not supported",
        "The compiler is newer than this CUDA toolkit takes: gcc {version} at most.",
        "sudo apt install gcc-{version} g++-{version} && export CC=gcc-{version} CXX=g++-{version}",
        "export NVCC_PREPEND_FLAGS='-ccbin g++-{version}'  # nvcc alone with the older compiler",
    ),
    wrapped(
        "compiler_missing",
        # ml-cross-entropy#5; HunyuanVideoWrapper#23 (build-essential); triton's runtime/build.py
        r"Failed to find C compiler\. Please specify via CC"
        r"|No working C\+\+ compiler found"
        r"|InvalidCxxCompiler",
        "Triton or torch.compile makes machine code at run time and finds no C compiler.",
        "sudo apt install build-essential  # in a container: in its image; conda install gxx without root",
        "export CC=/usr/bin/gcc  # if it is installed elsewhere; 'module load gcc' on a cluster",
        "TORCHDYNAMO_DISABLE=1 python train.py  # without torch.compile; TrainingArguments(torch_compile=False)",
    ),
    wrapped(
        "python_headers",
        # sglang#1117; pytorch#97146, #129351 (python3-dev)
        r"Python\.h: No such file or directory",
        "Triton or torch.compile builds a small C extension, and Python's headers are not installed.",
        "sudo apt install python3-dev  # python3.11-dev and the like for another version",
        "conda install python  # a conda or uv Python brings its headers",
        "TORCHDYNAMO_DISABLE=1 python train.py  # without torch.compile",
    ),
    wrapped(
        "ptxas",
        # triton#8539 and LightLLM#176 (a newer ptxas or triton); fish-speech#907; triton server#8632
        r"ptxas\S{0,12} fatal ?:"
        r"|PTXASError|PTXAS error"
        r"|Value '(?P<arch>sm_\w+)' is not defined for option 'gpu-name'",
        "Triton's assembler is older than this GPU and does not know it.",
        "export TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas  # that of a newer CUDA toolkit",
        "pip install -U torch triton  # a release that knows the GPU",
    ),
    wrapped(
        "triton_resources",
        # triton#8182; DEST3D#2 and PainlessInferenceAcceleration#35 (fewer stages); vllm pull request 17744
        r"out of resources?: (?P<what>shared memory|registers|threads), Required: (?P<needed>\d+), Hardware limit: "
        r"(?P<limit>\d+)",
        "A Triton kernel needs {needed} of the {what} that one multiprocessor has ({limit}). This is not the GPU's "
        "memory: a smaller batch does not help.",
        "num_stages=1  # in the kernel's configuration, or smaller blocks: it was tuned for a larger GPU",
        "pip install -U PACKAGE  # the one that the trace names: newer ones choose by GPU",
        "attn_implementation='sdpa'  # without the kernel, if it is the attention's",
    ),
    wrapped(
        "libstdcxx",
        # pytorch#87279, #157709; anaconda-issues#483; slang-torch#7
        r"version `(?P<version>(?:GLIBCXX|CXXABI)_[\d.]+)' not found",
        "A compiled package needs a newer C++ library ({version}) than the one that was found first.",
        "export LD_LIBRARY_PATH=$CONDA_PREFIX/lib:$LD_LIBRARY_PATH  # conda's is newer than the system's",
        "conda install -c conda-forge libstdcxx-ng  # if conda's is too old as well; 'module load gcc' on a cluster",
        "rm -rf ~/.cache/torch_extensions  # what was compiled on a newer machine is compiled again",
    ),
    wrapped(
        "glibc_older",
        # the loader's words; manylinux wheels on an old cluster
        r"version `(?P<version>GLIBC_[\d.]+)' not found",
        "This system is older than the package was built for: it has no {version}, and that cannot be installed.",
        "ldd --version  # the system's",
        "apptainer exec --nv IMAGE.sif python train.py  # a container brings a newer system",
        "pip install PACKAGE==OLDER  # a release that was built for older systems",
    ),
    wrapped(
        "compile_failed",
        # torch._dynamo.exc, torch._inductor.exc of torch 2.0 to 2.13; triton-windows#77
        r"BackendCompilerFailed: backend='(?P<backend>\w+)' raised"
        r"|torch\._(?:dynamo|inductor)\.exc\.\w+(?:Error|Failed|Unsupported|UserError)?:",
        "torch.compile could not compile the model.",
        "TORCHDYNAMO_DISABLE=1 python train.py  # without it: slower, the same result",
        "TrainingArguments(torch_compile=False)  # torch_compile: false in axolotl's YAML",
        "pip install -U torch  # later releases fix most such faults",
        tier="follow_up",
    ),
)
