"""Symptoms: what libraries, the kernel and clusters print when a run dies, and what each means.

In the order in which they are looked for: what makes other things fail comes before what follows from it. Where a text
has a version, it is that of the source it was read in or of the library that printed it.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """Texts that mean one thing. ``next_steps`` are templates of ``NextSteps``; in them and in ``happened`` the name of
    a group of ``pattern`` becomes what it has matched."""

    kind: str
    pattern: re.Pattern[str]
    happened: str
    next_steps: tuple[str, ...]


def _symptom(kind: str, texts: str, happened: str, *next_steps: str) -> Symptom:
    return Symptom(
        kind=kind, pattern=re.compile(texts, re.MULTILINE | re.IGNORECASE), happened=happened, next_steps=next_steps
    )


SYMPTOMS = (
    _symptom(
        "shared_memory",
        r"unable to (?:allocate|open) shared memory|insufficient shared memory|out of shared memory"
        r"|worker .{0,40}killed by signal: Bus error",  # torch 1.x to 2.13
        "Loader workers hand batches over in shared memory (/dev/shm), and that is full.",
        "{run:num_workers=0}  # no workers, so no shared memory; slower",
        "docker run --shm-size=8g ...  # in a container: more of it, from the start",
        "sudo mount -o remount,size=8G /dev/shm  # on a machine of your own",
    ),
    _symptom(
        "quota",
        r"Disk quota exceeded|\[Errno 122\]|os error 122\b",
        "You may not write more on that file system: your quota is used up. The disk itself may have room.",
        "quota -s  # how much you have and use",
        "{doctor}  # which caches lie on that file system",
        "export HF_HOME=FOLDER/huggingface  # put caches in a FOLDER of your project, not in your home",
        "{elsewhere}",
    ),
    _symptom(
        "disk_full",
        # torch.save says the last two of a file that it could not write to its end (2.13)
        r"No space left on device|\[Errno 28\]|os error 28\b"
        r"|PytorchStreamWriter failed writing|inline_container\.cc.{0,40}unexpected pos",
        "A file could not be written to its end: the disk is full.",
        "df -h . ; du -sh {runs}/*/*/* | sort -h | tail  # what takes the room",
        "rm -r {runs}/PROFILE/EXPERIMENT/ID/checkpoints  # a checkpoint that you do not need",
        "{elsewhere}",
    ),
    _symptom(
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
    _symptom(
        "unsupported_gpu",
        r"no kernel image is available|CUDA capability sm_\d+ is not compatible|does not include kernels for this GPU"
        r"|Bfloat16 is only supported on GPUs with compute capability|setup doesn't support bf16",
        "This GPU cannot do what was asked: PyTorch has no code for its compute capability, or it has no bf16.",
        "nvidia-smi --query-gpu=name,compute_cap --format=csv  # bf16 needs 8.0 (A100) or more; a V100 has 7.0",
        "{run:precision=32-true}  # a V100 or older; 16-mixed where memory is short",
        "{doctor}  # what this machine has, against what the run needs",
    ),
    _symptom(
        "slurm_ntasks",
        r"You set `--ntasks=(?P<tasks>\d+)` in your SLURM bash script",  # Lightning 2.6
        "The Slurm script asks for --ntasks={tasks}. Lightning starts one process for each GPU of a node, and must "
        "know how many tasks a node has.",
        "#SBATCH --ntasks-per-node={tasks}  # in place of --ntasks={tasks}; the number of devices",
        "#SBATCH --gpus-per-node={tasks}  # and never --gpus-per-task",
    ),
    _symptom(
        "slurm_devices",
        r"You requested gpu: \[[\d, ]*\]\s+But your machine only has: \[[\d, ]*\]"
        r"|You requested to find \d+ devices but this machine only has",  # Lightning 2.6
        "The run asks for more GPUs than it was given. Under Slurm --gpus-per-task does this: each task sees one only.",
        "#SBATCH --gpus-per-node=N  # in place of --gpus-per-task, with --ntasks-per-node=N",
        "{run:devices=1}  # or as many as 'nvidia-smi -L' lists",
    ),
    _symptom(
        "slurm_mismatch",
        r"You set `(?:devices|num_nodes)=\d+` in Lightning, but the number of"  # Lightning 2.6
        r"|does not go with the \d+ tasks of this Slurm step",
        "The Slurm script starts another number of tasks or nodes than the run has devices.",
        "#SBATCH --ntasks-per-node=N  # N is the number of devices on a node",
        "labkit doctor --slurm SCRIPT  # which line it is",
    ),
    _symptom(
        "gpu_full",
        r"CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|Cuda failure 2 'out of memory'"
        r"|Failed to CUDA calloc",
        "The GPU ran out of memory outside PyTorch's allocator (a library's workspace, NCCL or the CUDA context), so "
        "the message has no numbers.",
        "nvidia-smi  # who holds the GPU",
        "{fit}",
    ),
    _symptom(
        "host_out_of_memory",
        r"Out of memory: Killed process|oom[_-]kill event|Detected \d+ oom[_-]kill|oom-kill:",  # Linux, Slurm
        "The kernel killed a process of the run, since the host's memory (not the GPU's) was used up.",
        "{host}",
    ),
    _symptom(
        "host_out_of_memory",
        r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)|Cannot allocate memory|^MemoryError\b"
        r"|^(?:numpy\.\S*)?_?ArrayMemoryError",
        "The host (not the GPU) had no memory left to give, and refused what the run asked for.",
        "{host}",
    ),
    _symptom(
        "host_out_of_memory",
        r"exit ?code\s*[:=]?\s*(?:-9|137)\b|return code = -9|Signal 9 \(SIGKILL\)"
        r"|^(?:\S+: +(?:line \d+: +)?)?(?:\d+ +)?Killed\b",  # torchrun, DeepSpeed, a shell
        "A process of the run was killed (-9); likely by the kernel, for want of host memory. The log alone cannot "
        "confirm it.",
        "sudo dmesg -T | grep -i 'killed process'  # the kernel's own word, on the machine that it ran on",
        "{host}",
    ),
    _symptom(
        "job_time_limit",
        r"DUE TO TIME LIMIT",  # Slurm
        "Slurm stopped the job at its time limit.",
        "#SBATCH --time=02:00:00  # ask for more",
        "{again}",
    ),
    _symptom(
        "loader_worker",
        r"DataLoader worker \(pid.{0,200}(?:exited unexpectedly|is killed by signal)",  # torch 2.13
        "A loader worker died. Most often the kernel killed it, since host memory was used up; each worker takes some.",
        "{run:num_workers=0}  # no workers; an error in the data then shows its own trace",
        "{doctor}  # host and shared memory against what the run needs",
    ),
    _symptom(
        "port_in_use",
        r"(?:port: (?P<port>\d+).{0,80})?(?:EADDRINUSE|Address already in use)",
        "The port that the processes of a run meet at is taken, by an earlier run that still goes on or by another "
        "program.",
        "ss -ltnp | grep {port}  # who listens there; end it if it is yours",
        "export MASTER_PORT=29511  # or any other free port, for all processes of the run",
    ),
    _symptom(
        "distributed_connection",
        r"client socket has (?:timed out|failed to connect)|DistNetworkError|gloo connectFullMesh failed",  # torch 2.13
        "The processes of a distributed run did not find each other.",
        "echo $MASTER_ADDR $MASTER_PORT  # the same on every node, and reachable: nc -vz $MASTER_ADDR $MASTER_PORT",
        "export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0  # the interface that joins the nodes ('ip -br a')",
    ),
    _symptom(
        "distributed_timeout",
        r"Watchdog caught collective operation timeout|ran for \d+ milliseconds before timing out"
        r"|Timed out waiting \d+ms for \w+ operation"
        r"|wait timeout after \d+ms",  # torch 2.13
        "One process waited for the others in a collective operation until its time was up. One of the others had "
        "died, hung, or done something else.",
        "grep -l Traceback LOGS  # the rank whose log stops first, or has another error, is the cause",
        "export NCCL_DEBUG=INFO TORCH_NCCL_TRACE_BUFFER_SIZE=2000  # and run again, to see what each rank waits for",
        "{again}",
    ),
    _symptom(
        "distributed_timeout",
        r"exit ?code\s*[:=]?\s*124\b|return code = 124\b",
        "The run ended with 124, which stands for a time-out: likely one process of a distributed run waited for the "
        "others in vain. The command 'timeout' ends with it too.",
        "grep -il 'error\\|timeout' LOGS  # the rank that stops first, or has another error, is the cause",
        "export NCCL_DEBUG=INFO  # and run again, to see what each rank waits for",
        "{again}",
    ),
    _symptom(
        "nccl",
        r"NCCL error in|nccl(?:UnhandledCuda|System|Internal|InvalidUsage|Remote)Error|NCCL WARN",
        "NCCL, which moves data between GPUs, failed.",
        "export NCCL_DEBUG=INFO  # and run again: the line with WARN says why",
        "nvidia-smi topo -m ; df -h /dev/shm  # GPUs that cannot reach each other; shared memory that is full",
        "export NCCL_P2P_DISABLE=1  # if it then works, the direct way between the GPUs is at fault",
    ),
    _symptom(
        "gloo",
        r"gloo/transport/|Connection closed by peer",
        "Another process of the run went away while this one waited for its data.",
        "grep -l Traceback LOGS  # the log of the rank that died first has the cause",
        "{again}",
    ),
    _symptom(
        "token",
        r"GatedRepoError|Cannot access gated repo|access a gated repo|is gated: ask for access"
        r"|\b40[13] Client Error|Invalid (?:username or password|user token|credentials)|\(HTTP 40[13]\)",
        "The Hugging Face hub refused the download: the token is missing or not accepted, or you have no access to "
        "this model yet.",
        "hf auth login  # with a token of yours; or export HF_TOKEN",
        "hf auth whoami  # whether the token is accepted; a gated model also wants a click on its page",
        "{doctor}",
    ),
    _symptom(
        "hub_offline",
        r"OfflineModeIsEnabled|offline mode is enabled|HF_HUB_OFFLINE=1 keeps",
        "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE keeps this machine off the hub, and what was asked for is not in the "
        "cache.",
        "HF_HUB_OFFLINE=0 labkit fetch {model}  # bring it once, where there is a network",
        "{run:weights=random}  # the same memory and time, and no download",
    ),
    _symptom(
        "hub_unreachable",
        r"couldn't connect to 'https?://|LocalEntryNotFoundError|is out of reach \("
        r"|httpx\w*\.Connect(?:Error|Timeout)"
        r"|Temporary failure in name resolution|Name or service not known|Max retries exceeded with url",
        "The Hugging Face hub cannot be reached from here, and what was asked for is not in the cache.",
        "{doctor}  # tries the hub, with a short time-out",
        "labkit fetch {model}  # on a node with a network; compute nodes of a cluster often have none",
        "{run:weights=random}  # the same memory and time, and no download",
    ),
    _symptom(
        "nan_loss",
        r"\bloss (?:is|=|:) ?nan\b|NaN or Inf found|Detected NaN|'loss': '?nan",
        "The loss is not a number any more; what was trained since is lost.",
        "{nan}",
    ),
    _symptom(
        "interrupted",
        r"^KeyboardInterrupt|Detected KeyboardInterrupt|received SIGINT",
        "Somebody stopped the run with Ctrl-C.",
        "{again}",
    ),
)
