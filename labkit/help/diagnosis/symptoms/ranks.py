"""Ends of runs with several processes: NCCL, DDP, torchrun. What one rank says is often the echo of another's end.

A comment names where the text was read: an issue of a public tracker, or the release of an installed library.
"""

from labkit.help.diagnosis.symptoms.wrapped import wrapped

SYMPTOMS = (
    wrapped(
        "nccl_shared_memory",
        # nccl#290, #342, #525, #1518, #1683; nccl-tests#166; transformers#11658; xpk#965
        r"Error while creating shared memory segment"
        r"|failed to extend /dev/shm/nccl-"
        r"|Call to posix_fallocate failed ?: No space left on device",
        "NCCL exchanges data of one machine through /dev/shm, and that is full or too small. A container has 64 MiB.",
        "docker run --shm-size=8g ...  # or --ipc=host; from the start",
        "emptyDir: {medium: Memory}  # Kubernetes: a volume of this kind, mounted at /dev/shm",
        "ls /dev/shm/nccl-* ; df -h /dev/shm  # left by runs that crashed: remove them",
        "export NCCL_SHM_DISABLE=1  # without it; slower",
    ),
    wrapped(
        "nccl_same_gpu",
        # nccl#1241; D-FINE#289; fairchem#597; verl#161; Megatron-LM#661
        r"Duplicate GPU detected",
        "Two processes use the same GPU, which NCCL does not allow.",
        "torch.cuda.set_device(int(os.environ['LOCAL_RANK']))  # first thing in each process; no cuda:0 in the script",
        "torchrun --nproc_per_node=N  # not more processes than GPUs: 'nvidia-smi -L' lists them",
        "#SBATCH --gpus-per-node=N  # under Slurm, with --ntasks-per-node=N; a MIG GPU counts as one",
    ),
    wrapped(
        "nccl_interface",
        # nccl#210, #286, #1267, #1837; marin#6940
        r"no socket interface found"
        r"|connecting to address (?:\S+ )?with family \d+ is neither AF_INET",
        "NCCL found no network interface: NCCL_SOCKET_IFNAME names one that this machine has not, or there is none.",
        "ip -br a ; echo $NCCL_SOCKET_IFNAME  # the names that there are, and the one that was asked for",
        "unset NCCL_SOCKET_IFNAME  # NCCL then takes the first that is not a loopback; on one machine that is enough",
        "export NCCL_SOCKET_IFNAME=eno1,eth0  # where nodes call theirs differently: all names, with commas",
    ),
    wrapped(
        "nccl_infiniband",
        # nccl#531, #615 (NCCL_IB_DISABLE=1 works, slower), #969 (settings that differ between nodes)
        r"NET/IB : (?:Got completion|[\s\S]{0,60}mismatch error)"
        r"|Call to ibv_\w+ failed",
        "The fast network (InfiniBand, RoCE) failed under NCCL.",
        "env | grep NCCL_IB  # the same on all nodes? A container needs --device=/dev/infiniband --ulimit memlock=-1",
        "export NCCL_IB_DISABLE=1  # over Ethernet: slower; if it works, the link is at fault",
        "ibstat ; ibv_devinfo  # the state of the ports",
    ),
    wrapped(
        "collectives_differ",
        # nccl#296 (other sizes or another order); torch 2.13 with TORCH_DISTRIBUTED_DEBUG=DETAIL
        r"Mismatched collective detected"
        r"|Detected mismatch between collectives on ranks",
        "The processes did not do the same thing: one called another collective operation, or with another size.",
        "export TORCH_DISTRIBUTED_DEBUG=DETAIL NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=COLL  # run again: which, and where",
        "grep -n 'rank == 0\\|is_main_process' train.py  # no save, log or eval that gathers may be in only one branch",
        "DataLoader(..., drop_last=True)  # the same number of batches for each",
    ),
    wrapped(
        "ddp_models_differ",
        # RSP#5; flow_grpo#245 (num_processes); ChatDoctor#49; kronfluence#41; torch 2.13
        r"DDP expects same model across all ranks"
        r"|appears not to match (?:sizes|strides) of the same param in process 0",
        "The processes built different models, or one of them had ended ('inconsistent 0 params').",
        "grep -l Traceback LOGS  # with '0 params': the rank that ended first has the cause",
        "torch.manual_seed(SEED)  # before the model is built, if its shape depends on chance or on the rank's data",
        "num_processes: N  # in accelerate's config: as many as were started",
    ),
    wrapped(
        "ddp_unused",
        # peft#393, #951; conditional-lane-detection#29; FlagEmbedding#736; DiffSynth-Studio#1001
        r"Expected to have finished reduction in the prior iteration",
        "Some trainable weights got no gradient in the last step, and DDP waited for it.",
        "TrainingArguments(ddp_find_unused_parameters=True)  # DDP then looks for them; costs a little time",
        "Trainer(strategy='ddp_find_unused_parameters_true')  # Lightning",
        "DistributedDataParallelKwargs(find_unused_parameters=True)  # accelerate: kwargs_handlers",
        "model.print_trainable_parameters()  # or freeze what the loss does not use (requires_grad_(False))",
    ),
    wrapped(
        "p2p_unsupported",
        # accelerate 1.15, state.py; CUDA's words
        r"RTX 4000 series doesn't support faster communication broadband via P2P or IB"
        r"|peer access is not supported between these two devices",
        "These GPUs cannot read each other's memory directly, and that was to be used.",
        "export NCCL_P2P_DISABLE=1 NCCL_IB_DISABLE=1  # through the host's memory",
        "accelerate launch train.py  # sets both by itself",
        "nvidia-smi topo -p2p r  # which pairs can",
    ),
    # -- what follows from another rank's end, or from a signal
    wrapped(
        "hangup",
        # pytorch#76894 (nohup does not help torchrun; tmux or screen); SparK#19; ChatGLM2-6B#238; LlamaFactory#3036
        r"Process \d+ got signal: 1\b"
        r"|closing signal SIGHUP"
        r"|Received (?:1|Signals\.SIGHUP|SIGHUP) death signal"
        r"|Received SIGHUP",
        "The terminal that had started the run was closed. torchrun hears that even under nohup.",
        "tmux new -s train  # start it there; 'tmux attach -t train' after the next login",
        "setsid nohup torchrun ... > train.log 2>&1 &  # without tmux: a session of its own",
        "trainer.train(resume_from_checkpoint=True)  # there; Lightning: trainer.fit(model, ckpt_path='last')",
    ),
    wrapped(
        "terminated",
        # torch 2.13, elastic/multiprocessing/api.py; the scheduler's or Kubernetes' stop
        r"Process \d+ got signal: 15\b"
        r"|Received (?:15|Signals\.SIGTERM) death signal",
        "Somebody asked the run to end (SIGTERM): a scheduler, Kubernetes, or kill.",
        "sacct -j JOBID -o JobID,State,ExitCode,Elapsed,Timelimit  # under Slurm: why",
        "kubectl describe pod POD | tail -20  # in Kubernetes: evicted, preempted, or the deadline",
        "trainer.train(resume_from_checkpoint=True)  # there; Lightning: trainer.fit(model, ckpt_path='last')",
        tier="follow_up",
    ),
    wrapped(
        "rank_gone",
        # ncclRemoteError of NCCL 2.12 on; an echo
        r"remote process exited or there was a network error"
        r"|ncclRemoteError",
        "This process lost another one: that one ended first, or the network between them broke.",
        "grep -l Traceback LOGS  # the rank that ended first has the cause",
        "export NCCL_DEBUG=INFO  # if none has a trace: which link broke",
        tier="sign",
    ),
)
