"""Checks of the ranks: whether tasks, GPUs and nodes go with what the script starts, and whether all of them meet.

Red is only what cannot work. A program that is not told to use several processes may start them itself.
"""

import re

from labkit.cluster.batch_script import BatchScript, Shape
from labkit.cluster.launches import Launch, with_srun
from labkit.cluster.options import number
from labkit.cluster.rendezvous import check_rendezvous
from labkit.help.doctor.machine import Check

_LIGHTNING = r"(?i)lightning|\btrainer\.\w|labkit run|\bpl[-_]\w"
_DEVICES = re.compile(r"(?:^|\s)(?:--)?(?:\w+\.)*devices[= ](?P<n>\d+)\b")
_NUM_NODES = re.compile(r"(?:^|\s)(?:--)?(?:\w+\.)*num_nodes[= ](?P<n>\d+)\b")
_STARTS_ITS_OWN = re.compile(
    r"multiprocessing[-_]distributed|(?:machine|node)[-_]rank|num[-_]machines|--nprocs?\b|nproc[-_]per[-_]node|dist[-_]url"
    r"|num[-_]gpus|--gpus\b|submitit|launch|\bray\b|\bdask\b|parsl|mpi4py|horovod"
)
"""In a command: it starts processes of its own, or leaves to another program how many there are."""

_ONE_FOR_ALL = re.compile(
    r"(?i)device_map|\bjax|flax|tensorflow|keras|maxtext|paxml|vllm|sglang|yolo|ultralytics|tensor[-_]parallel|--tp\b"
    r"|infer|generat|evaluat"
)
"""In a script: one process that uses all GPUs of a node."""


def check_ranks(script: BatchScript) -> list[Check]:
    """The checks ``tasks``, ``GPUs``, ``devices``, ``nodes``, ``srun`` and, for a launcher on nodes, ``rendezvous``."""
    launch = script.training
    if script.components > 1:
        return [_cannot_tell(f"the job has {script.components} components, and each its own nodes and tasks",
                             "srun --het-group=0 hostname  # the nodes of one component")]  # fmt: skip
    if launch is None or launch.kind == "unknown":
        return [_unknown(launch), *_asked(script, script.shape(launch))]
    shape = script.shape(launch)
    checks = _launcher(script, launch, shape) if launch.kind == "launcher" else _program(script, launch, shape)
    return [*checks, _nodes(script, launch, shape), _srun(script, launch, shape), *check_rendezvous(launch, shape)]


def said(launch: Launch, pattern: re.Pattern[str] = _DEVICES) -> int | None:
    """``devices`` as a number in a command; None where it is a variable, or not there."""
    found = {match["n"] for match in pattern.finditer(" ".join(launch.words))}
    return int(found.pop()[:9]) if len(found) == 1 else None


def is_lightning(script: BatchScript, launch: Launch | None) -> bool:
    """Whether the script says that Lightning trains, which checks tasks against devices itself."""
    return script.mentions(_LIGHTNING) or (launch is not None and said(launch) is not None)


def _cannot_tell(found: str, fix: str) -> Check:
    return Check(name="tasks", level="amber", found=f"cannot tell: {found}", fix=fix)


def _unknown(launch: Launch | None) -> Check:
    if launch is None:
        return _cannot_tell("nothing in this script is known to train",
                            "srun python train.py  # what each task is to start, if it trains")  # fmt: skip
    path = next((word for word in launch.words if re.search(r"\.(?:sh|bash|slurm|sbatch)$", word)), launch.words[0])
    return _cannot_tell(
        f"what trains is started by {path}, which is not read here",
        f"grep -nE 'srun|torchrun|accelerate|deepspeed|python' {path}"
        "  # a launcher there: one task a node; python: one task a GPU, by srun",
    )


def _asked(script: BatchScript, shape: Shape) -> list[Check]:
    if shape.gpus is None:
        return [Check(name="GPUs", level="amber", found="the script asks for no GPU", fix="#SBATCH --gpus-per-node=1")]
    return [Check(name="GPUs", level="green", found=f"{shape.gpus} a node")]


# -- a launcher, which starts the ranks of a node


