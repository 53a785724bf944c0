"""``labkit fetch``."""

import argparse
import json
from pathlib import Path

from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.runs.terminal import say
from labkit.verbs.options import add_profile

HELP = """\
Download checkpoints from the Hugging Face hub into its shared cache, where runs find them. Sizes and free disk are
checked first, checksums afterwards. Runs never download.

  labkit fetch --profile h100-94gb            all that the profile's experiments train
  labkit fetch Salesforce/blip2-opt-2.7b      one model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("model", nargs="?", help="name of a model on the hub")
    add_profile(parser)


def main(args: argparse.Namespace) -> int:
    """Download what is missing."""
    names = [args.model] if args.model is not None else _checkpoints(args.profile)
    if not names and not args.json:
        say(f"profile {args.profile} needs no checkpoint: its models are stand-ins, packaged or folders.")
    rows = []
    if names:
        from labkit.memory.units import human_bytes
        from labkit.train.fetch import check_room, download, plan

        plans = [plan(name) for name in names]
        check_room(plans)
        for planned in plans:
            if not args.json:
                size, free = human_bytes(planned.download_bytes), human_bytes(planned.free_bytes)
                say(f"{planned.model}: {size} to download, {free} free, {planned.cache}")
            folder = download(planned)
            rows.append({"model": planned.model, "folder": str(folder), "downloaded_bytes": planned.download_bytes})
            if not args.json:
                say(f"  {folder}")
    if args.json:
        print(json.dumps(rows, indent=1))
    return 0


def _checkpoints(profile_name: str) -> list[str]:
    """Models on the hub whose checkpoints the experiments of a profile need, each once."""
    workspace = Workspace.find()
    experiments = load_profile(workspace, profile_name).expected
    configs = [resolve(workspace, name, profile_name=profile_name).config for name in experiments]
    names = dict.fromkeys(config.model_name for config in configs if config.weights == "pretrained")
    return [name for name in names if not name.startswith("tiny/") and not Path(name).is_dir()]
