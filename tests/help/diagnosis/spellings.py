"""Out of memory, as releases, other allocators and other frameworks say it, and what only sounds like it.

The words are those of the libraries; numbers and names are made up.
"""

from log_parts import DEEPSPEED, LOADING, STEPS, packages, trace

TRAIN = "train.py:66:main:trainer.train()"
MLP = (
    f"{packages('transformers/models/llama/modeling_llama.py')}:240:forward:down_proj = self.down_proj(self.act_fn(x))"
)
BACKWARD = (
    f"{packages('torch/autograd/graph.py')}:824:_engine_run_backward:return Variable._execution_engine.run_backward("
)
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. GPU 0 has a total capacity of "
    "23.69 GiB of "
    "which 811.69 MiB is free. Including non-PyTorch memory, this process has 22.88 GiB memory in use. Of the "
    "allocated "
    "memory 21.90 GiB is allocated by PyTorch, and 120.11 MiB is reserved by PyTorch but unallocated. If reserved but "
    "unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


def stamped(log: str, stamp: str) -> str:
    """Each line with what a service writes before it."""
    return "".join(f"{stamp} {line}" for line in log.splitlines(keepends=True))


SPELLINGS = [
    dict(
        name="torch 1.3: cached",
        log=trace("RuntimeError: CUDA out of memory. Tried to allocate 64.00 MiB (GPU 0; 10.92 GiB total "
                  "capacity; 10.31 GiB "
                  "already allocated; 13.50 MiB free; 41.13 MiB cached)", TRAIN),
        kind="gpu_full", must=["10.92 GiB"], must_not=[],
    ),
    dict(
        name="torch 2.1: capacty",
        log=trace(OOM.replace("capacity", "capacty"), TRAIN, MLP),
        kind="gpu_full", must=["23.69 GiB", "1.25 GiB"], must_not=[],
    ),
    dict(
        name="cut in the middle",
        log=STEPS + trace(OOM[:118], TRAIN, MLP, before=""),
        kind="gpu_full", must=["1.25 GiB"], must_not=["unknown"],
    ),
    dict(
        name="cut before any number",
        log=STEPS + trace("torch.OutOfMemoryError: CUDA out of memory. Tried to al", TRAIN, MLP, before=""),
        kind="gpu_full", must=["memory"], must_not=["0 bytes"],
    ),
    dict(
        name="wrapped at 80 columns",
        log=STEPS + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. GPU 0\nhas a total "
                    "capacity of "
        "23.69 GiB of which 811.69 MiB is free. Including\nnon-PyTorch memory, this process has 22.88 GiB "
        "memory in use. Of "
        "the allocated\nmemory 21.90 GiB is allocated by PyTorch, and 120.11 MiB is reserved by PyTorch\nbut "
        "unallocated.\n",
        kind="gpu_full", must=["23.69 GiB", "811.69 MiB"], must_not=[],
    ),
    dict(
        name="in a panel of rich",
        log=STEPS + "╭───────────── Traceback (most recent call last) ─────────────╮\n"
        "│ train.py:66 in main                                         │\n│ ❱ 66 │   trainer.train()            "
        "          "
        "            │\n╰─────────────────────────────────────────────────────────────╯\nOutOfMemoryError: CUDA "
        "out of memory. "
        "Tried to allocate 1.25 GiB (GPU 0; \n23.69 GiB total capacity; 21.90 GiB already allocated; 811.69 MiB "
        "free; 22.02 \n"
        "GiB reserved in total by PyTorch)\n",
        kind="gpu_full", must=["23.69 GiB"], must_not=[],
    ),
    dict(
        name="on a MIG slice",
        log=trace(OOM.replace("23.69 GiB", "9.50 GiB").replace("22.88 GiB", "9.41 GiB").replace("21.90 GiB", "8.70 GiB")
                  .replace("811.69 MiB", "92.00 MiB"), TRAIN, MLP),
        kind="gpu_full", must=["9.50 GiB"], must_not=[],
    ),
    dict(
        name="as JSON",
        log='{"level":"info","ts":1741689667.1,"msg":"step 20 loss 1.21"}\n{"level":"error","ts":1741689668.4,"msg":"'
        + OOM.replace('"', '\\"') + '"}\n',
        kind="gpu_full", must=["1.25 GiB", "23.69 GiB"], must_not=[],
    ),
    dict(
        name="kubectl logs --timestamps",
        log=stamped(STEPS + trace(OOM, TRAIN, BACKWARD, before=""), "2025-03-11T10:41:07.113245Z"),
        kind="gpu_full", must=["1.25 GiB", "backward"], must_not=[],
    ),
    dict(
        name="journalctl",
        log=stamped(STEPS + trace(OOM, TRAIN, MLP, before=""), "Mar 11 10:41:07 node07 train[8121]:"),
        kind="gpu_full", must=["1.25 GiB"], must_not=[],
    ),
    dict(
        name="in a German wrapper",
        log=STEPS + f"FEHLER: Training abgebrochen: {OOM}\nBeende Prozess mit Code 1 …\n",
        kind="gpu_full", must=["1.25 GiB"], must_not=[],
    ),
    dict(
        name="in a Chinese wrapper",
        log=STEPS + f"训练失败，错误信息：{OOM}\n请检查显存。\n",
        kind="gpu_full", must=["1.25 GiB"], must_not=[],
    ),
    dict(
        name="HIP",
        log=trace(OOM.replace("CUDA out", "HIP out").replace("PYTORCH_CUDA_ALLOC", "PYTORCH_HIP_ALLOC"), TRAIN, MLP),
        kind="gpu_full", must=["1.25 GiB"], must_not=["PYTORCH_CUDA"],
    ),
    dict(
        name="MPS",
        log=trace("RuntimeError: MPS backend out of memory (MPS allocated: 16.90 GB, other allocations: 1.20 "
                  "GB, max allowed: "
                  "18.13 GB). Tried to allocate 256.00 MB on private pool. Use "
                  "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable "
                  "upper limit for memory allocations (may cause system failure).", TRAIN, MLP),
        kind="gpu_full", must=["memory"], must_not=["nvidia-smi"],
    ),
    dict(
        name="XPU",
        log=trace("torch.OutOfMemoryError: XPU out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total "
                  "capacity of "
                  "15.91 GiB. Of the allocated memory 14.80 GiB is allocated by PyTorch, and 310.00 MiB is "
                  "reserved by PyTorch "
                  "but unallocated.", TRAIN, MLP),
        kind="gpu_full", must=["memory"], must_not=["nvidia-smi"],
    ),
    dict(
        name="JAX",
        log=trace("jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to "
                  "allocate 17179869184 "
                  "bytes.", "train.py:80:main:state, loss = step(state, batch)", before=STEPS),
        kind="gpu_full", must=["memory"], must_not=["PYTORCH_"],
    ),
    dict(
        name="TensorFlow",
        log=trace("tensorflow.python.framework.errors_impl.ResourceExhaustedError: {{function_node "
                  "__wrapped__Conv2D}} OOM when "
                  "allocating tensor with shape[64,256,56,56] and type float on "
                  "/job:localhost/replica:0/task:0/device:GPU:0 by "
                  "allocator GPU_0_bfc [Op:Conv2D]", "train.py:80:main:model.fit(data)", before=STEPS),
        kind="gpu_full", must=["memory"], must_not=["PYTORCH_"],
    ),
    dict(
        name="bitsandbytes",
        log=STEPS + "Error out of memory at line 380 in file /src/csrc/pythonInterface.cpp\n" + DEEPSPEED,
        kind="gpu_full", must=["memory"], must_not=["unknown"],
    ),
    dict(
        name="vLLM beside training",
        log="ValueError: Free memory on device (9.87/23.69 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, "
        "21.32 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.\n",
        kind="gpu_full", must=["utilization"], must_not=["unknown"],
    ),
    dict(
        name="vLLM has no room for its cache",
        log=trace("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
                  "initializing the engine.", "train.py:50:main:trainer = GRPOTrainer(use_vllm=True)"),
        kind="gpu_full", must=["gpu_memory_utilization"], must_not=["unknown"],
    ),
    dict(
        name="ONNX Runtime",
        log=trace("onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException: [ONNXRuntimeError] : 6 : "
                  "RUNTIME_EXCEPTION : "
                  "Non-zero status code returned while running MatMul node. bfc_arena.cc:376 Failed to allocate "
                  "memory for "
                  "requested buffer of size 536870912", "export.py:31:main:session.run(None, feeds)"),
        kind="gpu_full", must=["memory"], must_not=["PYTORCH_"],
    ),
    dict(
        name="Triton's shared memory is not the GPU's",
        log=STEPS + trace("triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: "
                          "131072, Hardware "
                          "limit: 101376. Reducing block sizes or `num_stages` may help.", TRAIN, before=""),
        kind="triton_resources", must=["num_stages"], must_not=["/dev/shm", "smaller batch helps"],
    ),
    dict(
        name="bitsandbytes read beyond its memory",
        log=STEPS + "Error an illegal memory access was encountered at line 90 in file /src/csrc/ops.cu\n" + DEEPSPEED,
        kind="illegal_access", must=["CUDA_LAUNCH_BLOCKING"], must_not=["full"],
    ),
    dict(
        name="the CPU's allocator",
        log=LOADING + trace("RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: "
                            "can't allocate "
                            "memory: you tried to allocate 180355072 bytes. Error code 12 (Cannot allocate "
                            "memory)", TRAIN),
        kind="host_out_of_memory", must=["host"], must_not=["GPU is full"],
    ),
]  # fmt: skip
