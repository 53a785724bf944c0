"""Logs of runs with several processes that end between them."""

from log_parts import SRUN, STEPS, TORCHRUN, Told, packages, trace

NCCL_ERROR = (
    "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:275, "
    "{what} (run with "
    "NCCL_DEBUG=WARN for details), NCCL version 2.21.5\n"
)
BARRIER = f"{packages('torch/distributed/distributed_c10d.py')}:3744:barrier:work = group.barrier(opts=opts)"
TRAIN = "train.py:66:main:trainer.train()"

LOGS = (
    Told(
        "nccl_shared_memory",
        "node07:15:94 [0] misc/shmutils.cc:87 NCCL WARN Error: failed to extend /dev/shm/nccl-WU88OE to 9637892 bytes\n"
        "node07:15:94 [0] misc/shmutils.cc:132 NCCL WARN Error while creating shared memory segment "
        "/dev/shm/nccl-WU88OE "
        "(size 9637888), error: No space left on device (28)\n"
        + trace(
            NCCL_ERROR.format(what="unhandled system error") + "ncclSystemError: System call (e.g. socket, malloc) or "
            "external library call failed or device error. \nLast error:\nError while creating shared memory segment "
            "/dev/shm/nccl-WU88OE (size 9637888)",
            BARRIER,
            before="",
            after=TORCHRUN,
        ),
        ("--shm-size", "medium: Memory"),
        ("checkpoints", "{{"),
    ),
    Told(
        "nccl_same_gpu",
        trace(
            NCCL_ERROR.format(what="invalid usage") + "ncclInvalidUsage: This usually reflects invalid usage of NCCL "
            "library.\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 4000",
            BARRIER,
            before="",
            after=TORCHRUN,
        ),
        ("LOCAL_RANK", "same GPU"),
        ("memory",),
    ),
    Told(
        "nccl_interface",
        "node07:19:19 [3] NCCL INFO NCCL_SOCKET_IFNAME set by environment to eth2\n"
        "node07:19:19 [3] bootstrap.cc:45 NCCL WARN Bootstrap : no socket interface found\n"
        + trace(NCCL_ERROR.format(what="internal error"), BARRIER, before="", after=SRUN),
        ("ip -br a", "NCCL_SOCKET_IFNAME"),
        ("memory",),
    ),
    Told(
        "nccl_infiniband",
        STEPS + "node07:15:56 [0] transport/net_ib.cc:1038 NCCL WARN NET/IB : req 0/1 tag 0 peer 10.10.23.6<58683> "
        "collective mismatch error, local size 496640 remote size 65536\n" + SRUN,
        ("NCCL_IB_DISABLE=1",),
        ("memory ran out",),
    ),
    Told(
        "collectives_differ",
        trace(
            "RuntimeError: Detected mismatch between collectives on ranks. Rank 0 is running collective: "
            "CollectiveFingerPrint(SequenceNumber=31, OpType=ALLREDUCE, TensorShape=[1]), but Rank 1 is running "
            "collective: "
            "CollectiveFingerPrint(SequenceNumber=31, OpType=ALLGATHER).",
            TRAIN,
            before=STEPS,
            after=TORCHRUN,
        ),
        ("rank == 0", "COLL"),
        ("memory",),
    ),
    Told(
        "ddp_models_differ",
        trace(
            "RuntimeError: DDP expects same model across all ranks, but Rank 0 has 382 params, while rank 1 has "
            "inconsistent 0 params.",
            f"{packages('torch/nn/parallel/distributed.py')}:825:__init__:_verify_param_shape_across_processes(",
            after=TORCHRUN,
        ),
        ("ended first", "num_processes"),
        ("memory",),
    ),
    Told(
        "ddp_unused",
        trace(
            "RuntimeError: Expected to have finished reduction in the prior iteration before starting a new "
            "one. This error "
            "indicates that your module has parameters that were not used in producing loss. You can enable unused "
            "parameter detection by passing the keyword argument `find_unused_parameters=True` to "
            "`torch.nn.parallel.DistributedDataParallel`",
            TRAIN,
            before=STEPS,
            after=TORCHRUN,
        ),
        ("ddp_find_unused_parameters=True", "ddp_find_unused_parameters_true"),
        ("memory",),
    ),
    Told(
        "p2p_unsupported",
        trace(
            "NotImplementedError: Using RTX 4000 series doesn't support faster communication broadband via P2P or IB. "
            'Please set `NCCL_P2P_DISABLE="1"` and `NCCL_IB_DISABLE="1" or use `accelerate launch` which will do this '
            "automatically.",
            "train.py:41:main:args = TrainingArguments(output_dir='out')",
            before="",
        ),
        ("NCCL_P2P_DISABLE=1", "accelerate launch"),
        ("memory ran out",),
    ),
    Told(
        "hangup",
        STEPS
        + "W0920 09:10:41.194000 84933 torch/distributed/elastic/agent/server/api.py:719] Received 1 death signal, "
        "shutting down workers\n"
        "W0920 09:10:41.195000 84933 torch/distributed/elastic/multiprocessing/api.py:900] Sending process "
        "85005 closing "
        "signal SIGHUP\n"
        + trace(
            "torch.distributed.elastic.multiprocessing.api.SignalException: Process 84933 got signal: 1", before=""
        ),
        ("tmux", "terminal"),
        ("scheduler",),
    ),
    Told(
        "terminated",
        STEPS
        + "W0920 09:10:41.195000 84933 torch/distributed/elastic/multiprocessing/api.py:900] Sending process 85005 "
        "closing signal SIGTERM\n"
        + trace(
            "torch.distributed.elastic.multiprocessing.api.SignalException: Process 84933 got signal: 15", before=""
        ),
        ("sacct", "kubectl"),
        ("tmux",),
    ),
    Told(
        "rank_gone",
        trace(
            NCCL_ERROR.format(what="remote process exited or there was a network error")
            + "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
            BARRIER,
            before=STEPS,
            after=SRUN,
        ),
        ("ended first", "grep -l Traceback"),
        ("memory",),
    ),
)
