"""The batch script of a run: Slurm's directives, caches, the GPU monitor and the command, to be read and edited."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig

EXIT_AGAIN = 75
"""Exit code of ``labkit run`` when a signal said that its time is nearly over, and it has saved more than it began with
(EX_TEMPFAIL of sysexits.h)."""

WARNING_S = 180
"""How long before the limit a job gets the signal; Slurm may send it up to a minute earlier (sbatch(1), --signal)."""

MONITOR_S = 5
"""Time between two lines of the GPU monitor."""

CACHES = {
    "XDG_CACHE_HOME": "", "HF_HOME": "huggingface", "HF_DATASETS_CACHE": "huggingface/datasets", "TORCH_HOME": "torch",
    "TRITON_CACHE_DIR": "triton", "MPLCONFIGDIR": "matplotlib", "APPTAINER_CACHEDIR": "apptainer", "TMPDIR": "tmp",
}  # fmt: skip
"""Variables that say where libraries write, and the folder of each below the project's ``cache``."""

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What is asked of Slurm. ``gpus`` and ``cpus`` are a node's GPUs and a task's cores; ``time`` and ``memory`` are
    written as Slurm reads them. ``project`` is the folder that caches go to, on a disk that all nodes see."""

    project: Path
    nodes: int = 1
    gpus: int = 1
    cpus: int = 4
    time: str = "01:00:00"
    partition: str | None = None
    constraint: str | None = None
    account: str | None = None
    memory: str | None = None
    container: Path | None = None
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, option in (("nodes", "--nodes"), ("gpus", "--gpus"), ("cpus", "--cpus-per-task")):
            if not 1 <= getattr(self, name) <= 10_000:
                raise ConfigError(f"{option}={getattr(self, name)} must be from 1 to 10000.")
        limit_s(self.time)
        for name in ("partition", "constraint", "account", "memory", "time"):
            if re.search(r"\s", getattr(self, name) or ""):
                raise ConfigError(f"the job's {name} '{getattr(self, name)}' must be one word.")


def limit_s(time: str) -> int:
    """Seconds of a time as Slurm reads it: ``90`` (minutes), ``1:30:00``, ``2-12``, ``2-12:30:00``.

    Raises ``ConfigError`` for anything else, and for none.
    """
    found = _TIME.fullmatch(time)
    numbers = [int(part) for part in found["rest"].split(":")] if found else []
    days = int(found["days"]) if found and found["days"] else 0
    if found and found["days"] is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0, 0)[:2]
    total_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total_s <= 0:
        raise ConfigError(f"--time={time} is not a time of Slurm's; write hours:minutes:seconds, as in 1:30:00.")
    return total_s


def name_of(experiment: str) -> str:
    """The job's name: that of an experiment, or of its YAML file."""
    return re.sub(r"[^\w.-]", "_", Path(experiment).stem if experiment.endswith((".yaml", ".yml")) else experiment)


