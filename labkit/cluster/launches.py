"""Launches: what a script starts that may train, by whom it is started, and whether it starts the ranks of a node."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from labkit.cluster.options import read_options
from labkit.cluster.shell import Command, Shell

_PYTHON = re.compile(r"(?:i?python|pypy)3?(?:\.\d+)?")
_SHELLS = frozenset({"bash", "sh", "zsh", "dash", "ksh"})
_PASSES_ON = frozenset(
    {"env", "time", "exec", "nohup", "command", "builtin", "setsid", "unbuffer", "catchsegv", "sudo", "nice", "ionice",
     "numactl", "taskset", "stdbuf", "timeout", "strace", "nsys", "ncu", "chrt", "tini", "dumb-init", "xvfb-run",
     "firejail", "compute-sanitizer"}
)  # fmt: skip
_ENVIRONMENTS = frozenset({"conda", "mamba", "micromamba", "uv", "poetry", "pixi", "pipenv", "pdm", "hatch", "rye"})
_CONTAINERS = frozenset(
    {"apptainer", "singularity", "docker", "podman", "podman-hpc", "shifter", "enroot", "ch-run", "sarus"}
)
Spreads = Literal["srun", "mpirun", "ssh", "ray"]
"""What starts a program on other nodes, or several times."""

_SPREADS: dict[str, Spreads] = {
    "mpirun": "mpirun", "mpiexec": "mpirun", "mpiexec.hydra": "mpirun", "orterun": "mpirun", "prun": "mpirun",
    "ibrun": "mpirun", "horovodrun": "mpirun", "aprun": "mpirun", "jsrun": "mpirun", "ssh": "ssh",
    "pdsh": "ssh", "clush": "ssh", "parallel": "ssh", "ray": "ray", "dask": "ray",
}  # fmt: skip
"""What reaches other nodes, or starts several processes, without ``srun``."""

_LAUNCHERS = {"torchrun": None, "accelerate": "launch", "deepspeed": None, "ds": None, "fabric": "run",
              "lightning": "run", "composer": None, "tune": "run", "colossalai": "run", "axolotl": "train",
              "llamafactory-cli": "train", "swift": None, "torchrun-hpc": None, "torchpippy": None}  # fmt: skip
"""Programs that start the ranks of a node themselves, and the word that must follow."""

_MODULES = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "accelerate": "accelerate",
    "accelerate.commands.launch": "accelerate",
    "deepspeed.launcher.runner": "deepspeed",
    "deepspeed.launcher.launch": "deepspeed",
    "axolotl.cli.train": "python",
}
_HELPERS = frozenset(
    {"venv", "virtualenv", "pip", "http.server", "json.tool", "zipfile", "tarfile", "site", "compileall", "ensurepip",
     "nltk.downloader", "tensorboard.main", "ipykernel", "ipykernel_launcher", "torch.utils.collect_env", "pytest",
     "jupyter", "uv", "build", "black", "ruff"}
)  # fmt: skip
_HARMLESS = frozenset(
    {"hostname", "nvidia-smi", "rocm-smi", "env", "printenv", "echo", "printf", "date", "sleep", "ls", "mkdir", "cp",
     "rsync", "rm", "mv", "ln", "tar", "unzip", "zip", "cat", "scontrol", "true", "false", "uname", "lscpu", "free",
     "df", "du", "which", "nvcc", "dcgmi", "chmod", "tee", "sed", "awk", "grep", "ip", "curl", "wget", "git", "pip",
     "pip3", "touch", "test", "[", "nproc", "id", "pwd", "whoami", "stat", "kill", "pkill", "head", "tail", "sbcast",
     "squeue", "sacct", "sstat", "numactl", "hwloc-ls", "lstopo"}
)  # fmt: skip
_FILE = re.compile(r"(?P<path>\S*[\w.@-]\.(?P<kind>py|sh|bash|slurm|sbatch|zsh))", re.IGNORECASE)
_ASSIGNED = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_STEP_ONLY = ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_STEP_ID")
_DEPTH = 6


@dataclass(frozen=True)
class Launch:
    """One program that may train, with ``words`` from its own name on.

    ``kind``: ``launcher`` starts the ranks of a node, ``python`` is one rank, ``unknown`` may be anything. ``by`` is
    what starts it on other nodes or several times, None for the shell of the batch script. ``step`` has srun's options.
    """

    kind: Literal["launcher", "python", "unknown"]
    words: tuple[str, ...]
    command: Command
    by: Spreads | None = None
    step: dict[str, str] | None = None
    brings: str | None = None
    """The container or environment that it runs in, where the command says one."""
    assigned: tuple[str, ...] = ()
    """Names that are set for it alone."""

    @property
    def name(self) -> str:
        """The program's name without its folder; ``torchrun`` for its module too."""
        return PurePosixPath(self.words[0]).name

    @property
    def is_alone(self) -> bool:
        """Whether its step says itself that it has one task, on purpose."""
        return (self.step or {}).get("ntasks") == "1"

    @property
    def own(self) -> tuple[str, ...]:
        """A launcher's own options: what stands before the program that it starts."""
        words = self.words[1:]
        for n, word in enumerate(words):
            if re.fullmatch(r"\S+\.py|-m|--module", word) or word == "--":
                return words[:n]
        return words

    def says(self, *names: str) -> str | None:
        """The value of a launcher's option, by its names with underscores."""
        return option(self.own, *names)