def processes_of(launch: Launch, shape: Shape) -> int | None:
    """How many ranks a launcher starts on a node; None where it does not say a number."""
    if launch.name == "accelerate":
        total, machines = number(launch.says("num_processes")), number(launch.says("num_machines"))
        return total // machines if total and machines else None
    return number(launch.says("nproc_per_node", "nproc", "num_gpus", "devices", "ngpus"))


def _launcher(script: BatchScript, launch: Launch, shape: Shape) -> list[Check]:
    each, checks = processes_of(launch, shape), []
    if launch.by != "srun" or shape.each == 1:
        found = "one a node, whose launcher starts the others" if launch.by else f"{launch.name} starts the ranks"
        checks += [Check(name="tasks", level="green", found=found)]
    elif each == 1 or shape.spread or shape.seen != shape.gpus:
        checks += [_cannot_tell(f"{shape.tasks} tasks, and each starts {launch.name}, for GPUs of its own or for all",
                                _fewer_tasks(launch, script, shape))]  # fmt: skip
    else:
        checks += [
            Check(
                name="tasks",
                level="red",
                fix=_fewer_tasks(launch, script, shape),
                found=f"{shape.each} tasks a node, and each starts {launch.name} for all of its GPUs",
            )
        ]
    if each and shape.seen and each > shape.seen:
        old = script.options.get("gpus-per-task")
        place = f"  # in place of --gpus-per-task={old}" if old and "gpus-per-node" not in script.options else ""
        found = f"{launch.name} starts {each} ranks on a node, and sees {shape.seen} GPUs there"
        return [*checks, Check(name="GPUs", level="red", fix=_gpus_fix(script, each) + place, found=found)]
    if each and shape.gpus and 1 <= each < shape.gpus and launch.by != "ssh":
        found = f"{launch.name} starts {each} ranks on a node with {shape.gpus} GPUs; the others idle"
        return [*checks, Check(name="GPUs", level="amber", fix=_gpus_fix(script, each), found=found)]
    return [*checks, *_asked(script, shape)]


def _gpus_fix(script: BatchScript, each: int) -> str:
    # whatever names GPUs elsewhere must say the same
    for key in ("gres", "gpus"):
        if key in script.options and "gpus-per-node" not in script.options:
            kind = re.match(r"(?:gpu:)?([a-zA-Z]\w*):", script.options[key].removeprefix("gpu:"))
            kinds = f"{kind[1]}:" if kind else ""
            return f"#SBATCH --gpus-per-node={kinds}{each}  # in place of --{key}={script.options[key]}"
    return f"#SBATCH --gpus-per-node={each}"


def _fewer_tasks(launch: Launch, script: BatchScript, shape: Shape) -> str:
    step = launch.step or {}
    if {"ntasks", "ntasks-per-node"} & set(step):
        return with_srun(launch, f"--ntasks={shape.nodes} --ntasks-per-node=1")
    if (tasks := script.options.get("ntasks")) and "ntasks-per-node" not in script.options:
        return f"#SBATCH --ntasks-per-node=1  # in place of --ntasks={tasks}"
    if tasks:
        return f"#SBATCH --ntasks-per-node=1  # and take --ntasks={tasks} away"
    if "ntasks-per-gpu" in script.options:
        return f"#SBATCH --ntasks-per-node=1  # in place of --ntasks-per-gpu={script.options['ntasks-per-gpu']}"
    return "#SBATCH --ntasks-per-node=1"


# -- a program that is one rank


