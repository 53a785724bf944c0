"""The host: its memory, shared memory, disks and quotas, and processes that the kernel or a signal has ended."""

from labkit.help.diagnosis.symptoms.symptom import symptom

SYMPTOMS = (
    symptom(
        "shared_memory",
        r"unable to (?:allocate|open|mmap) shared memory|insufficient shared memory|out of shared memory"
        r"|unable to write to file </torch_|shared memory limit"
        r"|worker .{0,40}killed by signal: Bus error|Unexpected bus error"  # torch 1.x to 2.13
        r"|(?:exit ?code|return code)\s*[:=]?\s*\(?(?:-7|135)\b|Signal 7 \(SIGBUS\)"
        r"|^(?:\S+: +)?(?:line \d+: +)?(?:\d+ +)?"
        r"Bus error\b",  # torchrun, DeepSpeed, a shell
        "Shared memory (/dev/shm) is used up: loader workers hand batches over in it, and NCCL uses it between the "
        "processes of a node. Signal 7 (SIGBUS, bus error) is how a process ends that writes where there is no more "
        "of it; a container has 64 MB by default.",
        "docker run --shm-size=8g ...  # or --ipc=host: more of it, from the start (Kubernetes: an emptyDir in memory)",
        "{run:num_workers=0}  # no workers, so no shared memory for batches; slower",
        "df -h /dev/shm  # how much there is; 'sudo mount -o remount,size=8G /dev/shm' on a machine of your own",
    ),
    symptom(
        "quota",
        r"Disk quota exceeded|\[Errno 122\]|os error 122\b",
        "You may not write more on that file system: your quota is used up (on clusters most often that of the home "
        "folder). The disk itself may have room.",
        "quota -s  # how much you have and use",
        "{doctor}  # which caches lie on that file system",
        "export HF_HOME=FOLDER/huggingface  # put caches in a FOLDER of your project or scratch space, not in your "
        "home",
        "{elsewhere}",
    ),
    symptom(
        "disk_full",
        # torch.save says the last two of a file that it could not write to its end (2.13)
        r"No space left on device|\[Errno 28\]|os error 28\b"
        r"|PytorchStreamWriter failed writing|inline_container\.cc.{0,40}unexpected pos",
        "A file could not be written to its end: the disk is full.",
        "df -h . ; du -sh {runs}/*/*/* | sort -h | tail  # what takes the room",
        "rm -r {runs}/PROFILE/EXPERIMENT/ID/checkpoints  # a checkpoint that you do not need",
        "{elsewhere}",
    ),
    symptom(
        "host_out_of_memory",
        r"Out of memory: Killed process|oom[_-]kill event|Detected \d+ oom[_-]kill|oom-kill:"
        r"|task \d+: Out Of Memory|Some of the step tasks have been OOM Killed"
        r"|Exceeded (?:job|step) memory limit|Memory cgroup out of memory",  # Linux, Slurm, Kubernetes
        "The kernel killed a process of the run, since the host's memory (not the GPU's) was used up.",
        "{host}",
        final=True,
    ),
    symptom(
        "host_out_of_memory",
        r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)|Cannot allocate memory|\[enforce fail at "
        r"alloc_cpu|^(?:\[?\w+\]?: ?)?MemoryError\b|^(?:numpy\.\S*)?_?ArrayMemoryError|std::bad_alloc",
        "The host (not the GPU) had no memory left to give, and refused what the run asked for.",
        "{host}",
    ),
    symptom(
        "host_out_of_memory",
        r"exit ?code\s*[:=]?\s*\(?(?:-9|137)\b|return code = -9|Signal 9 \(SIGKILL\)|died with <Signals\.SIGKILL"
        r"|^(?:\S+: +(?:line \d+: +)?)?(?:\d+ +)?Killed\b|SIGKILL\(9\)|terminated by signal 9",
        "A process of the run was killed (-9); likely by the kernel, for lack of host memory (CPU RAM, not the GPU's). "
        "The log alone cannot confirm it.",
        "sudo dmesg -T | grep -i 'killed process'  # the kernel's own word, on the machine that it ran on",
        "{host}",
        tier="sign",
        final=True,
    ),
    symptom(
        "loader_worker",
        r"DataLoader worker \(pid.{0,200}(?:exited unexpectedly|is killed by signal)",  # torch 2.13
        "A loader worker died. Most often the kernel killed it, since host memory was used up; each worker takes some.",
        "{run:num_workers=0}  # no workers; an error in the data then shows its own trace",
        "{doctor}  # host and shared memory against what the run needs",
        tier="sign",
    ),
    symptom(
        "illegal_instruction",
        r"(?:exit ?code|return code)\s*[:=]?\s*\(?(?:-4|132)\b|Signal 4 \(SIGILL\)|Illegal instruction",
        "The process met a machine instruction that this CPU does not have: a library was built for another CPU.",
        "lscpu | grep -o 'avx[^ ]*' | sort -u  # what this CPU has",
        "pip install --force-reinstall --no-cache-dir PACKAGE  # PYTHONFAULTHANDLER=1 names the one that crashed",
        tier="sign",
        final=True,
    ),
    symptom(
        "crashed",
        r"(?:exit ?code|return code)\s*[:=]?\s*\(?(?:-11|139)\b|Signal 11 \(SIGSEGV\)|Segmentation fault"
        r"|Fatal Python error: Segmentation|died with <Signals\.SIGSEGV|SIGSEGV\(11\)",
        "A compiled library crashed (signal 11, SIGSEGV), so there is no trace of Python: most often packages that "
        "were "
        "built for another PyTorch or CUDA (flash-attn, bitsandbytes, torchvision, NCCL).",
        "PYTHONFAULTHANDLER=1 python ...  # (or python -X faulthandler) the frame in which it crashed",
        "pip list | grep -iE 'torch|flash|bitsandbytes|xformers|nccl|triton'  # reinstall the one that is named, for "
        "this "
        "torch",
        tier="sign",
        final=True,
    ),
    symptom(
        "aborted",
        r"(?:exit ?code|return code)\s*[:=]?\s*\(?(?:-6|134)\b|Signal 6 \(SIGABRT\)|terminate called after throwing",
        "The process ended itself (signal 6, SIGABRT) after an error below Python; what was printed before it says "
        "which.",
        "grep -n 'terminate called\\|what():' LOG  # the error's own words",
        "PYTHONFAULTHANDLER=1 python ...  # where it was",
        tier="follow_up",
        final=True,
    ),
)
