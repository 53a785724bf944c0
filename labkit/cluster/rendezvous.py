"""Whether the launchers of several nodes form one run; if not, they wait for each other, or each trains alone without a
warning."""

import re

from labkit.cluster.batch_script import Shape
from labkit.cluster.launches import Launch
from labkit.cluster.options import number
from labkit.help.doctor.machine import Check

HEAD = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
"""The first node of a job, which all of them can name."""

_MEET = f"--rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID --rdzv-endpoint={HEAD}:29500"
_RANK = r"--(?:node|machine)[-_]rank[= ](?:\"[^\"]*\"|\S+)"


def check_rendezvous(launch: Launch, shape: Shape) -> list[Check]:
    """The check ``rendezvous`` of ``torchrun`` and ``accelerate`` that ``srun`` starts on each node."""
    once = not launch.command.places & {"loop", "background", "function"}
    if launch.kind != "launcher" or launch.name not in ("torchrun", "accelerate") or launch.by != "srun" or not once:
        return []
    told = launch.says("nnodes", "num_machines")
    nodes = number(told.rpartition(":")[2]) if told else None
    alone = launch.name == "torchrun" and told is None and not _by_environment(launch)
    if shape.spread or (shape.nodes == 1 and (nodes or 1) == 1):
        return []
    if shape.nodes > 1 and (alone or nodes == 1):
        return [
            _red(
                f"{launch.name} says one node, so each of the {shape.nodes} trains by itself, silently",
                _with(launch, f"--nnodes={shape.nodes} {_MEET}", r"--(?:nnodes|num_machines)[= ]\S+"),
            )
        ]
    if nodes is not None and nodes != shape.nodes and ":" not in (told or ""):
        end = "waits for the others" if nodes > shape.nodes else "leaves the others out"
        return [Check(name="rendezvous", level="red", fix=f"#SBATCH --nodes={nodes}",
                      found=f"{launch.name} says {nodes} nodes of {shape.nodes}, and {end}")]  # fmt: skip
    static = (launch.says("rdzv_backend") or "static") == "static"
    rank = launch.says("node_rank", "machine_rank")
    if static and rank == "0" and launch.command.assigned.get("NODE_RANK") is None:
        return [_red("every node says that it is node 0: the batch script has filled in its own SLURM_NODEID",
                     _with(launch, _MEET, _RANK) if launch.name == "torchrun" else _inside(launch))]  # fmt: skip
    meets = launch.says("rdzv_endpoint", "master_addr", "main_process_ip", "rdzv_conf", "config_file")
    if meets is None and not _by_environment(launch):
        return [
            Check(
                name="rendezvous",
                level="amber",
                fix=_with(launch, _MEET, _RANK),
                found=f"{launch.name} is not told where the nodes meet; its default is this node itself",
            )
        ]
    return [Check(name="rendezvous", level="green", found="one place for all nodes")]


def _red(found: str, fix: str) -> Check:
    return Check(name="rendezvous", level="red", found=found, fix=fix)


def _by_environment(launch: Launch) -> bool:
    """Whether variables that torchrun reads in place of options are set."""
    return any(name.startswith("PET_") for name in (*launch.command.variables, *launch.assigned))


def _with(launch: Launch, options: str, instead: str) -> str:
    """The command as it is written with ``options`` after the launcher's name, and ``instead`` taken out."""
    source = re.sub(rf"\s{instead}", "", launch.command.source)
    called = re.search(r"torchrun\b|torch\.distributed\.(?:run|launch)\b|accelerate\s+launch\b", source)
    if called is None:  # it is in a variable
        return f"{launch.name} {options} ...  # where the launcher is put together"
    return f"{source[: called.end()]} {options}{source[called.end() :]}"


def _inside(launch: Launch) -> str:
    """A command whose rank of the node is filled in by the task."""
    return "srun bash -c 'accelerate launch --machine_rank=$SLURM_NODEID ...'  # single quotes: filled in by each task"
