"""Jobs and ranks: Slurm, launchers, ports, rendezvous, collectives that wait in vain, and who stopped a run."""

from labkit.help.diagnosis.symptoms.symptom import symptom

SYMPTOMS = (
    symptom(
        "slurm_ntasks",
        r"You set `--ntasks=(?P<tasks>\d+)` in your SLURM bash script",  # Lightning 2.6
        "The Slurm script asks for --ntasks={tasks}. Lightning starts one process for each GPU of a node, and must "
        "know how many tasks a node has.",
        "#SBATCH --ntasks-per-node={tasks}  # in place of --ntasks={tasks}; the number of devices",
        "#SBATCH --gpus-per-node={tasks}  # and never --gpus-per-task",
    ),
    symptom(
        "slurm_devices",
        r"You requested gpu: \[[\d, ]*\]\s+But your machine only has: \[[\d, ]*\]"
        r"|You requested to find \d+ devices but this machine only has",  # Lightning 2.6
        "The run asks for more GPUs than it was given. Under Slurm --gpus-per-task does this: each task sees one only.",
        "#SBATCH --gpus-per-node=N  # in place of --gpus-per-task, with --ntasks-per-node=N",
        "{run:devices=1}  # or as many as 'nvidia-smi -L' lists",
    ),
    symptom(
        "slurm_mismatch",
        r"You set `(?:devices|num_nodes)=\d+` in Lightning, but the number of"  # Lightning 2.6
        r"|does not go with the \d+ tasks of this Slurm step",
        "The Slurm script starts another number of tasks or nodes than the run has devices.",
        "#SBATCH --ntasks-per-node=N  # N is the number of devices on a node",
        "labkit doctor --slurm SCRIPT  # which line it is",
    ),
    symptom(
        "port_in_use",
        r"(?:(?:port:? |\[::\]:|0\.0\.0\.0:|127\.0\.0\.1:)(?P<port>\d{2,5}).{0,80})?(?:EADDRINUSE"
        r"|Address already in use)",
        "The port that the processes of a run meet at ({port}) is taken, by an earlier run that is still there or by "
        "another program.",
        "ss -ltnp | grep {port}  # who listens there; end it if it is yours",
        "export MASTER_PORT=29511  # or any other free port (torchrun and deepspeed: --master_port), for all processes",
    ),
    symptom(
        "rendezvous_timeout",
        r"RendezvousTimeoutError|RendezvousConnectionError"
        r"|The client socket has failed to connect to any network address",
        "torchrun waited in vain for the other nodes: it was started on one node only (no srun in the batch script), "
        "the endpoint is not the first node's address, or a firewall closes its port.",
        "srun torchrun --nnodes=N --nproc-per-node=GPUS --rdzv-backend=c10d --rdzv-endpoint=$HEAD:29500 ...  # on "
        "every "
        'node; HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "nc -vz $HEAD 29500  # from another node: whether the endpoint can be reached",
    ),
    symptom(
        "distributed_connection",
        r"client socket has timed out|DistNetworkError|gloo connectFullMesh failed"  # torch 2.13
        r"|Timed out initializing process group|store->get\('0'\) got error",
        "The processes of a distributed run did not find each other.",
        "echo $MASTER_ADDR $MASTER_PORT  # the same on every node, and reachable: nc -vz $MASTER_ADDR $MASTER_PORT",
        "export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0  # the interface that joins the nodes ('ip -br a')",
        tier="sign",
    ),
    symptom(
        "distributed_timeout",
        r"Watchdog caught collective operation timeout|ran for \d+ milliseconds before timing out"
        r"|Timed out waiting \d+ms for \w+ operation"
        r"|wait timeout after \d+ms",  # torch 2.13
        "One process waited for the others in a collective operation until its time was up. One of the others had "
        "died, hung, or done something else: long preprocessing or an evaluation on one rank, batches of uneven "
        "number.",
        "grep -l Traceback LOGS  # the rank whose log stops first, or has another error, is the cause",
        "export NCCL_DEBUG=INFO TORCH_NCCL_TRACE_BUFFER_SIZE=2000  # and run again, to see what each rank waits for",
        "ddp_timeout=7200 (TrainingArguments), or init_process_group(timeout=...)  # if one rank does work that long",
        "{again}",
        tier="follow_up",
    ),
    symptom(
        "distributed_timeout",
        r"exit ?code\s*[:=]?\s*124\b|return code = 124\b",
        "The run ended with 124, which stands for a time-out: likely one process of a distributed run waited for the "
        "others in vain. The command 'timeout' ends with it too.",
        "grep -il 'error\\|timeout' LOGS  # the rank that stops first, or has another error, is the cause",
        "export NCCL_DEBUG=INFO  # and run again, to see what each rank waits for",
        "{again}",
        tier="follow_up",
        final=True,
    ),
    symptom(
        "nccl",
        r"NCCL error in|nccl(?:UnhandledCuda|System|Internal|InvalidUsage|Remote)Error|NCCL WARN",
        "NCCL, which moves data between GPUs, failed.",
        "export NCCL_DEBUG=INFO  # and run again: the line with WARN says why",
        "nvidia-smi topo -m ; df -h /dev/shm  # GPUs that cannot reach each other; shared memory that is full",
        "export NCCL_P2P_DISABLE=1  # if it then works, the direct way between the GPUs is at fault",
        tier="sign",
    ),
    symptom(
        "gloo",
        r"gloo/transport/|Connection closed by peer",
        "Another process of the run went away while this one waited for its data.",
        "grep -l Traceback LOGS  # the log of the rank that died first has the cause",
        "{again}",
        tier="follow_up",
    ),
    symptom(
        "job_time_limit",
        r"DUE TO TIME LIMIT|Exceeded time limit|walltime \d+ exceeded limit"
        r"|JOB .{0,60} EXCEEDED ITS TIME",  # Slurm, PBS
        "Slurm stopped the job at its time limit.",
        "#SBATCH --time=12:00:00  # ask for more, as far as the partition allows",
        "#SBATCH --signal=SIGUSR1@90 and --requeue, with srun before the command  # Lightning then saves and queues "
        "again; the signal goes to the step, so without 'B:'",
        "{again}",
        tier="follow_up",
        final=True,
    ),
    symptom(
        "interrupted",
        r"^(?:\[rank\d+\]: ?)?KeyboardInterrupt|Detected KeyboardInterrupt|received SIGINT|Signal 2 \(SIGINT\)",
        "Somebody stopped the run with Ctrl-C.",
        "{again}",
        tier="follow_up",
    ),
    symptom(
        "killed",
        r"received SIGTERM|Received SIGTERM: 15|Signal 15 \(SIGTERM\)|Received Signals\.SIG(?:TERM|HUP) death signal"
        r"|SignalException: Process \d+ got signal: (?:15|1)\b|(?:exit ?code|return code)\s*[:=]?\s*\(?(?:-15|143)\b",
        "Somebody ended the run with SIGTERM or SIGHUP: a scheduler, a shell or an ssh connection that was closed, or "
        "kill.",
        "nohup, tmux or a batch job  # if it was started from a shell that was closed",
        "{again}",
        tier="follow_up",
        final=True,
    ),
    symptom(
        "rank_failed",
        r"ChildFailedError|exits with return code = [1-9]\d*"
        r"|srun: error: \S+: tasks? [\d,-]+: Exited with exit code \d+"
        r"|local_rank: \d+ \(pid: \d+\) of binary",
        "A process of the run failed, and its own words are not in this log: the launcher only says which one it was.",
        "torchrun --log-dir logs --redirects 3 --tee 3 ...  # each rank's output, kept and shown",
        "@torch.distributed.elastic.multiprocessing.errors.record  # above main(): torchrun then shows the trace",
        "grep -l Traceback logs/*/*/*  # the rank that failed first has the cause",
        tier="follow_up",
        final=True,
        reaches_back=True,
    ),
)
