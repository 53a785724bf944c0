"""``labkit caption``."""

import argparse
import json
from pathlib import Path

from labkit.config.datasets import find_dataset
from labkit.config.errors import ConfigError
from labkit.config.schema import read_config
from labkit.config.workspace import Workspace
from labkit.ledger.terminal import say
from labkit.train.kept import weights_of
from labkit.verbs.options import add_run, find_run, quiet_libraries

HELP = """\
What a run has learnt: its captions for images of your own. A run keeps its weights with save_model=true. For a run
with adapters also the captions of its base, without them.

  labkit caption food_lora apple.png         the newest run of an experiment
  labkit caption 20260102-1504 *.png         the run whose id begins like this
  labkit caption food_lora --dataset fluent_emoji_food --count 8      images of a data set, with their own captions
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_run(parser)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument("--dataset", help="take images of this data set; they are written into the run's folder")
    parser.add_argument("--count", type=int, default=8, help="how many of them (%(default)s)")


def main(args: argparse.Namespace) -> int:
    """Print a caption for each image."""
    if bool(args.images) == bool(args.dataset):
        raise ConfigError("give image files, or --dataset with the name of a data set.")
    if args.count < 1:
        raise ConfigError(f"--count={args.count} must be at least 1.")
    folder = find_run(args)
    config = read_config(folder.read().config)
    images, wanted = [Path(image) for image in args.images], None
    _check(folder.path, images, args.dataset)
    quiet_libraries()
    from labkit.train.captions import captions_of_run, images_of

    if args.dataset:
        images, wanted = images_of(args.dataset, args.count, Workspace.find().data, folder.path / "images")
    rows = captions_of_run(config, folder.path, images)
    for row, right in zip(rows, wanted or [], strict=wanted is not None):
        row["wanted"] = right
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        say(f"{row['image']}\n  {row['caption']}")
        if "base_caption" in row:
            say(f"  {row['base_caption']}   (without the adapter)")
        if "wanted" in row:
            say(f"  {row['wanted']}   (its own caption)")
    return 0


def _check(run: Path, images: list[Path], dataset: str | None) -> None:
    """Refuse what cannot be captioned, before the model is loaded and what it needs is imported."""
    from labkit.train.images import open_image

    weights_of(run)
    if dataset:
        find_dataset(dataset, Workspace.find().data)
    for image in images:
        open_image(image)