def _program(script: BatchScript, launch: Launch, shape: Shape) -> list[Check]:
    devices, lightning = said(launch), is_lightning(script, launch)
    wanted = devices or shape.gpus
    may = _STARTS_ITS_OWN.search(" ".join(launch.words)) or _ONE_FOR_ALL.search(" ".join(launch.words))
    may = bool(may) or script.mentions(_ONE_FOR_ALL.pattern)
    if launch.by != "srun":
        return [*_alone(launch, shape, devices, script), *_asked(script, shape)]
    told = script.options | (launch.step or {})
    tasks, each = Check(name="tasks", level="green", found=f"{shape.each} a node"), shape.each
    devices_check = Check(name="devices", level="green", found="no number that could differ")
    if "ntasks" in told and "ntasks-per-node" not in told and (shape.tasks or 1) > 1 and not launch.is_alone:
        per = devices or (shape.gpus if shape.spread and shape.gpus else shape.each)
        tasks = Check(
            name="tasks", level="red" if lightning else "amber",
            fix=f"#SBATCH --ntasks-per-node={per}  # in place of --ntasks={told['ntasks']}"
            if "ntasks" in script.options else with_srun(launch, f"--ntasks={told['ntasks']} --ntasks-per-node={per}"),
            found=f"--ntasks={told['ntasks']} does not say how many tasks a node gets; Lightning refuses it above 1",
        )  # fmt: skip
    elif wanted and (only := _only_one(script, launch, shape, wanted)):
        tasks = Check(name="tasks", level="red" if not may or lightning else "amber", found=only[0], fix=only[1])
    elif wanted and wanted > 1 and each == 1 and (shape.tasks is None) and not launch.is_alone:
        level = "amber" if may and not lightning else "red"
        tasks = Check(name="tasks", level=level, fix=f"#SBATCH --ntasks-per-node={wanted}",
                      found=f"no --ntasks-per-node: Slurm starts one task a node, for {wanted} devices")  # fmt: skip
    elif not shape.spread and not launch.is_alone:
        devices_check = _devices(script, launch, shape, devices, lightning, may)
    return [tasks, _seen(script, launch, shape, wanted, lightning), devices_check]


def _only_one(script: BatchScript, launch: Launch, shape: Shape, wanted: int) -> tuple[str, str] | None:
    """What to say where ``--ntasks`` takes tasks away that ``--ntasks-per-node`` names."""
    tasks, each = number(script.options.get("ntasks")), number(script.options.get("ntasks-per-node"))
    nodes = number(script.options.get("nodes")) or 1
    if not tasks or not each or tasks >= nodes * each or shape.each >= wanted or "ntasks" in (launch.step or {}):
        return None
    found = f"--ntasks={tasks} wins over --ntasks-per-node={each}, which is then a maximum: {tasks} task"
    found += f"{'s' if tasks > 1 else ''} in all, for {wanted} devices a node"
    return found, f"#SBATCH --ntasks={wanted * nodes}  # in place of --ntasks={tasks}; or take that line away"


def _devices(
    script: BatchScript, launch: Launch, shape: Shape, devices: int | None, lightning: bool, may: bool
) -> Check:
    each, gpus = shape.each, shape.gpus
    # where srun itself says how many, a directive changes nothing
    step = launch.step or {}
    own = "ntasks" in step

    def fix(tasks: int) -> str:
        asked = f"--ntasks={tasks * shape.nodes} --ntasks-per-node={tasks}"
        if "ntasks-per-gpu" in script.options:
            return (
                f"#SBATCH --ntasks-per-node={tasks}  # in place of --ntasks-per-gpu={script.options['ntasks-per-gpu']}"
            )
        if "ntasks" in script.options and not own:
            old = script.options["ntasks"]
            return f"#SBATCH --ntasks-per-node={tasks}  # and take --ntasks={old} away"
        return with_srun(launch, asked) if own else f"#SBATCH --ntasks-per-node={tasks}"

    if devices is not None and devices != each:
        return Check(name="devices", level="red", fix=f"{fix(devices)}  # or devices={each}",
                     found=f"the command has devices={devices}, and a node gets {each} tasks")  # fmt: skip
    shared = "gpus-per-task" in script.options or "gpus-per-task" in step
    if gpus is None or each == gpus or (shared and each < gpus):
        return Check(name="devices", level="green", found=f"{devices}, as tasks" if devices else "none that differs")
    if each < gpus:
        sure = devices is None and (lightning or (each == 1 and not may))
        return Check(name="devices", level="red" if sure else "amber", fix=fix(gpus),
                     found=f"{each} {'task' if each == 1 else 'tasks'} on a node with {gpus} GPUs; one for each is "
                           "wanted, and Lightning refuses less")  # fmt: skip
    return Check(name="devices", level="red" if (lightning or gpus > 1) and not may else "amber", fix=fix(gpus),
                 found=f"{each} tasks on a node with {gpus} GPUs; each rank needs a GPU of its own")  # fmt: skip