def write_script(
    request: JobRequest, config: RunConfig, typed: list[str], workspace: Path, runs: Path, labkit: Path,
    logs: Path | None = None,
) -> str:  # fmt: skip
    """The text of the script that runs ``labkit run TYPED`` as a Slurm job.

    ``typed`` is the experiment, its values and profile, without ``devices`` and ``num_nodes``: these come from Slurm.
    ``labkit`` is the command outside a container. The output goes to ``logs``, by default in the workspace. S2's rules
    hold: tasks and GPUs are given by node, caches leave the home folder, every process is started by ``srun``.
    """
    simulated, saves = config.simulated, config.enable_checkpointing
    logs = logs or workspace / "slurm" / "logs"
    warning_s = min(WARNING_S, limit_s(request.time) // 4)
    asked = [
        ("", f"--job-name={name_of(typed[0])}"),
        ("", f"--nodes={request.nodes}"),
        ("one task for each device, told by node: Lightning refuses --ntasks", f"--ntasks-per-node={request.gpus}"),
        ("the node's GPUs; with --gpus-per-task each task would see one of them" * (not simulated),
         "" if simulated else f"--gpus-per-node={request.gpus}"),
        ("", f"--cpus-per-task={request.cpus}"),
        ("", f"--mem={request.memory}" if request.memory else ""),
        ("", f"--time={request.time}"),
        ("", f"--partition={request.partition}" if request.partition else ""),
        ("", f"--constraint={request.constraint}" if request.constraint else ""),
        ("", f"--account={request.account}" if request.account else ""),
        ("a job that comes back writes on in its file", f"--output={_output(logs)}"),
        ("", "--open-mode=append"),
        ("before its time is over labkit is told, saves the step and ends" * saves,
         f"--signal=USR1@{warning_s}" if saves else ""),
        ("", "--requeue" if saves else "--no-requeue"),
    ]  # fmt: skip
    head = [line for why, option in asked if option for line in ((f"# {why}",) if why else ()) + (f"#SBATCH {option}",)]
    parts = [
        ["#!/bin/bash", f"# {shlex.join(typed)}, written by 'labkit slurm'. After an edit:".replace("\n", " "),
         "#   labkit doctor --slurm THIS_FILE"],
        head,
        ["set -eo pipefail"],
        _clock(),
        [f"module load {shlex.quote(module)}" for module in request.modules],
        ["set -u  # from here on: modules read variables that are not set"],
        _places(request, config, workspace, runs, logs),
        _devices(),
        _monitor(),
        _command(request, typed, labkit),
        _members(),
        _ending(saves),
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _clock() -> list[str]:
    return [
        "code=0",
        'echo "start: $(date --iso-8601=seconds), job ${SLURM_JOB_ID:-?} on ${SLURM_JOB_NODELIST:-?}"',
        "# shellcheck disable=SC2317  # the trap calls it",
        "ended() {",
        "  printf 'end: %s, after %d:%02d:%02d, exit code %d\\n' \\",
        '    "$(date --iso-8601=seconds)" $((SECONDS / 3600)) $((SECONDS / 60 % 60)) $((SECONDS % 60)) "$1"',
        "}",
        "trap 'ended \"$?\"' EXIT",
        "# Slurm runs a copy; the script itself lies where it was submitted from, and the job works there",
        'script=$(squeue --noheader --jobs="${SLURM_JOB_ID:-0}" --format=%o 2> /dev/null | head -n 1) || true',
        '[ -f "$script" ] || script=$0',
        'cd "$(dirname "$script")"',
        'echo "script: $PWD/$(basename "$script")"',
    ]


def _members() -> list[str]:
    return [
        "# N ranks that do not know of each other are N runs of MEMBER 1/1, and train N times silently",
        'tasks="${SLURM_NTASKS:-1}"',
        'if [ "$tasks" -gt 1 ] && { [ "$code" -eq 0 ] || [ "$code" -eq ' + str(EXIT_AGAIN) + " ]; } &&",
        '  ! grep -q "^MEMBER: 1/$tasks$" "$RANKS"; then',
        '  echo "error: the $tasks tasks of this job are not one run: none says MEMBER: 1/$tasks. Each may have" >&2',
        '  echo "trained the whole by itself; \'env | grep -E \\"RANK|WORLD_SIZE|SLURM\\"\' in a step shows why." >&2',
        "  code=1",
        "fi",
    ]


def _places(request: JobRequest, config: RunConfig, workspace: Path, runs: Path, logs: Path) -> list[str]:
    exports = [f'export {name}="$CACHE{f"/{folder}" if folder else ""}"' for name, folder in CACHES.items()]
    exports.remove('export TMPDIR="$CACHE/tmp"')
    hub = shlex.quote(str(request.project / "cache" / CACHES["HF_HOME"]))
    fetch = [f"# weights, from a machine with a network:  HF_HOME={hub} labkit fetch {config.model_name}"]
    return [
        "# all that libraries write lies in the project: home folders are small, and full before a run is over",
        f"export LABKIT_WORKSPACE={shlex.quote(str(workspace))}",
        f"export LABKIT_RUNS={shlex.quote(str(runs))}",
        f"CACHE={shlex.quote(str(request.project / 'cache'))}",
        f"LOGS={shlex.quote(str(logs))}",
        *(fetch if config.weights == "pretrained" else []),
        *exports,
        "# a node's own disk, where Slurm gives one",
        'export TMPDIR="${SLURM_TMPDIR:-$CACHE/tmp}"',
        'mkdir -p "$LABKIT_RUNS" "$LOGS" "$HF_DATASETS_CACHE" "$TORCH_HOME" "$TRITON_CACHE_DIR" "$MPLCONFIGDIR"'
        ' "$APPTAINER_CACHEDIR" "$TMPDIR"',
        "# srun does not take this over by itself since Slurm 22.05",
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
    ]


def _devices() -> list[str]:
    return [
        "# as many devices as Slurm has given; a simulated GPU for each task where it has given none",
        'DEVICES="${SLURM_GPUS_ON_NODE:-$SLURM_NTASKS_PER_NODE}"',
    ]


def _monitor() -> list[str]:
    asked = "timestamp,index,utilization.gpu,memory.used,memory.total"
    return [
        f"# what the GPUs do, every {MONITOR_S} s, in a file for each node; none where there is no nvidia-smi",
        "# shellcheck disable=SC2016  # the node's shell fills in what is its own",
        'srun --overlap --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task=1 bash -c \'trap "" USR1',
        "if command -v nvidia-smi > /dev/null; then",
        f'  exec nvidia-smi --query-gpu={asked} --format=csv --loop={MONITOR_S} >> "$0-$SLURMD_NODENAME.csv"',
        'fi\' "$LOGS/$SLURM_JOB_NAME-$SLURM_JOB_ID-gpus" &',
        "MONITOR=$!",
    ]


def _command(request: JobRequest, typed: list[str], labkit: Path) -> list[str]:
    command = shlex.quote(str(labkit))
    if request.container:
        if found := [path for path in (request.container, request.project) if re.search("[,:]", str(path))]:
            raise ConfigError(f"Apptainer binds no path with a comma or a colon: {found[0]}.")
        # the image has its own labkit; the workspace, the runs and the caches are bound to the places they have
        bound = '"$LABKIT_WORKSPACE","$LABKIT_RUNS","$CACHE"'
        command = f"apptainer exec --nv --bind {bound} {shlex.quote(str(request.container))} labkit"
    return [
        "# what the ranks say is kept too, to see that they are one run",
        'RANKS="$LOGS/$SLURM_JOB_NAME-$SLURM_JOB_ID-ranks.txt"',
        "srun --kill-on-bad-exit=0 \\",
        f"  {command} run {shlex.join(typed)} \\",
        '  devices="$DEVICES" num_nodes="$SLURM_JOB_NUM_NODES" 2>&1 | tee "$RANKS" || code=$?',
        'kill "$MONITOR" 2> /dev/null || true',
    ]


def _ending(saves: bool) -> list[str]:
    if not saves:
        return ['exit "$code"']
    return [
        f"# {EXIT_AGAIN}: saved before the time was over, and not done. The job queues again, and resumes there",
        f'if [ "$code" -eq {EXIT_AGAIN} ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$code"',
    ]


def _output(logs: Path) -> str:
    """Where a job prints, as a directive has it: ``%`` begins a name of Slurm's, and a blank ends the option."""
    path = f"{str(logs).replace('%', '%%')}/%x-%j.out"
    return f'"{path}"' if re.search(r"\s", path) else path
