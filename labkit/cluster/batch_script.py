"""A batch script as ``sbatch`` and the shell read it: its directives, what it starts, and what each step is given."""

import re
from dataclasses import dataclass, field

from labkit.cluster.expand import Value, known_values
from labkit.cluster.launches import Launch, launches
from labkit.cluster.options import count, directive, gpus_in_gres, number
from labkit.cluster.shell import Command, Shell
from labkit.cluster.tokens import tokens

_HET = re.compile(r"#SBATCH\s+(?:hetjob|packjob)\b")
_DIRECTIVE = re.compile(r"#SBATCH(?=[\s-])")
_MEANT = re.compile(r"\s+#SBATCH\s+-|#\s*(?:SBTACH|SBACTH|SBATH|SBTCH|SABTCH|sbatch|Sbatch)\s+-")
_ASKS_GPUS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "tres-per-node", "tres-per-task")
_LONGEST_TASKS = 1_000_000


@dataclass(frozen=True)
class Shape:
    """What a step is given: ``nodes``, ``tasks`` in all and on a ``node``, and the ``gpus`` of a node.

    None is what the script does not say. ``seen`` are the GPUs that one task sees.
    """

    nodes: int
    tasks: int | None
    gpus: int | None
    seen: int | None
    spread: bool = False
    """Whether nothing says on how many nodes the tasks are."""

    @property
    def each(self) -> int:
        """Tasks of a node, rounded up; one where the script does not say, as for Slurm."""
        return 1 if self.tasks is None else -(-self.tasks // max(self.nodes, 1))


@dataclass(frozen=True)
class BatchScript:
    """A script: the ``options`` of its directives, long names without dashes, and its ``commands`` in their order."""

    options: dict[str, str]
    commands: tuple[Command, ...]
    launches: tuple[Launch, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    """What the script sets, as far as that is known."""
    text: str = ""
    ignored: tuple[str, ...] = ()
    """Lines that look like directives, and that ``sbatch`` does not read."""
    components: int = 1
    """Jobs of a heterogeneous job."""

    @classmethod
    def read(cls, text: str) -> "BatchScript":
        """Directives end at the first command, as they do for ``sbatch``."""
        options: dict[str, str] = {}
        ignored: list[str] = []
        begun, components = False, 1
        lines = text.splitlines()
        for line in lines:
            if _DIRECTIVE.match(line) and not begun:
                components += bool(_HET.match(line))
                options |= directive(line.removeprefix("#SBATCH"))
            elif (begun and _DIRECTIVE.match(line)) or _MEANT.match(line):
                ignored.append(line.strip())
            begun = begun or bool(line.strip() and not line.lstrip().startswith("#"))
        documents = _documents(text) if ignored else ""
        ignored = [line for line in ignored if line not in documents]
        shell = Shell(_given(options)).read(text)
        given = _given(options)
        variables = {name: value for name, value in known_values(shell.variables).items() if given.get(name) != value}
        return cls(
            options=options, commands=tuple(shell.commands), launches=tuple(launches(shell)), variables=variables,
            text=text, ignored=tuple(ignored), components=components,
        )  # fmt: skip

    @property
    def nodes(self) -> int:
        """How many nodes the job has, 1 if nothing says."""
        return _nodes(self.options)

    @property
    def training(self) -> Launch | None:
        """What trains: of all that is started by ``srun`` or otherwise on all nodes, or else at all, the likeliest."""
        found = [launch for launch in self.launches if launch.by] or list(self.launches)
        known = [launch for launch in found if launch.kind != "unknown"] or found
        launchers = [launch for launch in known if launch.kind == "launcher"] or known
        return max(reversed(launchers), key=_likely, default=None)

    def shape(self, launch: Launch | None = None) -> Shape:
        """What a launch is given; without one, what the batch script itself is."""
        job, step = self.options, (launch.step or {}) if launch else {}
        nodes, tasks = _nodes(job), _tasks(job)
        if step:
            if (told := number(step.get("ntasks"))) is not None:
                tasks = told
            elif "ntasks-per-node" in step and tasks is None:
                tasks = (number(step["ntasks-per-node"]) or 1) * (number(step.get("nodes")) or nodes)
            nodes = number(step.get("nodes")) or nodes
            if tasks is not None:
                nodes = max(1, min(nodes, tasks))
                if each := number(step.get("ntasks-per-node")):
                    nodes = max(nodes, -(-tasks // each)) if "nodes" not in job else nodes
        asks = {key: step[key] for key in _ASKS_GPUS if key in step} or job
        gpus = _gpus(asks, nodes, tasks)
        each = count((step if "gpus-per-task" in step else job).get("gpus-per-task"))
        bound = (step.get("gpu-bind") or job.get("gpu-bind") or "").startswith("none")
        seen = gpus if each is None or bound else each
        told = job | step
        spread = "ntasks" in told and not {"nodes", "ntasks-per-node"} & set(told) and (tasks or 0) > 1
        return Shape(nodes=nodes, tasks=tasks, gpus=gpus, seen=seen, spread=spread)

    def mentions(self, pattern: str) -> bool:
        """Whether a pattern is in its text, comments left out."""
        return any(re.search(pattern, line.partition(" #")[0]) for line in self.text.splitlines()
                   if not line.lstrip().startswith("#"))  # fmt: skip


def _likely(launch: Launch) -> tuple[bool, bool]:
    """Something that is called after training before all else; what has a step of one task of its own after all."""
    alone = (launch.step or {}).get("ntasks") == "1" and launch.kind != "launcher"
    return not alone, bool(re.search(r"train|tun|\bfit\b|sft|pretrain|ddp|main", " ".join(launch.words[:4])))


def _nodes(options: dict[str, str]) -> int:
    told, tasks = number(options.get("nodes")), number(options.get("ntasks"))
    each = number(options.get("ntasks-per-node"))
    if told is None:
        if tasks and each:
            return -(-tasks // each)
        whole, a_node = count(options.get("gpus")), count(options.get("gpus-per-node"))
        return -(-whole // a_node) if whole and a_node else 1
    return max(1, min(told, tasks)) if tasks else max(told, 1)  # Slurm takes fewer nodes for fewer tasks


def _tasks(options: dict[str, str]) -> int | None:
    """Tasks in all, as far as the options say; ``--ntasks`` wins."""
    nodes = _nodes(options)
    if (told := number(options.get("ntasks"))) is not None:
        return min(told, _LONGEST_TASKS)
    if (each := number(options.get("ntasks-per-node"))) is not None:
        return each * nodes
    gpus = _gpus(options, nodes, None)
    if (each := number(options.get("ntasks-per-gpu"))) is not None and gpus is not None:
        return each * gpus * nodes
    whole, for_each = count(options.get("gpus")), count(options.get("gpus-per-task"))
    return whole // for_each if whole and for_each else None


def _gpus(options: dict[str, str], nodes: int, tasks: int | None) -> int | None:
    """GPUs of a node, as far as the options say."""
    if (number_of := count(options.get("gpus-per-node"))) is not None:
        return number_of
    for key in ("gres", "tres-per-node"):
        if (number_of := gpus_in_gres(options.get(key, ""))) is not None:
            return number_of
    if (each := count(options.get("gpus-per-task"))) is not None:
        return each * (1 if tasks is None else -(-tasks // nodes))
    if (each := count(options.get("gpus-per-socket"))) is not None and (
        sockets := number(options.get("sockets-per-node"))
    ):
        return each * sockets
    whole = count(options.get("gpus"))
    return None if whole is None else whole // nodes


def _given(options: dict[str, str]) -> dict[str, Value]:
    """Variables of the batch script's environment that its directives decide."""
    nodes, gpus = _nodes(options), _gpus(options, _nodes(options), _tasks(options))
    # the batch script is process 0 of node 0
    given: dict[str, Value] = {"SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}
    if "nodes" in options and "-" not in options["nodes"]:
        given |= {"SLURM_NNODES": str(nodes), "SLURM_JOB_NUM_NODES": str(nodes)}
    if gpus is not None:
        given["SLURM_GPUS_ON_NODE"] = str(gpus)
    if "ntasks" in options or "ntasks-per-node" in options:
        given |= {"SLURM_NTASKS": str(_tasks(options)), "SLURM_NPROCS": str(_tasks(options))}
    for key in ("ntasks-per-node", "gpus-per-node", "cpus-per-task", "gpus-per-task"):
        if (number_of := number(options.get(key))) is not None:
            given["SLURM_" + key.replace("-", "_").upper()] = str(number_of)
    return given


def _documents(text: str) -> str:
    """What a script writes out in here-documents, another batch script say."""
    return "\n".join(token.text for token in tokens(text) if token.kind == "document")
