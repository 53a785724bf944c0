"""What is wrong with somebody's batch script, told before it waits in a queue: mistakes with Lightning and caches."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from labkit.config.gpus import GPUS
from labkit.runs.doctor.machine import Check
from labkit.runs.slurm.script import CACHES

_SHORT = {"N": "nodes", "n": "ntasks", "C": "constraint", "t": "time", "o": "output", "G": "gpus", "J": "job-name",
          "p": "partition", "c": "cpus-per-task", "A": "account", "D": "chdir", "e": "error"}  # fmt: skip
_LONG = re.compile(r"--([\w-]+)(?:=(.*))?")
_SAME = {"tasks-per-node": "ntasks-per-node"}
_FAMILIES = frozenset(gpu.name.partition("-")[0] for gpu in GPUS.values())
_OLD_GPUS = frozenset(gpu.name.partition("-")[0] for gpu in GPUS.values() if not gpu.bf16)
_IN_COMMAND = {
    "devices": re.compile(r"(?:^|\s)(?:--)?(?:\w+\.)*(?:devices|num_gpus)[= ](?P<n>\d+)\b"),
    "num_nodes": re.compile(r"(?:^|\s)(?:--)?(?:\w+\.)*num_nodes[= ](?P<n>\d+)\b"),
}
_COMMAND = r"(?:^|[;&|(]\s*|\bsrun\b.*\s)(?:\S*/)?"
_TRAINS = re.compile(
    _COMMAND + r"(?:python3?(?:\.\d+)?|labkit run|torchrun|deepspeed|accelerate|apptainer|singularity)\s"
)
_STARTS_RANKS = re.compile(r"\b(?:torchrun|torch\.distributed\.(?:run|launch)|accelerate launch|deepspeed)\b")
"""Launchers that start the processes of a node themselves: Slurm starts one of them on each."""


@dataclass(frozen=True)
class BatchScript:
    """A script as Slurm reads it: the ``options`` of its directives, long names without dashes, and its commands, with
    continued lines joined."""

    options: dict[str, str]
    commands: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    """What the script exports, as it is written there."""

    @classmethod
    def read(cls, text: str) -> "BatchScript":
        """Directives end at the first command, as they do for ``sbatch``."""
        options: dict[str, str] = {}
        commands: list[str] = []
        for line in re.sub(r"\\\n", " ", text).splitlines():
            line = line.strip()
            if line.startswith("#SBATCH") and not commands:
                options |= _options(line.removeprefix("#SBATCH"))
            elif line and not line.startswith("#"):
                commands.append(line)
        variables: dict[str, str] = {}
        for line in commands:
            if line.startswith(("export ", "declare -x ")) or re.match(r"[A-Za-z_]\w*=", line):
                variables |= _assignments(line)
        return cls(options, tuple(commands), variables)

    @property
    def nodes(self) -> int:
        """How many nodes it asks for, 1 if it does not say."""
        return int(_number(self.options.get("nodes")) or 1)

    @property
    def tasks(self) -> int | None:
        """Tasks on a node, as far as the script says."""
        if (each := _number(self.options.get("ntasks-per-gpu"))) is not None and self.gpus is not None:
            return each * self.gpus
        return _number(self.options.get("ntasks-per-node"))

    @property
    def gpus(self) -> int | None:
        """GPUs of a node, as far as the script says."""
        if (number := _count(self.options.get("gpus-per-node"))) is not None:
            return number
        # 'gpu', 'gpu:2' or 'gpu:a100:2', among other things
        listed = [part for part in self.options.get("gres", "").split(",") if part.split(":")[0] == "gpu"]
        if listed:
            return _count(listed[0].removeprefix("gpu").lstrip(":")) or 1
        if (each := _count(self.options.get("gpus-per-task"))) is not None:
            return each * (_number(self.options.get("ntasks-per-node")) or 1)
        whole = _count(self.options.get("gpus"))
        return None if whole is None else whole // self.nodes

    @property
    def training(self) -> tuple[str, ...]:
        """The commands that may train: Python, in a container or not, without those that ask for tasks themselves."""
        return tuple(
            line for line in self.commands
            if _TRAINS.search(line) and not re.search(r"\bsrun\b.*\s(?:--ntasks[= ]|-n ?\d)", line)
        )  # fmt: skip

    @property
    def starts_ranks(self) -> bool:
        """Whether a launcher on each node starts the processes of that node."""
        return any(_STARTS_RANKS.search(line) for line in self.training)

    def says(self, key: str) -> int | None:
        """``devices`` or ``num_nodes`` as a number in what trains; None where it is a variable, or they differ."""
        found = {match["n"] for line in self.training if (match := _IN_COMMAND[key].search(line.split(" #")[0]))}
        return int(found.pop()) if len(found) == 1 else None


def examine_script(
    text: str, folder: Path, environment: Mapping[str, str], precision: str | None = None
) -> list[Check]:
    """Every check of a script's ``text``. ``folder`` and ``environment`` are those that ``sbatch`` is called in.

    ``precision`` is that of the run, where it is known; else what the script says counts.
    """
    script = BatchScript.read(text)
    devices = script.says("devices") or script.gpus or script.tasks or 1
    checks = [_tasks(script, devices), _gpus(script, devices), _devices(script), _nodes(script), _launch(script)]
    checks += [_bf16(script, precision), *_caches(script, environment), _output(script, folder), _time(script)]
    return checks


def _tasks(script: BatchScript, devices: int) -> Check:
    wanted = 1 if script.starts_ranks else devices
    mend = f"#SBATCH --ntasks-per-node={wanted}"
    if script.starts_ranks:
        if (script.tasks or 1) == 1:
            return Check(name="tasks", level="green", found="one a node, whose launcher starts the others")
        return Check(name="tasks", level="red", mend=mend,
                     found=f"{script.tasks} tasks a node, and each starts a launcher for all of its GPUs")  # fmt: skip
    if "ntasks" in script.options and script.tasks is None:
        said = script.options["ntasks"]
        return Check(
            name="tasks", level="red" if said != "1" else "amber", mend=f"{mend}  # in place of --ntasks={said}",
            found=f"--ntasks={said} does not say how many tasks a node gets; Lightning refuses it above 1",
        )  # fmt: skip
    if script.tasks is None and devices * script.nodes > 1:
        return Check(name="tasks", level="red", mend=mend,
                     found=f"no --ntasks-per-node: Slurm starts one task a node, for {devices} devices")  # fmt: skip
    return Check(name="tasks", level="green", found=f"--ntasks-per-node={script.tasks or 1}")


def _gpus(script: BatchScript, devices: int) -> Check:
    if (each := script.options.get("gpus-per-task")) is not None:
        return Check(
            name="GPUs", level="red" if (script.tasks or 2) > 1 else "amber",
            mend=f"#SBATCH --gpus-per-node={devices}  # in place of --gpus-per-task={each}",
            found=f"--gpus-per-task={each}: each task sees {each} of the node's GPUs, and Lightning asks each for all",
        )  # fmt: skip
    if script.gpus is None:
        return Check(name="GPUs", level="amber", found="the script asks for no GPU",
                     mend=f"#SBATCH --gpus-per-node={devices}")  # fmt: skip
    return Check(name="GPUs", level="green", found=f"{script.gpus} a node")


def _devices(script: BatchScript) -> Check:
    said, gpus = script.says("devices"), script.gpus
    tasks = None if script.starts_ranks else script.tasks
    wanted, what = (tasks, "tasks") if tasks else (gpus, "GPUs")
    if said is not None and wanted is not None and said != wanted:
        option = "--ntasks-per-node" if tasks else "--gpus-per-node"
        return Check(name="devices", level="red", mend=f"#SBATCH {option}={said}  # or devices={wanted}",
                     found=f"the command has devices={said}, and a node gets {wanted} {what}")  # fmt: skip
    if tasks is not None and gpus is not None and tasks != gpus:
        return Check(name="devices", level="red", mend=f"#SBATCH --ntasks-per-node={gpus}",
                     found=f"{tasks} tasks on a node with {gpus} GPUs; Lightning wants one task for each")  # fmt: skip
    return Check(name="devices", level="green", found=f"{said}, as {what}" if said else "no number that could differ")


def _nodes(script: BatchScript) -> Check:
    said = script.says("num_nodes")
    if said is not None and said != script.nodes:
        return Check(name="nodes", level="red", mend=f"#SBATCH --nodes={said}  # or num_nodes={script.nodes}",
                     found=f"the command has num_nodes={said}, and the script asks for {script.nodes}")  # fmt: skip
    return Check(name="nodes", level="green", found=f"--nodes={script.nodes}")


def _launch(script: BatchScript) -> Check:
    several = (script.tasks or 1) * script.nodes > 1
    if several and script.training and not any(re.search(r"\bsrun\b", line) for line in script.commands):
        last = script.training[-1]
        command = last if len(last) < 60 else f"{last[:57]}..."
        return Check(name="srun", level="red", found="nothing is started by srun, so one process waits for the others",
                     mend=f"srun {command}")  # fmt: skip
    return Check(name="srun", level="green", found="used" if several else "one task needs none")


def _bf16(script: BatchScript, precision: str | None) -> Check:
    bf16 = "bf16" in ("\n".join(script.commands) if precision is None else precision)
    types = " ".join(script.options.get(key, "") for key in ("gres", "gpus-per-node", "gpus", "gpus-per-task"))
    constraint, partition = script.options.get("constraint", ""), script.options.get("partition", "")
    # what names a GPU first decides; a partition may have more than its name says
    for level, words in (("red", types), ("red", constraint), ("amber", partition)):
        named = {name for name in _FAMILIES if name in words.lower()}
        if bf16 and named and named <= _OLD_GPUS:
            found = f"{min(named).upper()} has no bf16 (compute capability below 8.0), and the run asks for it"
            mend = "#SBATCH --constraint=a100  # or precision=16-mixed"
            return Check(name="bf16", level=level, found=found, mend=mend)
        if named:
            break
    return Check(name="bf16", level="green", found="asked for, and no GPU without it is" if bf16 else "not asked for")


def _caches(script: BatchScript, environment: Mapping[str, str]) -> list[Check]:
    # a job has the environment of whoever submits it, unless it says otherwise
    inherits = script.options.get("export", "ALL").split(",")[0] == "ALL"
    named = dict(environment) if inherits else {}
    named |= script.variables
    at_home = {name: named[name] for name in CACHES if name in named and _is_at_home(named[name], environment)}
    wanted = ["HF_HOME", "TORCH_HOME", "TRITON_CACHE_DIR"]
    if "XDG_CACHE_HOME" in named:  # which huggingface and torch go by
        wanted = ["TRITON_CACHE_DIR"]
    if "HF_HUB_CACHE" in named and "HF_HOME" in wanted:
        wanted.remove("HF_HOME")
    missing = [name for name in wanted if name not in named]
    if at_home:
        name, value = next(iter(at_home.items()))
        return [Check(name="caches", level="red", found=f"{name}={value} fills the home folder, and its quota",
                      mend=f"export {name}=/PROJECT/cache/{CACHES[name]}".rstrip("/"))]  # fmt: skip
    if missing:
        elsewhere = any(re.match(r"(?:source|\.)\s", line) for line in script.commands)
        lines = " ".join(f"{name}=/PROJECT/cache/{CACHES[name]}" for name in missing)
        return [Check(name="caches", level="red" if "HF_HOME" in missing and not elsewhere else "amber",
                      found=f"{', '.join(missing)} not set, and so below $HOME, whose quota is small",
                      mend=f"export {lines}")]  # fmt: skip
    return [Check(name="caches", level="green", found="all off the home folder")]


def _is_at_home(value: str, environment: Mapping[str, str]) -> bool:
    home = environment.get("HOME")
    return bool(re.match(r"~|\$HOME\b|\$\{HOME\}|/home/\$\{?USER\b", value)) or bool(
        home and home != "/" and Path(value).is_relative_to(home)
    )


def _output(script: BatchScript, folder: Path) -> Check:
    output = script.options.get("output", "")
    parent = (folder / output).parent
    if "%" not in str(parent) and not parent.is_dir():
        return Check(name="output", level="red", mend=f"mkdir -p {shlex.quote(str(parent))}",
                     found=f"{parent} is not there; Slurm makes no folder, and the job ends mute")  # fmt: skip
    return Check(name="output", level="green", found=output or "slurm-%j.out")


def _time(script: BatchScript) -> Check:
    if "time" not in script.options:
        return Check(name="time", level="amber", found="no --time: the partition's own limit holds",
                     mend="#SBATCH --time=01:00:00")  # fmt: skip
    return Check(name="time", level="green", found=script.options["time"])


def _options(text: str) -> dict[str, str]:
    """The options of a directive; those with a short name by their long one."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quote that is never closed; sbatch says so itself
        return {}
    found: dict[str, str] = {}
    name = None
    for word in words:
        if match := _LONG.fullmatch(word):
            name = _SAME.get(match[1], match[1])
            found[name] = match[2] or ""
        elif word.startswith("-") and len(word) > 1 and word[1] in _SHORT:
            name = _SHORT[word[1]]
            found[name] = word[2:].lstrip("=")
        elif name and not found[name]:
            found[name] = word
    return found


def _assignments(line: str) -> dict[str, str]:
    """``NAME=VALUE`` in a line; quotes are taken off and nothing is filled in."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return {}
    pairs = [word.partition("=") for word in words if re.match(r"[A-Za-z_]\w*=", word)]
    return {name: value for name, _, value in pairs}


def _number(text: str | None) -> int | None:
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else None


def _count(text: str | None) -> int | None:
    """The count in ``2``, ``a100:2`` or ``a100:2(S:0)``; None without one."""
    last = (text or "").rpartition(":")[2].partition("(")[0]
    return int(last) if last.isdecimal() else None
