"""``labkit plan``."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from labkit.config.errors import ConfigError
from labkit.config.layers import DEFAULT_PROFILE, Resolved, resolve
from labkit.config.profiles import load_profile
from labkit.config.strategy import PLACEMENTS
from labkit.config.workspace import Workspace
from labkit.ledger.terminal import console, say
from labkit.verbs.options import EXIT_FAILED, add_experiment, pairs, quiet_libraries, without_compiler

if TYPE_CHECKING:
    from labkit.plan.predict import Prediction

HELP = """\
What an experiment will hold in memory, predicted from its operations. Nothing is run and no GPU is needed.

  labkit plan reduced_batch --gpu h100-94gb       a GPU by its profile, its name or its size (24GiB)
  labkit plan xxl_lora batch_size=8 --gpu a100-80gb
  labkit plan --all --gpu h100-94gb               every experiment of the course, in a table
  labkit plan bf16_true strategy=fsdp devices=4 --gpu h100-94gb      one GPU of four

Not compared with a GPU yet. On the profile tiny it agrees with the simulated GPU (tests/plan/test_predict.py).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_experiment(parser)
    parser.add_argument("--gpu", default=DEFAULT_PROFILE, metavar="GPU", help="profile, GPU or size (%(default)s)")
    parser.add_argument("--all", action="store_true", help="every experiment of the course")


@without_compiler()
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
    from labkit.plan.cache import TraceCache
    from labkit.plan.errors import PredictionError
    from labkit.plan.predict import predict, refuse_without_bf16

    cache = TraceCache.find()
    cache.fill(resolved.config for resolved in runs)
    rows: list[dict[str, Any]] = []
    for resolved in runs:
        row: dict[str, Any] = {"experiment": resolved.experiment.name, "gpu": args.gpu}
        try:
            refuse_without_bf16(resolved.config, args.gpu)
            row |= _facts(predict(resolved.config, cache=cache), resolved)
        except (PredictionError, ConfigError) as error:
            row["error"] = str(error)
        rows.append(row)
        if not (args.json or args.all):
            say(_line(row))
    if args.json:
        print(json.dumps(rows if args.all else rows[0], indent=1))
    elif args.all:
        _print_table(rows, args.gpu)
    return EXIT_FAILED if all("error" in row for row in rows) else 0


def _print_table(rows: list[dict[str, Any]], gpu: str) -> None:
    from labkit.ledger.tables import plan_table

    console().print(plan_table(rows, gpu))
    say("\npeak: with memory enough. free: at that peak. reserved: by the caching allocator, at most.")
    say("Each category shows its own peak; temp is allocated and freed within one phase; host is in host memory.")
    for row in rows:
        if "error" in row:
            say(f"{row['experiment']}: {row['error']}")


def _facts(found: "Prediction", resolved: Resolved) -> dict[str, Any]:
    expected = resolved.expected.status if resolved.expected else None
    at_once = resolved.config.keep_checkpoints + 1 if resolved.config.enable_checkpointing else 0
    names = ("model_name", "batch_size", "precision", "strategy", "devices", "num_nodes")
    return {
        "config": {name: getattr(resolved.config, name) for name in names}, "rank": found.rank,
        "verdict": found.verdict, "expected": expected, "margin": found.margin, "died_in": found.died_in,
        "requested_bytes": found.requested_bytes, "operation": found.operation, "peak_bytes": found.peak_bytes,
        "reserved_bytes": found.reserved_bytes,
        "reserved_without_warm_up_bytes": found.reserved_without_warm_up_bytes, "warm_up_bytes": found.warm_up_bytes,
        "capacity_bytes": found.capacity_bytes, "host_bytes": found.host_bytes,
        "peak": found.peak_phase.to_dict() if found.peak_phase else None, "peak_by_category": found.category_peaks,
        "checkpoint_bytes": found.checkpoint_bytes, "disk_bytes": at_once * found.checkpoint_bytes,
    }  # fmt: skip


def _words(config: dict[str, Any], rank: int) -> str:
    """What was planned, as far as most ask; of several devices, which one."""
    words = f"{config['model_name']}, batch_size={config['batch_size']}, precision={config['precision']}"
    count = config["devices"] * config["num_nodes"]
    if count == 1:
        return words
    differ = PLACEMENTS[config["strategy"]].ranks_differ
    which = f"the one that needs most, rank {rank}" if differ else "the first"
    return f"{words}; of {count} devices with strategy={config['strategy']} {which}"


def _line(row: dict[str, Any]) -> str:
    from labkit.ledger.words import activity, parts, room_words
    from labkit.memory.units import human_bytes

    if "error" in row:
        return f"{row['experiment']}: {row['error']}"
    room = room_words(row["peak_bytes"], row["capacity_bytes"])
    of = f" of {human_bytes(row['capacity_bytes'])}, {room}" if row["capacity_bytes"] else ""
    reserved = f", reserved {human_bytes(row['reserved_bytes'])}" if row["reserved_bytes"] else ""
    peak, died = row["peak"], row["died_in"]
    lines = [
        f"{row['experiment']} on {row['gpu']}: {row['verdict']} (predicted)",
        f"  {_words(row['config'], row['rank'])}",
        f"  peak {human_bytes(row['peak_bytes'])}{of}{reserved}, in "
        f"{activity(peak['phase'])} of step {peak['step']} by {row['operation']}",
        f"  {parts(peak['peak'])}",
    ]
    if died:
        lines.insert(2, f"  dies in {died['phase'].replace('_', ' ')} of step {died['step']}: {died['operation']} asks "
                        f"for {human_bytes(row['requested_bytes'])}")  # fmt: skip
    if row["warm_up_bytes"]:
        lines.append(
            f"  loading the weights reserves {human_bytes(row['warm_up_bytes'])} at once; with random weights reserved "
            f"is {human_bytes(row['reserved_without_warm_up_bytes'])}"
        )
    if row["host_bytes"]:
        each = " for each device" if row["config"]["devices"] > 1 else ""
        lines.append(f"  host memory {human_bytes(row['host_bytes'])}{each}")
    if row["disk_bytes"]:
        lines.append(
            f"  disk {human_bytes(row['disk_bytes'])} for checkpoints of {human_bytes(row['checkpoint_bytes'])}, "
            "one more than keep_checkpoints while it is written"
        )
    return "\n".join(lines)