def option(words: tuple[str, ...], *names: str) -> str | None:
    """The value of ``--NAME VALUE``, ``--NAME=VALUE`` or ``-NAME``, dashes and underscores alike."""
    for n, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key.startswith("-") and key.lstrip("-").replace("-", "_") in names:
            return value if equals else words[n + 1] if n + 1 < len(words) else ""
    return None


def with_srun(launch: Launch, options: str = "") -> str:
    """The command as it is written, started by ``srun`` with ``options`` in place of what it says of tasks."""
    command = launch.command
    if not re.search(r"\bsrun\b", command.source):
        first = command.words[0] if command.words[0] in ("exec", "time", "nohup") else ""
        begin = command.at + (len(first) + 1 if first else 0)
        return f"{command.source[:begin]}srun {options + ' ' if options else ''}{command.source[begin:]}"
    bare = re.sub(r"\s(?:-n\s*|--ntasks(?:-per-node)?[= ])\d+(?=\s)", "", command.source)
    return re.sub(r"\bsrun\b", f"srun {options}", bare, count=1)


def launches(shell: Shell) -> list[Launch]:
    """Everything in a script that may train, in the order in which it is started."""
    return [launch for command in shell.commands for launch in _of(command)]


def _of(command: Command) -> list[Launch]:
    start = Launch(kind="unknown", words=command.words, command=command, assigned=tuple(command.assigned))
    return list(_peel(start, command.document, 0))


def _peel(launch: Launch, document: str | None, depth: int) -> Iterator[Launch]:
    """What is started in the end, through all that only passes it on."""
    words = launch.words
    while words and _ASSIGNED.fullmatch(words[0]) and launch.words is not words:
        launch, words = replace(launch, assigned=(*launch.assigned, words[0].partition("=")[0])), words[1:]
    if not words or depth > _DEPTH:
        return
    launch, name, rest = replace(launch, words=words), PurePosixPath(words[0]).name, words[1:]
    further = _passed_on(launch, name, rest)
    if further is not None:
        yield from _peel(further, document, depth + 1) if further.words else iter(())
    elif name in _SHELLS or name == "eval":
        yield from _shell(launch, name, rest, document, depth)
    elif _PYTHON.fullmatch(name):
        yield from _python(launch, rest, depth)
    elif name in _LAUNCHERS and (_LAUNCHERS[name] is None or _LAUNCHERS[name] in rest[:2]):
        yield replace(launch, kind="launcher")
    elif name in _LAUNCHERS or name in _HARMLESS:
        return
    elif name == "labkit":
        if "run" in rest[:1]:
            yield replace(launch, kind="python")
    elif match := _FILE.fullmatch(words[0]):
        if match["kind"] == "py" or "/" in words[0] or launch.by:
            yield replace(launch, kind="python" if match["kind"] == "py" else "unknown")
    elif launch.by or launch.brings or words[0].startswith("./") or _is_a_command(words[0], rest):
        yield launch


def _is_a_command(word: str, rest: tuple[str, ...]) -> bool:
    """Whether a variable of unknown value holds what starts the rest, or a whole command."""
    return word.startswith("$") and (not rest or _first_program(rest) is not None)


