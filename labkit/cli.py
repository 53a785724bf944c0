"""The command ``labkit``: verbs over the ledger and the runner."""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labkit.config.architectures import ARCHITECTURES
from labkit.config.datasets import DATASETS
from labkit.config.errors import ConfigError
from labkit.config.layers import DEFAULT_PROFILE, Resolved, course, resolve
from labkit.config.profiles import load_profile, profile_names
from labkit.config.schema import RunConfig, key_docs, key_type, keys
from labkit.config.workspace import Workspace
from labkit.runs.compare import changes, compare, missing
from labkit.runs.records import Ledger, LedgerError, RunFolder
from labkit.runs.runner import run
from labkit.train.errors import CheckpointError, DataError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_RUN_HELP = """\
Run an experiment in a child process and record how it ended.

  labkit run reduced_batch                    as the course has it, on the profile tiny
  labkit run reduced_batch batch_size=8       with a value of your own; 'labkit configs --keys' lists all keys
  labkit run reduced_batch --show-config      print every value and the layer it comes from, and run nothing
  labkit run --all                            the whole course, then the table

Out of memory is a result like any other. Exit code: 0 for ok, out of memory and skipped; 1 for failed, killed and
timeout, and with --all for a run that ends otherwise than the profile expects; 2 for a config that cannot work;
130 after Ctrl-C.
"""
_COMPARE_HELP = """\
The newest run of every experiment, one line each. What changed, how it ended and should have, peak memory by
category, time and loss.

  labkit compare                  the table
  labkit compare --json           the same with every phase, for machines
  labkit compare --check          exit code 1 if a run is missing, outdated or ended otherwise than expected
"""
_SHOW_HELP = """\
How one run ended, and what held memory in every reported phase.

  labkit show baseline            the newest run of an experiment
  labkit show 20260102-1504       the run whose id begins like this
"""
_CAPTION_HELP = """\
What a run has learnt: its captions for images of your own. A run keeps its weights with save_model=true. For a run
with adapters also the captions of its base, without them.

  labkit caption food_lora apple.png         the newest run of an experiment
  labkit caption 20260102-1504 *.png         the run whose id begins like this
"""
_MERGE_HELP = """\
Add a run's adapter to the weights of its base: one model, which plain transformers loads. The base is loaded
unquantized, also for QLoRA.

  labkit merge food_lora merged                          the newest run of an experiment, into the folder merged
  labkit merge xxl_qlora merged --base ./flan-t5-xxl     onto a base that lies elsewhere
"""
_FETCH_HELP = """\
Download checkpoints from the Hugging Face hub into its shared cache, where runs find them. Sizes and free disk are
checked first, checksums afterwards. Runs never download.

  labkit fetch --profile h100-94gb            all that the profile's experiments train
  labkit fetch Salesforce/blip2-opt-2.7b      one model
"""
_CONFIGS_HELP = """\
The experiments of the course, what each changes and what it shows.

  labkit configs                  in order, with what they change
  labkit configs --keys           every key: type, default, meaning
  labkit configs --models         the models and data sets that have a name
"""
_PROFILES_HELP = """\
The machines that experiments can run on.

  labkit profiles                 all of them
  labkit profiles tiny            one: values, stand-in models, caps and what is expected of each experiment
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.verb is _run and all("=" in item and not item.startswith("-") for item in rest):
        args.overrides += rest  # values that stand behind an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return args.verb(args)
    except (ConfigError, LedgerError, CheckpointError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted; the run is recorded as killed", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader, say 'head', has seen enough
        sys.stderr.close()
        return EXIT_FAILED if args.verb is _run else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labkit", description="Where GPU memory goes when a vision-language model is fine-tuned."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def add(name: str, verb: Any, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name, description=text, help=text.split(".")[0].replace("\n", " ") + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(verb=verb)
        sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        return sub

    def add_profile(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--profile", default=DEFAULT_PROFILE, help="machine to run on (default: %(default)s)")

    sub = add("run", _run, _RUN_HELP)
    sub.add_argument("experiment", nargs="?", help="name or YAML file of an experiment")
    sub.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that differ from the experiment's")
    add_profile(sub)
    sub.add_argument("--all", action="store_true", help="run every experiment of the profile")
    sub.add_argument("--show-config", action="store_true", help="print the values and where they come from")
    sub.add_argument("--timeout-s", type=float, metavar="S", help="stop the run after this many seconds")

    sub = add("compare", _compare, _COMPARE_HELP)
    add_profile(sub)
    sub.add_argument("--check", action="store_true", help="exit code 1 unless all is as expected")

    sub = add("show", _show, _SHOW_HELP)
    sub.add_argument("run", help="id of a run, its beginning, or the name of an experiment")
    add_profile(sub)

    sub = add("caption", _caption, _CAPTION_HELP)
    sub.add_argument("run", help="id of a run, its beginning, or the name of an experiment")
    sub.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    add_profile(sub)

    sub = add("merge", _merge, _MERGE_HELP)
    sub.add_argument("run", help="id of a run, its beginning, or the name of an experiment")
    sub.add_argument("folder", help="where to write the model; must not exist")
    sub.add_argument("--base", metavar="MODEL", help="the base as a folder or a name (default: the run's own)")
    add_profile(sub)

    sub = add("fetch", _fetch, _FETCH_HELP)
    sub.add_argument("model", nargs="?", help="name of a model on the hub")
    add_profile(sub)

    sub = add("configs", _configs, _CONFIGS_HELP)
    add_profile(sub)
    sub.add_argument("--keys", action="store_true", help="list the keys of a config")
    sub.add_argument("--models", action="store_true", help="list models and data sets")

    sub = add("profiles", _profiles, _PROFILES_HELP)
    sub.add_argument("name", nargs="?", help="a profile to show")
    return parser


def _run(args: argparse.Namespace) -> int:
    if args.all and "=" in (args.experiment or ""):
        args.experiment, args.overrides = None, [args.experiment, *args.overrides]
    if args.all == bool(args.experiment):
        raise ConfigError("give the name of an experiment, or --all for the whole course.")
    if args.timeout_s is not None and not args.timeout_s > 0:
        raise ConfigError(f"--timeout-s={args.timeout_s:g} must be above 0.")
    workspace = Workspace.find()
    names = list(load_profile(workspace, args.profile).expected) if args.all else [args.experiment]
    overrides = _pairs(args.overrides)
    runs = [resolve(workspace, name, overrides, args.profile) for name in names]
    if args.show_config:
        _show_config(runs, args.json)
        return 0
    records = [_run_one(name, overrides, resolved, args) for name, resolved in zip(names, runs, strict=True)]
    if args.json:
        found = [asdict(record) for record in records]
        print(json.dumps(found if args.all else found[0], indent=1))
    elif args.all:
        _compare(args)
    bad = [r for r in records if r.status in ("failed", "killed", "timeout") or (args.all and r.as_expected is False)]
    return EXIT_FAILED if bad else 0


def _run_one(name: str, overrides: dict[str, str], resolved: Resolved, args: argparse.Namespace) -> Any:
    if args.json:
        return run(name, overrides, args.profile, args.timeout_s)
    from labkit.runs.text import ProgressPrinter, console, summary

    out = console()
    with ProgressPrinter(out, resolved.experiment.name, resolved.config.accumulate_grad_batches) as printer:
        record = run(name, overrides, args.profile, args.timeout_s, printer)
    out.print(summary(record))
    out.print(f"  record: {Ledger(Workspace.find().runs).find(record.id).record}\n")
    return record


def _pairs(items: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{item}' is not KEY=VALUE.")
        pairs[key] = value
    return pairs


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
        print(f"{resolved.experiment.name} on {resolved.profile.name}, config {resolved.config.hash}")
        for key, value in values.items():
            print(f"  {key:24} {'' if value is None else value!s:32} {resolved.origins[key]}")


def _compare(args: argparse.Namespace) -> int:
    workspace = Workspace.find()
    rows = compare(workspace, Ledger(workspace.runs), args.profile)
    wrong = missing(workspace, args.profile, rows)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        from labkit.runs.text import compare_table, console

        total = len(load_profile(workspace, args.profile).expected)
        console().print(compare_table(rows, args.profile))
        print(f"\n{total - len(wrong)} of {total} as expected. Steps count from 0.")
        print("Each category shows its own peak; temp is what is born and gone inside one phase.")
        print("host is kept in host memory: step counters, and what is offloaded. The virtual GPU tells it by owner.")
        print(f"Records: {workspace.runs / args.profile}")
        if wrong:
            print("not as expected, outdated or not run: " + ", ".join(wrong))
    return EXIT_FAILED if getattr(args, "check", False) and wrong else 0


def _find_run(args: argparse.Namespace) -> RunFolder:
    """The run that is named by its id, or the newest of an experiment."""
    workspace = Workspace.find()
    ledger = Ledger(workspace.runs)
    same = ledger.folders(args.profile, args.run)
    if not same and args.run in [experiment.name for experiment in course(workspace)]:
        raise ConfigError(f"'{args.run}' has no run on {args.profile} yet; 'labkit run {args.run}' makes one.")
    return same[-1] if same else ledger.find(args.run)


def _quiet_libraries() -> None:
    """What libraries say while they load is not for whoever asked for a caption."""
    import transformers

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _caption(args: argparse.Namespace) -> int:
    folder = _find_run(args)
    config = RunConfig(**folder.read().config)
    _quiet_libraries()
    from labkit.train.captions import captions_of_run

    rows = captions_of_run(config, folder.path, [Path(image) for image in args.images])
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(f"{row['image']}\n  {row['caption']}")
        if "base_caption" in row:
            print(f"  {row['base_caption']}   (without the adapter)")
    return 0


def _merge(args: argparse.Namespace) -> int:
    folder = _find_run(args)
    config = RunConfig(**folder.read().config)
    _quiet_libraries()
    from labkit.train.trained import merge

    target = merge(config, folder.path, Path(args.folder), args.base)
    print(json.dumps({"folder": str(target)}) if args.json else f"merged model: {target}")
    return 0


def _show(args: argparse.Namespace) -> int:
    record = _find_run(args).read()
    if args.json:
        print(json.dumps(asdict(record), indent=1))
        return 0
    from labkit.runs.text import console, phase_table, summary

    out = console()
    out.print(summary(record))
    out.print(f"  config {record.config_hash}, started {record.created} (UTC), {record.device or 'no device'}\n")
    out.print(phase_table(record))
    return 0


def _fetch(args: argparse.Namespace) -> int:
    names = [args.model] if args.model else _checkpoints(args.profile)
    if not names and not args.json:
        print(f"profile {args.profile} needs no checkpoint: its models are stand-ins, packaged or folders.")
    rows = []
    if names:
        from labkit.memory.units import human_bytes
        from labkit.train.fetch import check_room, download, plan

        plans = [plan(name) for name in names]
        check_room(plans)
        for planned in plans:
            if not args.json:
                size, free = human_bytes(planned.download_bytes), human_bytes(planned.free_bytes)
                print(f"{planned.model}: {size} to download, {free} free, {planned.cache}", flush=True)
            folder = download(planned)
            rows.append({"model": planned.model, "folder": str(folder), "downloaded_bytes": planned.download_bytes})
            if not args.json:
                print(f"  {folder}")
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


def _configs(args: argparse.Namespace) -> int:
    if args.keys:
        defaults = {key: getattr(RunConfig, key) for key in keys()}
        rows = [{"key": k, "type": key_type(k), "default": defaults[k], "meaning": key_docs()[k]} for k in keys()]
        text = [f"{r['key']}  ({r['type']}; {r['default']!s})\n    {r['meaning']}" for r in rows]
    elif args.models:
        rows = [{"model": a.name, "language": a.language} for a in ARCHITECTURES.values()]
        rows += [{"dataset": d.name, "about": d.about} for d in DATASETS.values()]
        text = [f"{a.name:34} {a.language}" for a in ARCHITECTURES.values()]
        text += [f"{d.name:34} {d.about}" for d in DATASETS.values()]
    else:
        from labkit.runs.text import changed_words

        workspace = Workspace.find()
        rows = [
            {"number": e.number, "experiment": e.name, "lesson": e.lesson, "compare_with": e.compare_with,
             "changed": changes(workspace, e, args.profile)}
            for e in course(workspace)
        ]  # fmt: skip
        text = [
            f"{r['number']:>3} {r['experiment']}\n    {r['lesson']}"
            + (f"\n    against {r['compare_with']}: {changed_words(r['changed'])}" if r["compare_with"] else "")
            for r in rows
        ]
    print(json.dumps(rows, indent=1) if args.json else "\n".join(text))
    return 0


def _profiles(args: argparse.Namespace) -> int:
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
        text += [f"  {key} at most {cap}" for key, cap in profile.caps.items()]
        text += [f"  lr times {profile.lr_multiplier:g}"] if profile.lr_multiplier != 1 else []
        for name, expected in profile.expected.items():
            values = " ".join(f"{k}={v}" for k, v in profile.experiments[name].items())
            text.append(f"  {name:24} expected {expected!s:36} {values}".rstrip())
        text += [f"  {name} is skipped: {why}" for name, why in profile.skip.items()]
    print(json.dumps(rows, indent=1) if args.json else "\n".join(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
