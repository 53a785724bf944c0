"""Checks of what surrounds a run: the file itself, the kind of GPU, caches, output, time limit and signal."""

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from labkit.cluster.batch_script import BatchScript
from labkit.cluster.script import CACHES
from labkit.config.gpus import GPUS
from labkit.config.kernels import BUILDS, LOCKED, capability_of, has_code
from labkit.config.precision import DTYPES
from labkit.help.doctor.machine import Check

_FAMILIES = {gpu.name.partition("-")[0]: gpu.compute_capability for gpu in GPUS.values() if gpu.compute_capability}
_BF16_FROM = (8, 0)
_ACTIVATES = r"^\s*(?:source|\.|conda|mamba|micromamba|module|ml|spack|pyenv|workon)\s"
_FILLED_IN = ("nodes", "ntasks", "ntasks-per-node", "gres", "gpus", "gpus-per-node", "gpus-per-task", "cpus-per-task",
              "time", "mem", "partition", "output", "error", "constraint")  # fmt: skip


def check_file(text: str, script: BatchScript) -> list[Check]:
    """What ``sbatch`` refuses in the file itself, and what it passes over silently."""
    if text.startswith("\ufeff"):
        return [_file("begins with a byte order mark, not with #!", "sed -i '1s/^\\xEF\\xBB\\xBF//' FILE")]
    if "\r\n" in text:
        return [_file("has DOS line breaks, which sbatch refuses", "sed -i 's/\\r$//' FILE")]
    if "\0" in text:
        return [_file("contains a NUL character, which sbatch refuses", "tr -d '\\0' < FILE > CLEAN")]
    if not text.startswith("#!"):
        return [_file("does not begin with #!, and sbatch refuses it", "sed -i '1i #!/bin/bash' FILE")]
    found: list[Check] = []
    interpreter = text.partition("\n")[0]
    if not re.search(r"(?:ba|z|k|da)?sh\b", interpreter) or re.search(r"\b(?:t?csh|fish)\b", interpreter):
        found.append(Check(name="file", level="amber", fix="head -1 FILE",
                           found=f"cannot tell: {interpreter} is no shell whose commands are read here"))  # fmt: skip
    for key in _FILLED_IN:
        if re.search(r"\$[({\w]|`", value := script.options.get(key, "")):
            found.append(_file(f"--{key}={value}: sbatch fills in no variables in a directive",
                               f"sbatch --{key}=VALUE FILE"))  # fmt: skip
    if script.ignored:
        more = f" and {len(script.ignored) - 1} more" if len(script.ignored) > 1 else ""
        found.append(Check(name="file", level="amber", fix=script.ignored[0].replace("#sbatch", "#SBATCH"),
                           found=f"'{script.ignored[0]}'{more} is not read by sbatch: directives begin a line with "
                                 "#SBATCH and stand before the first command"))  # fmt: skip
    return found or [Check(name="file", level="green", found=interpreter)]


def _file(found: str, fix: str) -> Check:
    return Check(name="file", level="red", found=found, fix=fix)


def check_kind(script: BatchScript, precision: str | None, cuda: str | None) -> Check:
    """Whether the kind of GPU that a script names can do what it asks: has torch code for it, and it bf16.

    ``cuda`` is that of the torch here, None for a CPU build.
    """
    bf16 = script.mentions("bf16") if precision is None else DTYPES[precision].bf16
    asked = ",".join(script.options.get(key, "") for key in ("gres", "gpus-per-node", "gpus", "gpus-per-task"))
    kinds = [part.rpartition("gpu:")[2] if "gpu:" in part else part for part in asked.split(",")]
    words = [kinds, re.split(r"[|&,\[\]()*]+", script.options.get("constraint", ""))]
    # what names a GPU first decides; a partition may have more than its name says
    for level, names in (("red", words[0]), ("red", words[1]), ("amber", [script.options.get("partition", "")])):
        named = {name: capability for name in names if name and (capability := _capability(name))}
        if not named:
            continue
        kind, best = max(named.items(), key=lambda item: item[1])
        if bf16 and best < _BF16_FROM:
            return Check(
                name="bf16",
                level=level,
                fix=_instead(script, kind) + "  # or precision=16-mixed",
                found=f"{kind.partition(':')[0].upper()} has no bf16 (it comes with 8.0), and the run asks for it",
            )
        return _code(script, kind, best, cuda, level) or Check(name="bf16", level="green", found=f"{kind} can do it")
    return Check(name="bf16", level="green", found="asked for, and no GPU without it is" if bf16 else "not asked for")


def _capability(name: str) -> tuple[int, int] | None:
    return next((of for family, of in _FAMILIES.items() if family in name.lower()), None) or capability_of(name)


