"""``labkit diagnose``."""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.config.errors import ConfigError
from labkit.config.gpus import ROOM_BYTES, has_bf16
from labkit.config.schema import read_config
from labkit.help.diagnosis.cuda_message import read_cuda_message
from labkit.help.diagnosis.diagnose import GPU_MEMORY, diagnose, diagnose_log
from labkit.help.diagnosis.log_file import read_log
from labkit.ledger.parts import Diagnosis
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.ledger.shape import plain
from labkit.ledger.terminal import say
from labkit.verbs.advise import proposal_lines
from labkit.verbs.options import add_run, find_run, quiet_libraries

if TYPE_CHECKING:
    from labkit.plan.advise import Advice

HELP = """\
Why a run died: what happened, the evidence, and what to do.

  labkit diagnose baseline                        the newest run of an experiment
  labkit diagnose 20260102-1504                   the run whose id begins like this
  labkit diagnose logs/finetune-1234.out          any log, also of another program

When it is about the GPU's memory, the first changes that would make the run fit follow; they are predicted, and
planning them takes a moment.
"""

PROPOSALS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_run(parser)


def main(args: argparse.Namespace) -> int:
    """Print one diagnosis. The exit code is 0 also for a run that ended well."""
    path = Path(args.run)
    record, advice, why_not = None, None, None
    if os.path.isfile(path):  # noqa: PTH113 - says no to a name that is too long, where Path raises
        found: Diagnosis | None = diagnose_log(_read(path))
    else:
        folder = find_run(args)
        record = folder.read()
        found = _of_run(folder, record)
        if found is not None and found.kind in GPU_MEMORY:
            advice, why_not = _advice(record, quiet=args.json)
    if args.json:
        print(json.dumps(_facts(args, record, found, advice, why_not), indent=1))
        return 0
    name = f"{record.id}: {record.experiment} on {record.profile}" if record else (
        f"{args.run} (a log alone; what is in CAPITALS is yours to fill in)"
    )  # fmt: skip
    if found is None:
        say(f"{name} ended with '{record.status}'; there is nothing to diagnose." if record else name)
        return 0
    say("\n".join([name, "", *found.lines(), *_predicted(record, advice, why_not)]))
    return 0


def _read(path: Path) -> str:
    try:
        return read_log(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"{error}.") from None


def _of_run(folder: RunFolder, record: Record) -> Diagnosis | None:
    """The diagnosis that was made when the run ended, with the kernel's counters; without one, a diagnosis of what is
    left of the run."""
    return record.diagnosis or diagnose(record, _read(folder.log))


def _advice(record: Record, quiet: bool) -> "tuple[Advice | None, str | None]":
    """What would fit, or why that is not known."""
    quiet_libraries()
    from labkit.plan.advise import advise
    from labkit.plan.errors import PredictionError

    try:
        config = read_config(record.config)
        message = read_cuda_message(record.reason or "")
        if config.capacity_gib is None and message is not None:
            usable_bytes = message.capacity_bytes - ROOM_BYTES
            config = dataclasses.replace(config, capacity_gib=usable_bytes / 2**30)
        tell = None if quiet else lambda text: say(f"({text})", error=True)
        return advise(config, bf16=has_bf16(record.profile), say=tell), None
    except (ConfigError, PredictionError) as error:
        return None, str(error)


def _predicted(record: Record | None, advice: "Advice | None", why_not: str | None) -> list[str]:
    from labkit.memory.units import human_bytes

    if why_not is not None:
        return ["Predicted", f"  nothing: {why_not}"]
    if advice is None or record is None:
        return []
    if advice.fits:
        peak, capacity = advice.prediction.peak_bytes, advice.prediction.capacity_bytes or 0
        return ["Predicted", f"  alone on the GPU it fits: peak {human_bytes(peak)} of {human_bytes(capacity)}"]
    if not advice.proposals:
        return ["Predicted", "  nothing that labkit can change makes it fit; a larger GPU does"]
    lines = proposal_lines(advice.proposals[:PROPOSALS], record.experiment, record.profile, record.overrides)
    return ["Would fit (predicted)", *(f"  {line}" for line in lines)]


def _facts(
    args: argparse.Namespace, record: Record | None, found: Diagnosis | None, advice: "Advice | None",
    why_not: str | None,
) -> dict[str, Any]:  # fmt: skip
    proposals = [] if advice is None or record is None else [
        {**p.to_dict(), "to_type": p.command(record.experiment, record.profile, record.overrides)}
        for p in advice.proposals[:PROPOSALS]
    ]  # fmt: skip
    return {
        "run": record.id if record else None, "log": None if record else args.run,
        "status": record.status if record else None, "diagnosis": plain(found),
        "predicted": None if advice is None else {
            "verdict": advice.prediction.verdict, "peak_bytes": advice.prediction.peak_bytes,
            "proposals": proposals,
        },
        "not_predicted": why_not,
    }  # fmt: skip
