"""``labkit run``."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from labkit.cluster.script import EXIT_AGAIN
from labkit.config.errors import ConfigError
from labkit.config.layers import Resolved, resolve
from labkit.config.profiles import load_profile
from labkit.config.workspace import Workspace
from labkit.ledger.ledger import Ledger
from labkit.ledger.parts import Fallback
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.ledger.terminal import console, say
from labkit.runs.ranks.launched import Launched
from labkit.runs.runner import OnEvent, resume, run
from labkit.runs.stop_requests import StopRequested, listening
from labkit.verbs import compare
from labkit.verbs.options import EXIT_FAILED, add_experiment, add_profile, find_run, pairs, quiet_libraries

BAD = ("failed", "killed", "timeout")

HELP = """\
Run an experiment in a child process and record how it ended.

  labkit run reduced_batch                    as the course has it, on the profile tiny
  labkit run reduced_batch batch_size=8       with a value of your own; 'labkit configs --keys' lists all keys
  labkit run reduced_batch --show-config      print every value and the layer it comes from, and run nothing
  labkit run --all                            the whole course, then the table
  labkit run food_lora enable_checkpointing=true   save the run's state now and then; the same line again after a
                                              crash, a kill or Ctrl-C resumes where it stopped (--fresh starts again)
  labkit run xxl_smallest_batch --fit         auto-fit: run again with the cheapest change that is planned to fit
  labkit run reduced_batch devices=2 strategy=ddp   on two devices: a process each, watched as one, in one record
  labkit run --resume 20260102-1504           the same for a run by its id

Out of memory is a result like any other. Exit code: 0 for ok, out of memory and skipped; 1 for failed, killed and
timeout, and with --all for a run that ends otherwise than the profile expects; 2 for a config that cannot work;
130 after Ctrl-C or SIGTERM. After SIGUSR1, which Slurm sends before a job's time is over, a run with
enable_checkpointing saves its step, and 75 says that there is more to do.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_experiment(parser)
    add_profile(parser)
    parser.add_argument("--all", action="store_true", help="run every experiment of the profile")
    parser.add_argument("--show-config", action="store_true", help="print the values and where they come from")
    parser.add_argument("--fit", action="store_true", help="when memory runs out run again with what is planned to fit")
    parser.add_argument("--allow-quality", action="store_true", help="with --fit, also train something else")
    parser.add_argument("--resume", metavar="RUN", help="resume a stopped run from its last checkpoint")
    parser.add_argument("--fresh", action="store_true", help="start again, also if the same run has stopped before")
    parser.add_argument(
        "--oversubscribe", action="store_true", help="start more devices than this machine's cores carry"
    )
    parser.add_argument("--timeout-s", type=float, metavar="S", help="stop the run after this many seconds")


def main(args: argparse.Namespace) -> int:
    """Run one experiment or all of them."""
    with listening(is_first=not _is_silent()):
        try:
            return _main(args)
        except StopRequested as stop:
            if not stop.time_is_over:
                raise
            return _time_is_over(stop.record)


def _time_is_over(record: Record | None) -> int:
    """Say where the run stands. ``EXIT_AGAIN`` if it has saved more than it began with: then it is worth a new job."""
    if record is None:
        say("stopped before the job's time was over; no run was in progress", error=True)
        return EXIT_FAILED
    say(f"{record.experiment}: {record.reason}", error=True)
    if record.status in ("ok", "oom"):
        return 0
    saved = Ledger(Workspace.find().runs).find(record.id).newest_checkpoint()
    began = (record.attempts[-1].resumed_at_step or 0) if record.attempts else 0
    reached = int(saved.parent.name.removeprefix("step-")) if saved else 0
    return EXIT_AGAIN if reached > began else EXIT_FAILED


def _main(args: argparse.Namespace) -> int:
    if args.all and "=" in (args.experiment or ""):
        args.experiment, args.overrides = None, [args.experiment, *args.overrides]
    if sum(map(bool, (args.all, args.experiment, args.resume))) != 1:
        raise ConfigError("give the name of an experiment, --resume RUN, or --all for the whole course.")
    if args.timeout_s is not None and not args.timeout_s > 0:
        raise ConfigError(f"--timeout-s={args.timeout_s:g} must be above 0.")
    if args.fit and (args.all or args.resume):
        raise ConfigError(f"--fit takes one experiment; leave out {'--all' if args.all else '--resume'}.")
    if args.resume and (args.show_config or args.fresh):
        raise ConfigError("--resume continues a run as it is; leave out --show-config and --fresh.")
    if args.allow_quality and not args.fit:
        raise ConfigError("--allow-quality belongs to --fit.")
    if (launched := Launched.find()) is not None and launched.by_slurm:
        say(launched.member, error=True)  # which the job's script counts
    workspace = Workspace.find()
    if args.resume:
        args.run = args.resume
        return _resume(find_run(args), args)
    names = list(load_profile(workspace, args.profile).expected) if args.all else [args.experiment]
    overrides = pairs(args.overrides)
    runs = [resolve(workspace, name, overrides, args.profile) for name in names]
    if args.show_config:
        _show_config(runs, args.json)
        return 0
    if args.fit:
        return _auto_fit(names[0], overrides, args)
    records = [_run_one(name, overrides, resolved, args) for name, resolved in zip(names, runs, strict=True)]
    if args.json and not _is_silent():
        found = [record.to_dict() for record in records]
        print(json.dumps(found if args.all else found[0], indent=1))
    elif args.all:
        compare.print_table(args.profile)
    bad = [r for r in records if r.status in BAD or (args.all and r.as_expected is False)]
    return EXIT_FAILED if bad else 0