def _code(script: BatchScript, kind: str, capability: tuple[int, int], cuda: str | None, level: str) -> Check | None:
    build = cuda if cuda in BUILDS else LOCKED
    if has_code(BUILDS[build], capability):
        return None
    launch = script.training
    own = launch is not None and launch.name == "labkit" and launch.brings is None
    brings = not own and (launch is None or launch.brings is not None or script.mentions(_ACTIVATES))
    number = f"{capability[0]}.{capability[1]}"
    if brings:  # another torch may have it: builds for CUDA 12.6 go down to 5.0
        return Check(
            name="GPU type", level="amber", fix='python -c "import torch; print(torch.cuda.get_arch_list())"',
            found=f"{kind} has compute capability {number}: torch for CUDA {build} has no code for it"
            + ", that for 12.6 has" * has_code(BUILDS["12.6"], capability),
        )  # fmt: skip
    return Check(
        name="GPU type", level="red" if level == "red" else "amber", fix=_instead(script, kind),
        found=f"{kind} has compute capability {number}, and torch for CUDA {build} has no code below 7.5, whatever the "
              "precision",
    )  # fmt: skip


def _instead(script: BatchScript, kind: str) -> str:
    for key in ("gres", "gpus-per-node", "gpus", "gpus-per-task"):
        if kind and kind in (asked := script.options.get(key, "")):
            name = re.match(r"[a-zA-Z]\w*", kind.removeprefix("gpu:"))
            return f"#SBATCH --{key}={asked.replace(name[0] if name else kind, 'a100')}  # in place of --{key}={asked}"
    return "#SBATCH --constraint=a100"


def check_caches(script: BatchScript, environment: Mapping[str, str]) -> Check:
    """Whether what libraries save lies off the home folder. A job works without; its quota may not."""
    # a job has the environment of the user who submits it, unless it says otherwise
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
        return Check(name="caches", level="amber", found=f"{name}={value} fills the home folder, and its quota",
                     fix=f"export {name}=/PROJECT/cache/{CACHES[name]}".rstrip("/"))  # fmt: skip
    if missing:
        lines = " ".join(f"{name}=/PROJECT/cache/{CACHES[name]}" for name in missing)
        return Check(name="caches", level="amber", fix=f"export {lines}",
                     found=f"{', '.join(missing)} not set, and so below $HOME, whose quota is small")  # fmt: skip
    return Check(name="caches", level="green", found="all off the home folder")


def _is_at_home(value: str, environment: Mapping[str, str]) -> bool:
    home = environment.get("HOME")
    return bool(re.match(r"~|\$HOME\b|\$\{HOME\}|/home/\$\{?USER\b", value)) or bool(
        home and home != "/" and Path(value).is_relative_to(home)
    )


def check_output(script: BatchScript, folder: Path) -> Check:
    """Whether the folder is there that Slurm writes what a job prints to; it makes none."""
    base = folder / script.options.get("chdir", "")
    for key in ("output", "error"):
        parent = (base / script.options.get(key, "")).parent
        if not re.search(r"[%$`\0]", str(parent)) and not parent.is_dir():
            # a path of another machine's says nothing where there is no Slurm
            sure = shutil.which("sbatch") is not None or parent.is_relative_to(folder)
            return Check(name="output", level="red" if sure else "amber", fix=f"mkdir -p {shlex.quote(str(parent))}",
                         found=f"{parent} is not there; Slurm makes no folder, and the job ends mute")  # fmt: skip
    return Check(name="output", level="green", found=script.options.get("output") or "slurm-%j.out")


def check_time(script: BatchScript) -> Check:
    """Whether a limit is asked for."""
    if "time" not in script.options:
        return Check(name="time", level="amber", found="no --time: the partition's own limit holds",
                     fix="#SBATCH --time=01:00:00")  # fmt: skip
    return Check(name="time", level="green", found=script.options["time"])


def check_signal(script: BatchScript, fix: str) -> Check:
    """Whether anything hears ``--signal``. ``fix`` is the command started by ``srun``."""
    asked = script.options.get("signal", "")
    if not asked:
        return Check(name="signal", level="green", found="none is asked for")
    launch = script.training
    name = asked.rpartition(":")[2].partition("@")[0].upper().removeprefix("SIG")
    traps = [command for command in script.commands if command.words[0] == "trap"]
    trap = any(name in " ".join(command.words).upper() or name.isdecimal() for command in traps)
    if re.match(r"[RH]?B[RH]?:", asked.upper()):
        if trap or (launch and launch.by is None and launch.command.words[0] == "exec"):
            waits = trap and any(command.words[0] == "wait" for command in script.commands)
            if waits or not trap:
                return Check(name="signal", level="green", found=asked)
            return Check(name="signal", level="amber", fix=f"{fix} & wait  # and 'wait' again in what the trap calls",
                         found=f"--signal={asked} reaches the batch shell, whose trap runs only when the command in "
                               "front has ended")  # fmt: skip
        return Check(
            name="signal",
            level="amber",
            fix=f"#SBATCH --signal={asked.partition(':')[2]}",
            found=f"--signal={asked} reaches the batch shell only, which has no trap for it and ends by it",
        )
    if launch is not None and launch.by is None:
        return Check(name="signal", level="amber", fix=fix,
                     found=f"--signal={asked} reaches what srun has started only, and {launch.name} is started by the "
                           "batch shell: it never hears it, and saves and requeues nothing")  # fmt: skip
    return Check(name="signal", level="green", found=asked)
