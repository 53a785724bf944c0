"""Logs that end in Slurm, Kubernetes, Docker, the shell, or a limit of the system."""

from log_parts import LOADING, SRUN, STEPS, Told, packages, trace

TRAIN = "train.py:66:main:trainer.train()"

LOGS = (
    Told(
        "slurm_node_failed",
        STEPS + "slurmstepd: error: *** JOB 812345 ON node07 CANCELLED AT 2025-03-11T10:41:07 DUE TO NODE FAILURE, SEE "
        "SLURMCTLD LOG FOR DETAILS ***\n",
        ("--requeue", "--exclude"),
        ("time limit",),
    ),
    Told(
        "slurm_preempted",
        STEPS
        + "slurmstepd: error: *** STEP 812345.0 ON node07 CANCELLED AT 2025-03-11T10:41:07 DUE TO PREEMPTION ***\n",
        ("--requeue", "--signal"),
        ("time limit",),
    ),
    Told(
        "slurm_cancelled",
        STEPS + "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.\n"
        "slurmstepd: error: *** STEP 812345.0 ON node07 CANCELLED AT 2025-03-11T10:41:07 ***\n",
        ("scancel", "sacct"),
        ("time limit",),
    ),
    Told(
        "slurm_gres",
        "sbatch: error: Batch job submission failed: Invalid generic resource (gres) specification\n",
        ("sinfo", "--gres=gpu"),
        ("memory",),
    ),
    Told(
        "slurm_refused",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
        ("Job violates accounting/QOS policy", "sacctmgr"),
        ("WHY",),
    ),
    Told(
        "slurm_refused",
        "srun: error: Unable to create step for job 812345: Memory required by task is not available\n",
        ("Memory required by task", "--mem"),
        ("gpu's memory",),
    ),
    Told(
        "slurm_pmi",
        'The application appears to have been direct launched using "srun",\nbut OMPI was not built with SLURM\'s PMI '
        "support and therefore cannot\nexecute. There are several options for building PMI support under\nSLURM.\n"
        + SRUN,
        ("--mpi=pmix",),
        ("memory",),
    ),
    Told(
        "pod_out_of_memory",
        "Name:         train-0\nStatus:       Failed\n    Last State:     Terminated\n      Reason:       OOMKilled\n"
        "      Exit Code:    137\n",
        ("limits", "host memory"),
        ("advise", "{{"),
    ),
    Told(
        "pod_evicted",
        "  Warning  Evicted  12s  kubelet  The node was low on resource: ephemeral-storage. Threshold quantity: "
        "21374182k, "
        "available: 20412Mi. Container train was using 212Gi, request is 0, has larger consumption of "
        "ephemeral-storage.\n",
        ("HF_HOME", "ephemeral-storage"),
        ("{{",),
    ),
    Told(
        "pod_without_gpu",
        "  Warning  FailedScheduling  3m  default-scheduler  0/12 nodes are available: 4 node(s) had "
        "untolerated taint, 8 "
        "Insufficient nvidia.com/gpu. preemption: 0/12 nodes are available.\n",
        ("nvidia.com/gpu",),
        ("memory",),
    ),
    Told(
        "image_platform",
        "exec /opt/nvidia/nvidia_entrypoint.sh: exec format error\n",
        ("--platform linux/amd64",),
        ("memory",),
    ),
    Told(
        "command_missing",
        "/var/spool/slurmd/job812345/slurm_script: line 14: torchrun: command not found\n" + SRUN,
        ("conda activate", "torch.distributed.run"),
        ("memory",),
    ),
    Told(
        "command_missing",
        "docker: Error response from daemon: failed to create task for container: OCI runtime create failed: "
        "runc create "
        'failed: unable to start container process: exec: "accelerate": executable file not found in $PATH: unknown.\n',
        ("PATH",),
        ("memory",),
    ),
    Told(
        "threads_limit",
        trace(
            "RuntimeError: can't start new thread", TRAIN, f"{packages('tqdm/_monitor.py')}:31:__init__:self.start()"
        ),
        ("OMP_NUM_THREADS", "ulimit -u"),
        ("advise",),
    ),
    Told(
        "threads_limit",
        "OpenBLAS blas_thread_init: pthread_create failed for thread 32 of 64: Resource temporarily unavailable\n"
        "OpenBLAS blas_thread_init: RLIMIT_NPROC 4096 current, 513046 max\nSegmentation fault (core dumped)\n",
        ("OPENBLAS_NUM_THREADS",),
        ("advise",),
    ),
    Told(
        "open_files",
        trace(
            "RuntimeError: received 0 items of ancdata",
            f"{packages('torch/multiprocessing/reductions.py')}:541:rebuild_storage_fd:fd = df.detach()",
            before=STEPS,
        ),
        ("set_sharing_strategy", "ulimit -n"),
        ("memory ran out",),
    ),
    Told(
        "open_files",
        trace(
            "OSError: [Errno 24] Too many open files: '/data/train/000412.jpg'",
            "data.py:21:__getitem__:open(path)",
            before=STEPS,
        ),
        ("file_system",),
        ("disk is full",),
    ),
    Told(
        "locale",
        trace(
            "UnicodeEncodeError: 'ascii' codec can't encode character '\\xe9' in position 12: ordinal not in "
            "range(128)",
            "train.py:90:log:print(caption)",
            before=LOADING,
        ),
        ("LC_ALL=C.UTF-8",),
        ("memory",),
    ),
    Told(
        "wandb_key",
        trace("wandb.errors.UsageError: api_key not configured (no-tty). call wandb.login(key=[your_api_key])", TRAIN),
        ("WANDB_MODE=offline", "report_to"),
        ("hub",),
    ),
    Told(
        "pod_deadline",
        STEPS + "Warning  DeadlineExceeded  2m  job-controller  Job was active longer than specified deadline\n",
        ("activeDeadlineSeconds",),
        ("memory",),
    ),
    Told(
        "image_pull",
        "Warning  Failed  12s (x3 over 58s)  kubelet  Error: ErrImagePull\n"
        "Warning  Failed  2s (x4 over 57s)  kubelet  Error: ImagePullBackOff\n",
        ("docker pull", "imagePullSecrets"),
        ("hub",),
    ),
    Told(
        "image_pull",
        "docker: Error response from daemon: manifest for pytorch/pytorch:2.99-cuda13 not found: manifest unknown: "
        "manifest unknown.\nSee 'docker run --help'.\n",
        ("tag",),
        ("hub",),
    ),
)