def _passed_on(launch: Launch, name: str, rest: tuple[str, ...]) -> Launch | None:
    """What is left to look at where a program only starts another one; None where this is not such a program."""
    if name == "srun":
        step, begin = read_options(rest)
        return replace(launch, words=rest[begin:], by="srun", step=(launch.step or {}) | step)
    if name in _SPREADS:
        begin = _first_program(rest)
        words = rest[begin:] if begin is not None else (launch.words[0],)
        if begin is None and _SPREADS[name] == "ssh":
            words = ()
        further = replace(launch, words=words, by=launch.by or _SPREADS[name])
        return None if words == launch.words and launch.by else further
    if name in _PASSES_ON:
        begin = 0
        while begin < len(rest) and (rest[begin].startswith("-") or _ASSIGNED.fullmatch(rest[begin])):
            begin += 1
        first = _first_program(rest)
        if first is not None and name not in ("exec", "env", "command", "nohup", "time"):
            begin = first
        names = tuple(word.partition("=")[0] for word in rest[:begin] if _ASSIGNED.fullmatch(word))
        return replace(launch, words=rest[begin:], assigned=(*launch.assigned, *names))
    if name in _ENVIRONMENTS:
        begin = _first_program(rest) if "run" in rest[:3] else None
        return replace(launch, words=rest[begin:] if begin is not None else (), brings=name)
    if name in _CONTAINERS:
        begin = _first_program(rest)
        image = (rest or ("",))[0] not in ("pull", "build", "import", "create", "images", "login", "rm", "stop", "ps")
        words = rest[begin:] if begin is not None else ("its-own-program",) * image
        return replace(launch, words=words, brings=name)
    return None


def _first_program(words: tuple[str, ...]) -> int | None:
    """Where the first word stands that is a program known to start others, or a script."""
    for n, word in enumerate(words):
        name = PurePosixPath(word).name
        known = name in _SHELLS or name in _LAUNCHERS or name in ("srun", "labkit", "mpirun")
        named = n > 0 and words[n - 1] in ("-n", "--name", "-p", "--prefix", "--image", "--env", "-e", "--with", "-w")
        if (known or _PYTHON.fullmatch(name)) and not named:
            return n
        if _FILE.fullmatch(word) and not word.startswith("-") and not named:
            return n
    return None


def _shell(launch: Launch, name: str, rest: tuple[str, ...], document: str | None, depth: int) -> Iterator[Launch]:
    """What a shell that is given a text, a here-document or a script does."""
    text, script = document, None
    if name == "eval":
        text = " ".join(rest)
    else:
        for n, word in enumerate(rest):
            if word.startswith("-") and not word.startswith("--") and "c" in word:
                text = rest[n + 1] if n + 1 < len(rest) else ""
                break
            if not word.startswith(("-", "+")):
                script = word
                break
    if script is not None:
        yield launch
        return
    if text is None:
        return
    variables = dict(launch.command.variables)
    if launch.by == "srun":  # there each task has its own
        for known in _STEP_ONLY:
            variables.pop(known, None)
    for command in Shell(variables).read(text).commands:
        inner = replace(command, source=launch.command.source, at=launch.command.at,
                        places=command.places | launch.command.places)  # fmt: skip
        yield from _peel(replace(launch, words=command.words, command=inner), command.document, depth + 1)


def _python(launch: Launch, rest: tuple[str, ...], depth: int) -> Iterator[Launch]:
    i = 0
    while i < len(rest) and rest[i].startswith("-") and rest[i] != "-":
        if rest[i] in ("-c", "-V", "--version", "-h", "--help"):
            return
        if rest[i] == "-m" or rest[i].startswith("-m"):
            module = rest[i][2:] or (rest[i + 1] if i + 1 < len(rest) else "")
            after = rest[i + 1 + (rest[i] == "-m") :]
            if program := _MODULES.get(module):
                kind = "python" if program == "python" else "launcher"
                yield replace(launch, kind=kind, words=(program, *after))
            elif module and module not in _HELPERS:
                yield replace(launch, kind="python")
            return
        i += 2 if rest[i] in ("-W", "-X") else 1
    if i >= len(rest) or rest[i] == "-":
        return
    if PurePosixPath(rest[i]).name in _LAUNCHERS:  # python $(which torchrun)
        yield from _peel(replace(launch, words=rest[i:]), None, depth + 1)
        return
    yield replace(launch, kind="python")
