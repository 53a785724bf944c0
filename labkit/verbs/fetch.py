"""``labkit fetch``."""

import argparse
import json
from pathlib import Path

from labkit.config.catalogue.models import COURSE_MODEL
from labkit.config.datasets import DATASETS
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.ledger.terminal import say
from labkit.verbs.options import add_profile

HELP = f"""\
Download checkpoints from the Hugging Face hub into its shared cache, where runs find them. Sizes and free disk are
checked first, checksums afterwards. Runs never download.

  labkit fetch --profile h100-94gb            all that the profile's experiments train
  {f"labkit fetch {COURSE_MODEL}":43} one model
  labkit fetch --data                         the data sets that do not ship with labkit, into the workspace

A data set is unpacked, read as a run reads it, and put in its place whole. A fetch that was interrupted resumes with
what came. Data sets do not lie on the hub, so HF_HUB_OFFLINE does not keep them away.
"""

ALL = "*"
"""Of ``--data`` without a name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("model", nargs="?", help="name of a model on the hub")
    parser.add_argument(
        "--data", nargs="?", const=ALL, metavar="NAME",
        help="bring a data set, or all that do not ship with labkit, in place of checkpoints",
    )  # fmt: skip
    add_profile(parser)


def main(args: argparse.Namespace) -> int:
    """Download what is missing."""
    if args.data is not None:
        return _bring_data(args)
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


def _bring_data(args: argparse.Namespace) -> int:
    """Download and unpack data sets that are not here."""
    if args.model is not None:
        raise ConfigError(f"model {args.model!r} does not go with --data; fetch one after the other.")
    from labkit.memory.units import counted, human_bytes
    from labkit.train.data_archive import bring, check_room, plan, samples_here, with_address

    data_folder = Workspace.find().data
    rows = []
    for name in with_address() if args.data == ALL else [args.data]:
        samples, downloaded_bytes, found = samples_here(name, data_folder), 0, f"{name} is here: "
        if samples is None:
            planned = plan(name, data_folder)
            check_room(planned)
            downloaded_bytes = planned.download_bytes
            if not args.json:
                size = "an unknown size" if downloaded_bytes is None else human_bytes(downloaded_bytes)
                say(f"{name}: {size} to download, {human_bytes(planned.free_bytes)} free, {data_folder}")
            samples, found = bring(planned), "  "
        folder = data_folder / DATASETS[name].folder
        rows.append({"data": name, "folder": str(folder), "samples": samples, "downloaded_bytes": downloaded_bytes})
        if not args.json:
            say(f"{found}{counted(samples, 'sample')} in {folder}")
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
