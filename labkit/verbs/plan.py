"""``labkit plan``."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.layers import DEFAULT_PROFILE, resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.verbs.options import EXIT_FAILED, pairs, quiet_libraries

HELP = """\
What an experiment will hold in memory, predicted from its operations. Nothing is run and no GPU is needed.

  labkit plan reduced_batch --gpu h100-94gb       a GPU by its profile, its name or its size (24GiB)
  labkit plan xxl_lora batch_size=8 --gpu a100-80gb
  labkit plan --all --gpu h100-94gb               every experiment of the course

Not compared with a GPU yet. On the profile tiny it agrees with the virtual GPU (tests/plan/test_predict.py).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("experiment", nargs="?", help="name or YAML file of an experiment")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that differ from the experiment's")
    parser.add_argument("--gpu", default=DEFAULT_PROFILE, metavar="GPU", help="profile, GPU or size (%(default)s)")
    parser.add_argument("--all", action="store_true", help="every experiment of the course")


def main(args: argparse.Namespace) -> int:
    """Print a line for each prediction."""
    if args.all and "=" in (args.experiment or ""):
        args.experiment, args.overrides = None, [args.experiment, *args.overrides]
    if args.all == bool(args.experiment):
        raise ConfigError("give the name of an experiment, or --all for the whole course.")
    workspace = Workspace.find()
    course = load_profile(workspace, DEFAULT_PROFILE).expected
    names = list(course) if args.all else [args.experiment]
    runs = [resolve(workspace, name, pairs(args.overrides), args.gpu) for name in names]
    quiet_libraries()
    from labkit.plan.predict import PredictionError, predict

    rows: list[dict[str, Any]] = []
    for resolved in runs:
        row: dict[str, Any] = {"experiment": resolved.experiment.name, "gpu": args.gpu}
        try:
            found = predict(resolved.config)
        except PredictionError as error:
            row["error"] = str(error)
        else:
            expected = resolved.expected.status if resolved.expected else None
            row |= {
                "verdict": found.verdict, "expected": expected, "margin": found.margin, "operation": found.operation,
                "peak_bytes": found.report.peak_bytes, "reserved_bytes": found.reserved_bytes,
                "capacity_bytes": resolved.config.capacity_bytes,
                "peak": asdict(found.report.peak_phase) if found.report.peak_phase else None,
                "peak_by_category": found.report.category_peaks,
            }  # fmt: skip
        rows.append(row)
        if not args.json:
            print(_line(row), flush=True)
    if args.json:
        print(json.dumps(rows if args.all else rows[0], indent=1))
    return EXIT_FAILED if not args.all and "error" in rows[0] else 0


def _line(row: dict[str, Any]) -> str:
    from labkit.memory.units import human_bytes
    from labkit.runs.text import parts

    if "error" in row:
        return f"{row['experiment']}: {row['error']}"
    of = f" of {human_bytes(row['capacity_bytes'])}, {row['margin']:+.0%} free" if row["capacity_bytes"] else ""
    peak = row["peak"]
    return (
        f"{row['experiment']} on {row['gpu']}: {row['verdict']} (predicted)\n"
        f"  peak {human_bytes(row['peak_bytes'])}{of}, reserved {human_bytes(row['reserved_bytes'])}, in phase "
        f"{peak['phase'].replace('_', ' ')} of step {peak['step']} by {row['operation']}\n"
        f"  {parts(peak['peak'])}"
    )
