"""Ends that Slurm, Kubernetes, Docker, the shell and the system's limits bring: what each means, and its cure.

A comment names where the text was read: an issue of a public tracker, a site's documentation, or a library's release.
"""

from labkit.help.diagnosis.symptoms.wrapped import wrapped

SYMPTOMS = (
    # -- Slurm: while it runs
    wrapped(
        "slurm_node_failed",
        # slurmstepd's words, beside DUE TO TIME LIMIT
        r"DUE TO NODE FAILURE"
        r"|Node failure on \S{1,60}",
        "A node of the job failed. That is the cluster, not the program.",
        "#SBATCH --requeue  # Slurm then starts the job again by itself; it must resume from its checkpoint",
        "#SBATCH --exclude=NODE  # if it was the same node before; tell who runs the cluster",
        "trainer.train(resume_from_checkpoint=True)  # Lightning: trainer.fit(model, ckpt_path='last')",
    ),
    wrapped(
        "slurm_preempted",
        # slurmstepd's words
        r"DUE TO PREEMPTION",
        "A job of higher priority took the nodes: this partition or QOS gives them only until others want them.",
        "#SBATCH --requeue  # Slurm starts the job again when nodes are free",
        "#SBATCH --signal=SIGUSR1@90  # to the job's steps, 90 s before: time for a checkpoint (Lightning reads it)",
        "#SBATCH --qos=NORMAL  # one that is not preempted: 'sacctmgr show qos format=name,preemptmode'",
    ),
    wrapped(
        "slurm_cancelled",
        # slurmstepd's words, with nothing after the time
        r"\*\*\* (?:JOB|STEP) \S{1,40} ON \S{1,60} CANCELLED AT \S{1,40} \*\*\*"
        r"|CANCELLED by \d+",
        "Somebody cancelled the job (scancel), or a job that it belonged to ended.",
        "sacct -j JOBID -o JobID,State,ExitCode,Elapsed,Timelimit  # 'CANCELLED by UID' names who",
        "trainer.train(resume_from_checkpoint=True)  # Lightning: trainer.fit(model, ckpt_path='last')",
    ),
    # -- Slurm: before it runs
    wrapped(
        "slurm_gres",
        # linaroforge documentation; Slurm 21 on
        r"Invalid generic resource \(gres\) specification"
        r"|Invalid Trackable RESource \(TRES\) specification",
        "This cluster or partition has no GPU of the kind or number that was asked for.",
        "sinfo -o '%P %N %G'  # what each partition calls its GPUs, as gpu:a100:4",
        "#SBATCH --gres=gpu:a100:1  # that name, or gpu:1 for any",
        "#SBATCH --partition=GPU  # the default partition often has none",
    ),
    wrapped(
        "slurm_refused",
        # hpc-unibe-ch FAQ; ikkem-hpc-manual notes 3 to 9
        r"(?:submission|allocate|create step for job \d+)[^\n]{0,20}: (?P<why>Job violates accounting/QOS policy"
        r"|Requested node configuration is not available|Requested time limit is invalid|Invalid partition name"
        r"|Invalid account or account/partition|Invalid qos specification|More processors requested than permitted"
        r"|Memory required by task is not available|Memory specification can not be satisfied"
        r"|Node count specification invalid|User's group not permitted to use this partition)",
        "Slurm refused the job: {why}.",
        "sacctmgr show assoc user=$USER format=account,partition,qos,maxwall,grptres  # what you may ask for",
        "scontrol show partition ; sinfo -o '%P %l %c %m %G'  # what a node has: time, cores, memory, GPUs",
        "#SBATCH --mem=0 --time=01:00:00  # --mem=0 is all of the node's; less time is often allowed at once",
    ),
    wrapped(
        "slurm_pmi",
        # Open MPI's and MPICH's words under srun
        r"OMPI was not built with SLURM(?:'s)? PMI support"
        r"|PMI2?_Init(?:ialize)? failed|PMIX ERROR",
        "The program uses MPI, and that was not built for srun.",
        "srun --mpi=pmix ...  # 'srun --mpi=list' shows what there is; or --mpi=pmi2",
        "srun torchrun --nnodes=N --rdzv-endpoint=$HEAD:29500 ...  # DeepSpeed and accelerate need no MPI then",
    ),
    # -- Kubernetes and Docker
    wrapped(
        "pod_out_of_memory",
        # Kubernetes' reason of a container's end; 'docker inspect' says "OOMKilled": false of a healthy one
        r"\bOOMKilled\b(?!\"?\s?[:=]\s?\"?false)",
        "The pod used more host memory than its limit (not the GPU's), and the kernel killed it.",
        "resources: {limits: {memory: 64Gi}}  # more, in the pod's YAML",
        "dataloader_num_workers=2  # each loader worker takes some; ZeRO offload and loading in 32 bits take most",
        "kubectl top pod POD --containers  # what it takes while it runs; /dev/shm of medium Memory counts too",
    ),
    wrapped(
        "pod_evicted",
        # Kubernetes' eviction messages
        r"The node was low on resource: (?P<resource>[\w-]+)"
        r"|Pod ephemeral local storage usage exceeds the total limit"
        r"|Usage of EmptyDir volume \S{1,80} exceeds the limit"
        r"|exceeds its ephemeral-storage request",
        "Kubernetes removed the pod, since its node ran short or the pod wrote more local files than it may.",
        "export HF_HOME=/data/huggingface  # caches and checkpoints on a mounted volume, not in the container",
        "resources: {limits: {ephemeral-storage: 100Gi}}  # or more, in the pod's YAML",
        "kubectl describe pod POD  # which resource, and what asked for how much",
    ),
    wrapped(
        "pod_without_gpu",
        # Kubernetes' scheduler
        r"nodes are available: [\s\S]{0,200}Insufficient nvidia\.com/(?:gpu|mig-\S{1,20})",
        "No node has the GPUs that the pod asks for free, so it was never started.",
        "kubectl describe nodes | grep -A8 'Allocated resources'  # who has them",
        "resources: {limits: {nvidia.com/gpu: 1}}  # fewer; or the name of the slices: nvidia.com/mig-3g.40gb",
    ),
    wrapped(
        "pod_deadline",
        # Kubernetes' reason of a job's end: activeDeadlineSeconds
        r"Job was active longer than specified deadline"
        r"|Pod was active on the node longer than the specified deadline",
        "The job took longer than its activeDeadlineSeconds, and Kubernetes ended it.",
        "spec: {activeDeadlineSeconds: 86400}  # longer, in the job's YAML; or leave the line out",
        "trainer.train(resume_from_checkpoint=True)  # Lightning: trainer.fit(model, ckpt_path='last')",
    ),
    wrapped(
        "image_pull",
        # Kubernetes' reasons; Docker's and containerd's words
        r"\b(?:ErrImagePull|ImagePullBackOff)\b"
        r"|pull access denied for \S"
        r"|manifest for \S{1,200} not found: manifest unknown",
        "The container's image could not be pulled: no such tag, or no right to read it.",
        "docker pull IMAGE:TAG  # by hand, for the message itself; look the tag up in the registry",
        "docker login REGISTRY  # Kubernetes: imagePullSecrets in the pod's YAML",
    ),
    wrapped(
        "image_platform",
        # the kernel's words through a shell or Docker
        r"exec format error",
        "The image or program was built for another kind of CPU (arm64 and x86-64).",
        "docker build --platform linux/amd64 ...  # on a Mac, for a server; linux/arm64 for a Grace machine",
        "uname -m ; docker image inspect IMAGE | grep Architecture  # the two must agree",
    ),
    wrapped(
        "command_missing",
        # bash, sh and runc; exit code 127
        r"\b(?P<command>torchrun|accelerate|deepspeed|python3?|axolotl|llamafactory-cli|srun|nvidia-smi|nvcc|labkit|hf"
        r"|huggingface-cli|conda|uv|docker|apptainer|singularity): (?:command )?not found"
        r"|exec: \\?\"(?P<program>[^\"\\\n]{1,200})\\?\": executable file not found in \$PATH",
        "A command is not installed in the environment that ran, or is not on its PATH.",
        "conda activate ENV  # or source .venv/bin/activate: in the job script, before the command",
        "python -m torch.distributed.run ...  # torchrun without its script; python -m accelerate.commands.launch",
        "echo $PATH ; which python  # inside of the job: it is not that of your login shell",
    ),
    # -- limits of the system
    wrapped(
        "threads_limit",
        # OpenBLAS#1668, #1767, #4762; worms#2; nnUNet#1343; sdnext#2642
        r"can't start new thread"
        r"|pthread_create failed[^\n]{0,40}: Resource temporarily unavailable"
        r"|fork: (?:retry: )?Resource temporarily unavailable"
        r"|BlockingIOError: \[Errno 11\] Resource temporarily unavailable",
        "No more threads or processes may be started: each process of a run starts as many threads as there are cores.",
        "export OMP_NUM_THREADS=4 OPENBLAS_NUM_THREADS=4 TOKENIZERS_PARALLELISM=false  # fewer for each process",
        "ulimit -u ; ps -u $USER -L | wc -l  # the limit, and what you have: old runs count",
        "docker run --pids-limit=-1 ...  # in a container; num_workers=2 in the loader",
    ),
    wrapped(
        "open_files",
        # pytorch#973, #11201, #41465, #165532; D-FINE#22 and graph-physics#22 (set_sharing_strategy solved it)
        r"Too many open files"
        r"|\[Errno 24\]"
        r"|received 0 items of ancdata",
        "The process has as many files open as it may: loader workers pass each tensor as an open file.",
        "torch.multiprocessing.set_sharing_strategy('file_system')  # first in the script: files in place of handles",
        "ulimit -n 65536  # before the run; docker run --ulimit nofile=65536:65536",
        "dataloader_num_workers=2  # fewer; and keep no batches in a list: each holds its files",
    ),
    wrapped(
        "locale",
        # Python's words; Colab's of pip
        r"locale\.Error: unsupported locale setting"
        r"|A UTF-8 locale is required\. Got"
        r"|Unicode(?:En|De)codeError: '(?:ascii|latin-1)' codec can't",
        "The program met text beyond ASCII, and this environment says that there is none (LANG=C).",
        "export LC_ALL=C.UTF-8 PYTHONUTF8=1  # in the job script or the image",
        "open(FILE, encoding='utf-8')  # in a script of your own",
    ),
    wrapped(
        "wandb_key",
        # wandb: the client's words without a terminal
        r"api_key not configured \(no-tty\)",
        "Weights & Biases wants a login and there is no one to type it.",
        "export WANDB_MODE=offline  # and later 'wandb sync'; or WANDB_API_KEY from your account",
        "TrainingArguments(report_to='none')  # without it",
    ),
)