def _seen(script: BatchScript, launch: Launch, shape: Shape, wanted: int | None, lightning: bool) -> Check:
    each = (script.options | (launch.step or {})).get("gpus-per-task")
    if each is not None and shape.seen and shape.each > 1 and wanted and wanted > shape.seen:
        return Check(
            name="GPUs", level="red" if lightning else "amber",
            fix=f"#SBATCH --gpus-per-node={wanted}  # in place of --gpus-per-task={each}",
            found=f"--gpus-per-task={each}: each task sees {each} of the node's GPUs, and Lightning asks each for all",
        )  # fmt: skip
    if shape.gpus is None:
        return Check(name="GPUs", level="amber", found="the script asks for no GPU",
                     fix=f"#SBATCH --gpus-per-node={wanted or (shape.each if shape.tasks else 1)}")  # fmt: skip
    return Check(name="GPUs", level="green", found=f"{shape.gpus} a node")


def _alone(launch: Launch, shape: Shape, devices: int | None, script: BatchScript) -> list[Check]:
    """A program that the batch script starts once, or that something else than srun starts."""
    if launch.by:
        return [Check(name="tasks", level="green", found=f"{launch.by} starts the processes")]
    wanted = devices or shape.gpus or 1
    if shape.tasks == 1 and devices and devices > 1 and shape.nodes == 1:  # Lightning believes what Slurm says
        return [Check(name="devices", level="red", fix=f"#SBATCH --ntasks-per-node={devices}  # and start it by srun",
                      found=f"the command has devices={devices}, and Slurm says that there is one task")]  # fmt: skip
    if wanted > 1 and shape.each == 1 and shape.nodes == 1:
        return [
            Check(
                name="tasks",
                level="amber",
                fix=f"#SBATCH --ntasks-per-node={wanted}  # and start it by srun",
                found=f"one process for {wanted} GPUs: right only if it uses or starts all by itself",
            )
        ]
    return [Check(name="tasks", level="green", found="one process, started by the batch script")]


# -- nodes and srun


def _nodes(script: BatchScript, launch: Launch, shape: Shape) -> Check:
    num_nodes = said(launch, _NUM_NODES) if launch.name not in ("accelerate", "deepspeed") else None
    if num_nodes is not None and num_nodes != shape.nodes and not launch.is_alone:
        return Check(name="nodes", level="red", fix=f"#SBATCH --nodes={num_nodes}  # or num_nodes={shape.nodes}",
                     found=f"the command has num_nodes={num_nodes}, and the script asks for {shape.nodes}")  # fmt: skip
    return Check(name="nodes", level="green", found=f"--nodes={shape.nodes}")


def _srun(script: BatchScript, launch: Launch, shape: Shape) -> Check:
    if launch.by:
        return Check(name="srun", level="green", found="used" if launch.by == "srun" else f"{launch.by} is used")
    if shape.nodes == 1 and (launch.kind == "launcher" or shape.each == 1):
        return Check(name="srun", level="green", found="not used, and one process of the batch script needs none")
    spread = any(other.by in ("ssh", "ray", "mpirun") for other in script.launches)
    itself = launch.name == "deepspeed" and launch.says("hostfile") and launch.says("no_ssh") is None
    unsure = (
        spread or launch.command.places & {"loop"} or launch.says("config_file", "deepspeed_hostfile")
        if launch.kind == "launcher" else spread or _STARTS_ITS_OWN.search(" ".join(launch.words))
    )  # fmt: skip
    fix = with_srun(launch)
    if itself:
        return Check(name="srun", level="green", found="not used; deepspeed reaches the nodes of its hostfile by ssh")
    if shape.nodes == 1:
        level = "red" if is_lightning(script, launch) and not unsure else "amber"
        return Check(
            name="srun",
            level=level,
            fix=fix,
            found=f"not used: one process of {shape.each} starts, and Lightning waits for the others",
        )
    what = f"{launch.name} starts on the first of {shape.nodes} nodes only, and waits for the others"
    return Check(name="srun", level="amber" if unsure else "red", fix=fix, found=f"not used: {what}")
