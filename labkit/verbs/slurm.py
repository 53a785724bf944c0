"""``labkit slurm``."""

import argparse
import json
import os
import sys
from pathlib import Path

from labkit.cluster.examine import examine_script
from labkit.cluster.queue import follow, run_of, submit
from labkit.cluster.script import JobRequest, name_of, write_script
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.ledger.ledger import Ledger
from labkit.ledger.terminal import say
from labkit.verbs.options import EXIT_FAILED, add_experiment, add_profile, pairs
from labkit.verbs.run import BAD

HELP = """\
Write the batch script that runs an experiment on a Slurm cluster; submit it, follow it and fetch its record.

  labkit slurm six_lora_ddp --profile a100-80gb --gpus 4 --time 2:00:00 --constraint a100
  labkit slurm multi_fsdp --profile h100-94gb --nodes 2 --gpus 4 --submit      and give it to sbatch
  labkit slurm xxl_lora --profile a100-80gb --container image.sif --follow     and wait for its record
  labkit slurm --job 4711                                                      wait for a job of before

The script lies in workspace/slurm, to be read and edited. Tasks and GPUs are told by node, every cache goes below one
folder, a monitor writes what the GPUs do, and before the job's time is over the run saves its step and the job queues
again. 'labkit doctor --slurm SCRIPT' examines a script, this or another.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_experiment(parser)
    add_profile(parser)
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="GPUs of each node (default: %(default)s)")
    parser.add_argument("--time", default="01:00:00", metavar="H:M:S", help="the job's time (default: %(default)s)")
    parser.add_argument("--partition", metavar="NAME", help="the cluster's partition")
    parser.add_argument("--constraint", metavar="FEATURE", help="what nodes must have, a100 say")
    parser.add_argument("--account", metavar="NAME", help="the account that pays")
    parser.add_argument("--cpus-per-task", type=int, metavar="N", help="cores of each task (default: workers and one)")
    parser.add_argument("--mem", metavar="SIZE", help="host memory of a node, 256G say")
    parser.add_argument("--container", type=Path, metavar="IMAGE", help="run in this Apptainer image, with --nv")
    parser.add_argument("--module", action="append", default=[], metavar="NAME", help="load this module (repeatable)")
    parser.add_argument("--project", type=Path, metavar="FOLDER", help="where caches go (default: workspace/slurm)")
    parser.add_argument("--submit", action="store_true", help="give the script to sbatch")
    parser.add_argument("--follow", action="store_true", help="submit, print what the job prints, and its record")
    parser.add_argument("--job", metavar="ID", help="follow a job that was submitted before")


def main(args: argparse.Namespace) -> int:
    """Write the script, and do with it what was asked for."""
    if bool(args.job) == bool(args.experiment):
        raise ConfigError("give the name of an experiment, or --job ID for a job that was submitted.")
    workspace = Workspace.find()
    if args.job:
        return _follow(args.job, args)
    script = _written(workspace, args)
    if args.follow:
        job = submit(script)
        say(f"{script}\njob {job}", error=True)
        return _follow(job, args)
    job = submit(script) if args.submit else None
    if args.json:
        print(json.dumps({"script": str(script), "job": job}))
    else:
        say(str(script))
        say(f"job {job}; 'labkit slurm --job {job}' follows it" if job else f"sbatch {script}")
    return 0


def _written(workspace: Workspace, args: argparse.Namespace) -> Path:
    overrides = pairs(args.overrides)
    if taken := {"devices", "num_nodes"} & set(overrides):
        raise ConfigError(f"{min(taken)} comes from Slurm; give --gpus and --nodes.")
    overrides.setdefault("enable_checkpointing", "true")
    config = _config(workspace, args, overrides)
    request = JobRequest(
        nodes=args.nodes, gpus=args.gpus, cpus=args.cpus_per_task or config.num_workers + 1, time=args.time,
        partition=args.partition, constraint=args.constraint, account=args.account, memory=args.mem,
        container=args.container and args.container.absolute(), modules=tuple(args.module),
        project=(args.project or workspace.home / "slurm").absolute(),
    )  # fmt: skip
    experiment = args.experiment
    if experiment.endswith((".yaml", ".yml")):
        experiment = str(Path(experiment).absolute())
    typed = [experiment, *(f"{key}={value}" for key, value in overrides.items()), "--profile", args.profile]
    labkit = Path(sys.executable).with_name("labkit")
    folder = workspace.home / "slurm"
    text = write_script(request, config, typed, workspace.root, workspace.runs, labkit, folder / "logs")
    script = folder / f"{name_of(experiment)}-{config.hash[:8]}.sbatch"
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)  # before the job: Slurm makes no folder for its output
        for check in examine_script(text, Path.cwd(), os.environ, config.precision):
            if check.level == "red":
                raise ConfigError(f"{check.found}: {check.fix}")
        if script.exists() and script.read_text(encoding="utf-8", errors="replace") != text:
            script.replace(script.with_suffix(".sbatch.bak"))  # it may have been edited
        script.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{script} cannot be written: {error.strerror}.") from None
    return script


def _config(workspace: Workspace, args: argparse.Namespace, overrides: dict[str, str]) -> RunConfig:
    asked = overrides | {"devices": str(args.gpus), "num_nodes": str(args.nodes)}
    return resolve(workspace, args.experiment, asked, args.profile).config


def _follow(job: str, args: argparse.Namespace) -> int:
    """Wait for the job, and print the record of its run."""
    from labkit.ledger.summary import summary

    follow(job, lambda line: say(line, error=args.json))
    folder = run_of(job, Ledger(Workspace.find().runs))
    record = folder.read()
    if args.json:
        print(json.dumps(record.to_dict(), indent=1))
    else:
        say(summary(record))
        say(f"  record: {folder.record}")
    return EXIT_FAILED if record.status in BAD else 0
