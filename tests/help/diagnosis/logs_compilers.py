"""Logs that end in what compiles at run time or was compiled elsewhere."""

from log_parts import STEPS, Told, packages, trace

TRAIN = "train.py:66:main:trainer.train()"

LOGS = (
    Told(
        "cuda_home",
        trace(
            "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root.",
            f"{packages('torch/utils/cpp_extension.py')}:2510:_join_cuda_home:raise OSError(",
            before="",
        ),
        ("CUDA_HOME=/usr/local/cuda", "nvcc"),
        ("memory",),
    ),
    Told(
        "toolkit_version",
        trace(
            "RuntimeError: \nThe detected CUDA version (11.8) mismatches the version that was used to compile\n"
            "PyTorch (12.6). Please make sure to use the same CUDA versions.",
            f"{packages('torch/utils/cpp_extension.py')}:510:_check_cuda_version:raise RuntimeError(",
            before="",
        ),
        ("cuda/12.6", "CUDA 11.8"),
        ("BUILT",),
    ),
    Told(
        "gcc_newer",
        "/usr/local/cuda/include/crt/host_config.h:132:2: error: #error -- unsupported GNU version! gcc versions later "
        "than 12 are not supported!\nninja: build stopped: subcommand failed.\n",
        ("gcc-12",),
        ("VERSION",),
    ),
    Told(
        "compiler_missing",
        trace(
            "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set "
            "triton.knobs.build.impl.",
            f"{packages('triton/runtime/build.py')}:52:_build:raise RuntimeError(",
        ),
        ("build-essential", "TORCHDYNAMO_DISABLE"),
        ("memory",),
    ),
    Told(
        "python_headers",
        STEPS + "/tmp/tmps1rkq3y3/main.c:5:10: fatal error: Python.h: No such file or directory\n"
        "    5 | #include <Python.h>\n      |          ^~~~~~~~~~\ncompilation terminated.\n",
        ("python3-dev",),
        ("CUDA toolkit's",),
    ),
    Told(
        "ptxas",
        trace(
            "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error\n`ptxas` stderr:\n"
            "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'",
            f"{packages('triton/backends/nvidia/compiler.py')}:400:make_cubin:raise PTXASError(error)",
        ),
        ("TRITON_PTXAS_PATH",),
        ("memory",),
    ),
    Told(
        "triton_resources",
        trace(
            "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 131072, Hardware limit: "
            "101376. Reducing block sizes or `num_stages` may help.",
            f"{packages('triton/compiler/compiler.py')}:483:_init_handles:raise OutOfResources(shared, most)",
            before=STEPS,
        ),
        ("not the GPU's memory", "131072", "num_stages"),
        ("/dev/shm", "shm-size", "advise"),
    ),
    Told(
        "libstdcxx",
        trace(
            "ImportError: /lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by "
            "/home/u/.cache/torch_extensions/py311_cu126/cpu_adam/cpu_adam.so)",
            "train.py:3:<module>:import deepspeed",
            before="",
        ),
        ("GLIBCXX_3.4.32", "LD_LIBRARY_PATH"),
        ("container brings",),
    ),
    Told(
        "glibc_older",
        "python: /lib64/libm.so.6: version `GLIBC_2.32' not found (required by "
        "/home/u/env/lib/python3.11/site-packages/odd/odd.so)\n",
        ("GLIBC_2.32", "container"),
        ("conda-forge",),
    ),
    Told(
        "compile_failed",
        trace(
            "torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised:\nAssertionError: odd stride",
            TRAIN,
            f"{packages('torch/_dynamo/output_graph.py')}:1500:_call_user_compiler:raise BackendCompilerFailed(",
        ),
        ("TORCHDYNAMO_DISABLE=1", "torch_compile"),
        ("memory",),
    ),
)
