"""``labkit doctor``."""

import argparse
import dataclasses
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from labkit.cluster.examine import examine_script
from labkit.config.datasets import find_dataset
from labkit.config.device import is_cuda
from labkit.config.errors import ConfigError
from labkit.config.gpus import find_gpu
from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.help.doctor.examine import examine, worst
from labkit.help.doctor.machine import Check, DataFound, Machine, Needs
from labkit.ledger.terminal import console, say, width, wrapped
from labkit.train.errors import DataError
from labkit.verbs.options import EXIT_FAILED, add_experiment, add_profile, pairs, quiet_libraries

HELP = """\
Is this machine ready? Before a run or a class: GPU, driver, host memory, disk, libraries, data, hub.

  labkit doctor                                           the machine, for the profile tiny
  labkit doctor xxl_cpu_offload --profile h100-94gb       and against what an experiment will need
  labkit doctor reduced_batch num_workers=16
  labkit doctor --slurm train.sbatch                      a batch script, before it is submitted from this folder

Green is as it should be, amber can go wrong or be slow, red will not work. Below amber and red stands the command that
fixes it. Nothing is changed. Exit code: 1 if anything is red.
"""

MOST_BYTES = 2**18
"""Size of the largest script that is read; no one has written a larger one by hand."""

COLOURS = {"green": "green", "amber": "yellow", "red": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_experiment(parser)
    add_profile(parser)
    parser.add_argument("--slurm", type=Path, metavar="SCRIPT", help="examine a batch script of Slurm's instead")


def main(args: argparse.Namespace) -> int:
    """Print every check. The exit code is 1 if one of them is red."""
    if args.slurm:
        return _examine_script(args)
    workspace = Workspace.find()
    needs = _needs(workspace, args)
    checks = examine(Machine(), needs, workspace.runs)
    if args.json:
        facts = {"experiment": args.experiment, "profile": args.profile, "worst": worst(checks),
                 "not_predicted": needs.not_predicted, "checks": [check.to_dict() for check in checks]}  # fmt: skip
        print(json.dumps(facts, indent=1))
    else:
        _print(needs.name, checks, needs.not_predicted)
    return EXIT_FAILED if worst(checks) == "red" else 0


def _examine_script(args: argparse.Namespace) -> int:
    if args.experiment:
        raise ConfigError("--slurm examines a script; leave out the experiment.")
    checks = examine_script(_text(args.slurm), Path.cwd(), os.environ)
    if args.json:
        facts = {"script": str(args.slurm), "worst": worst(checks), "checks": [check.to_dict() for check in checks]}
        print(json.dumps(facts, indent=1))
    else:
        _print(f"the script {args.slurm}", checks)
    return EXIT_FAILED if worst(checks) == "red" else 0


def _text(path: Path) -> str:
    """A script's text; bytes that are not UTF-8 are no reason to refuse it, as they are none for ``sbatch``."""
    try:
        # a FIFO without a writer would be waited for
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path} is not a regular file; give the file that sbatch is to read.")
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_BYTES // 2**10} KiB; give the batch script, not data.")
    if b"\0" in data and not data.startswith((b"#!", b"\xef\xbb\xbf#!")):
        raise ConfigError(f"{path} is binary, no batch script; a script begins with #!/bin/bash.")
    return data.decode(errors="replace")


def _needs(workspace: Workspace, args: argparse.Namespace) -> Needs:
    profile = load_profile(workspace, args.profile)
    device = profile.values.get("device", "cuda")
    gpu = None
    if is_cuda(device):
        try:
            gpu = find_gpu(args.profile)
        except ConfigError:  # a profile that is not named after its GPU
            gpu = None
    needs = Needs(profile=args.profile, device=device, gpu=gpu)
    if args.experiment is None:
        if args.overrides:
            raise ConfigError("values need an experiment: labkit doctor EXPERIMENT KEY=VALUE.")
        configs = (resolve(workspace, name, profile_name=args.profile).config for name in profile.expected)
        return dataclasses.replace(needs, data=_data(workspace, dict.fromkeys(config.dataset for config in configs)))
    resolved = resolve(workspace, args.experiment, pairs(args.overrides), args.profile)
    config = resolved.config
    needs = dataclasses.replace(
        needs, device=config.device, experiment=args.experiment, config=config, typed=tuple(args.overrides),
        data=_data(workspace, [config.dataset]),
    )  # fmt: skip
    return _predicted(needs, config)


def _data(workspace: Workspace, names: Iterable[str]) -> tuple[DataFound, ...]:
    """The data sets as they are here, read as a run reads them."""
    found = []
    for name in names:
        try:
            folder = find_dataset(name, workspace.data)
        except ConfigError as error:
            found.append(DataFound(name=name, problem=str(error)))
            continue
        if folder is None:
            found.append(DataFound(name=name))
            continue
        from labkit.train.data import check_folder

        try:
            found.append(DataFound(name=name, folder=folder, samples=check_folder(folder)))
        except DataError as error:
            found.append(DataFound(name=name, folder=folder, problem=str(error)))
    return tuple(found)


def _predicted(needs: Needs, config: RunConfig) -> Needs:
    """With what the planner says of host memory and of what is saved."""
    quiet_libraries()
    from labkit.plan.errors import PredictionError
    from labkit.plan.predict import predict

    try:
        found = predict(config)
    except (PredictionError, ConfigError) as error:
        return dataclasses.replace(needs, not_predicted=str(error))
    saved = found.category_peaks["parameters"] if config.save_model else 0
    if config.enable_checkpointing:
        saved += (config.keep_checkpoints + 1) * found.checkpoint_bytes
    return dataclasses.replace(needs, host_bytes=found.host_bytes * config.devices, saved_bytes=saved)


def _print(title: str, checks: list[Check], not_predicted: str | None = None) -> None:
    out = console()
    say(f"{title}\n")
    for check in checks:
        line = wrapped(f"{check.level:6} {check.name:18} {check.found}", width())
        out.print(line, style=COLOURS[check.level])
        if check.fix and check.level != "green":
            say(f"{'':6} {'':18} {check.fix}")
    if not_predicted:
        say(f"\nHost memory and disk are not predicted: {not_predicted}")
    counts = {level: sum(check.level == level for check in checks) for level in COLOURS}
    say("\n" + ", ".join(f"{n} {level}" for level, n in counts.items() if n))