def _run_one(name: str, overrides: dict[str, str], resolved: Resolved, args: argparse.Namespace) -> Record:
    def start(on_event: OnEvent | None) -> Record:
        return run(
            name, overrides, args.profile, args.timeout_s, on_event, args.fresh, oversubscribe=args.oversubscribe
        )  # fmt: skip

    return start(None) if args.json or _is_silent() else _shown(name, resolved.config.accumulate_grad_batches, start)


def _is_silent() -> bool:
    """Whether this is one of several ranks that a launcher has started, and not the first, which tells of all."""
    launched = Launched.find()
    return launched is not None and launched.rank > 0


def _resume(folder: RunFolder, args: argparse.Namespace) -> int:
    before = folder.read()

    def start(on_event: OnEvent | None) -> Record:
        return resume(folder, args.timeout_s, on_event)

    if args.json or _is_silent():
        record = start(None)
    else:
        record = _shown(before.experiment, before.config["accumulate_grad_batches"], start)
    if args.json and not _is_silent():
        print(json.dumps(record.to_dict(), indent=1))
    return EXIT_FAILED if record.status in BAD else 0


def _auto_fit(name: str, overrides: dict[str, str], args: argparse.Namespace) -> int:
    quiet_libraries()
    from labkit.memory.units import human_bytes
    from labkit.plan.errors import PredictionError
    from labkit.runs.auto_fit import auto_fit, words

    def run_one(changed: dict[str, Any], fallback: Fallback | None) -> Record:
        def start(on_event: OnEvent | None) -> Record:
            return run(name, changed, args.profile, args.timeout_s, on_event, args.fresh, fallback, args.oversubscribe)

        if args.json:
            return start(None)
        if fallback is not None:
            say(f"next fallback: {words(fallback)}, predicted peak {human_bytes(fallback.peak_bytes or 0)}; "
                  f"costs {fallback.kind}: {fallback.cost}")  # fmt: skip
        config = resolve(Workspace.find(), name, changed, args.profile).config
        return _shown(name, config.accumulate_grad_batches, start)

    try:
        records, stopped = auto_fit(name, overrides, args.profile, run_one, args.allow_quality)
    except PredictionError as error:
        say(f"error: {name}: {error}", error=True)
        return EXIT_FAILED
    if args.json:
        print(json.dumps({"records": [record.to_dict() for record in records], "stopped": stopped}, indent=1))
    elif stopped:
        hint = "; --allow-quality runs it" if "something else" in stopped else ""
        typed = " ".join([name, *args.overrides])
        say(f"stopped: {stopped}{hint}. 'labkit advise {typed} --gpu {args.profile}' lists what else was planned.")
    return EXIT_FAILED if stopped or records[-1].status in BAD else 0


def _shown(title: str, micro_steps: int, start: Callable[[OnEvent], Record]) -> Record:
    from labkit.ledger.summary import summary
    from labkit.runs.progress import ProgressPrinter

    with ProgressPrinter(console(), title, micro_steps) as printer:
        record = start(printer)
    say(summary(record))
    say(f"  record: {Ledger(Workspace.find().runs).find(record.id).record}\n")
    return record


def _show_config(runs: list[Resolved], as_json: bool) -> None:
    if as_json:
        shown = [
            {k: {"value": v, "from": resolved.origins[k]} for k, v in resolved.config.to_dict().items()}
            for resolved in runs
        ]
        print(json.dumps(shown if len(shown) > 1 else shown[0], indent=1))
        return
    for resolved in runs:
        values = resolved.config.to_dict()
        say(f"{resolved.experiment.name} on {resolved.profile.name}, config {resolved.config.hash}")
        for key, value in values.items():
            say(f"  {key:24} {'' if value is None else value!s:32} {resolved.origins[key]}")
