"""``labkit profiles``."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from labkit.config.profiles import load_profile, profile_names
from labkit.config.workspace import Workspace

HELP = """\
The machines that experiments can run on.

  labkit profiles                 all of them
  labkit profiles tiny            one: values, stand-in models, caps and what is expected of each experiment
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("name", nargs="?", help="a profile to show")


def main(args: argparse.Namespace) -> int:
    """List profiles, or show one."""
    workspace = Workspace.find()
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
    print(json.dumps(rows, indent=1) if args.json else "\n".join(text))
    return 0
