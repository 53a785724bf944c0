"""``labkit profiles``."""

import argparse
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from labkit.config.errors import ConfigError
from labkit.config.gpus import find_gpu
from labkit.config.profiles import load_profile, profile_names
from labkit.config.workspace import Workspace
from labkit.ledger.terminal import say

if TYPE_CHECKING:
    from labkit.plan.tune import Lesson

HELP = """\
The machines that experiments can run on.

  labkit profiles                 all of them
  labkit profiles tiny            one: values, stand-in models, caps and what is expected of each experiment
  labkit profiles make --gpu 24GiB                 write one for a GPU by name or size, by prediction
  labkit profiles make --gpu a6000-48gb --name lab --force
"""

MAKE = "make"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("name", nargs="?", help="a profile to show, or 'make'")
    parser.add_argument("--gpu", help="make: a GPU by name or size, such as 24GiB")
    parser.add_argument("--name", dest="new_name", metavar="NAME", help="make: name of the profile (the GPU's)")
    parser.add_argument("--force", action="store_true", help="make: overwrite a profile that is there")


def main(args: argparse.Namespace) -> int:
    """List profiles, show one or make one."""
    workspace = Workspace.find()
    if args.name == MAKE:
        return _make(workspace, args)
    for option, given in (("--gpu", args.gpu), ("--name", args.new_name), ("--force", args.force)):
        if given:
            raise ConfigError(f"{option} goes with 'labkit profiles {MAKE}'.")
    if not args.name:
        found = [load_profile(workspace, name) for name in profile_names(workspace)]
        rows: Any = [{"profile": p.name, "about": p.about} for p in found]
        text = [f"{p.name:14} {p.about}" for p in found]
    else:
        profile = load_profile(workspace, args.name)
        rows = asdict(profile)
        text = [f"{profile.name}: {profile.about}"]
        text += [f"  {key} = {value}" for key, value in profile.values.items()]
        stand_ins = profile.models | profile.datasets
        text += [f"  {real} is stood in for by {tiny}" for real, tiny in stand_ins.items()]
        text += [f"  {key} = {value} with a stand-in" for key, value in profile.stand_in_values.items()]
        text += [f"  {key} at most {cap}" for key, cap in profile.caps.items()]
        text += [f"  lr times {profile.lr_multiplier:g}"] if profile.lr_multiplier != 1 else []
        for name, expected in profile.expected.items():
            values = " ".join(f"{k}={v}" for k, v in profile.experiments[name].items())
            text.append(f"  {name:24} expected {expected!s:36} {values}".rstrip())
        text += [f"  {name} is skipped: {why}" for name, why in profile.skip.items()]
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        say("\n".join(text))
    return 0


def _make(workspace: Workspace, args: argparse.Namespace) -> int:
    if not args.gpu:
        raise ConfigError(f"'labkit profiles {MAKE}' needs --gpu, a GPU by name or a size such as 24GiB.")
    name = args.new_name or find_gpu(args.gpu).name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == MAKE:
        raise ConfigError(
            f"--name={name!r} is not a name for a profile: letters, digits, '.', '_' and '-', not '{MAKE}'."
        )
    workspace.check_writable()
    path = workspace.profiles / f"{name}.yaml"
    from labkit.plan.profile_file import check_free, write_profile
    from labkit.plan.tune import tune
    from labkit.verbs.options import quiet_libraries

    find_gpu(args.gpu)
    check_free(path, force=args.force)
    quiet_libraries()
    tell = None if args.json else lambda text: say(f"({text})", error=True)
    tuned = tune(workspace, args.gpu, say=tell)
    write_profile(tuned, path, force=args.force)
    if args.json:
        facts = {
            "profile": name, "path": str(path), "gpu": tuned.gpu.name, "models": tuned.models,
            "lessons": [_facts(lesson) for lesson in tuned.lessons],
        }  # fmt: skip
        print(json.dumps(facts, indent=1))
        return 0
    say(f"{path}: {len(tuned.held)} of {len(tuned.lessons)} lessons hold (predicted)")
    for real, model in tuned.models.items():
        say(f"  {real} is stood in for by {model}")
    for lesson in tuned.lessons:
        say(_line(lesson))
    say(f"Use it with --profile {name}.")
    return 0


def _facts(lesson: "Lesson") -> dict[str, Any]:
    found = lesson.prediction
    return {
        "experiment": lesson.experiment, "values": lesson.values, "skipped": lesson.reason,
        "verdict": found.verdict if found else None, "peak_bytes": found.peak_bytes if found else None,
        "capacity_bytes": found.capacity_bytes if found else None, "died_in": found.died_in if found else None,
    }  # fmt: skip


def _line(lesson: "Lesson") -> str:
    from labkit.memory.units import human_bytes

    if lesson.reason is not None or lesson.prediction is None:
        return f"  {lesson.experiment:24} skipped: {lesson.reason}"
    found = lesson.prediction
    values = " ".join(f"{key}={value}" for key, value in lesson.values.items())
    return f"  {lesson.experiment:24} {found.verdict:14} peak {human_bytes(found.peak_bytes):>11}  {values}".rstrip()
