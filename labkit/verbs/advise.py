"""``labkit advise``."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit.config.gpus import has_bf16
from labkit.config.layers import DEFAULT_PROFILE, resolve
from labkit.config.workspace import Workspace
from labkit.ledger.terminal import say
from labkit.verbs.options import EXIT_FAILED, add_experiment, pairs, quiet_libraries, without_compiler

if TYPE_CHECKING:
    from labkit.plan.advise import Advice, Proposal

HELP = """\
The changes that would make an experiment fit, the cheapest first. Each is planned before it is proposed.

  labkit advise baseline --gpu h100-94gb          a GPU by its profile, its name or its size (24GiB)
  labkit advise xxl_lora batch_size=32 --gpu a100-80gb
  labkit advise reduced_batch                     of one that fits: the largest batch that does

A change costs nothing, time, numerics (fewer bits) or quality (something else is trained). Where no single one fits,
changes are combined. Predicted for a GPU, not compared with one yet.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    add_experiment(parser, needed=True)
    parser.add_argument("--gpu", default=DEFAULT_PROFILE, metavar="GPU", help="profile, GPU or size (%(default)s)")


@without_compiler()
def main(args: argparse.Namespace) -> int:
    """Print the proposals. The exit code is 1 where nothing fits."""
    typed = pairs(args.overrides)
    resolved = resolve(Workspace.find(), args.experiment, typed, args.gpu)
    bf16 = has_bf16(args.gpu)
    quiet_libraries()
    from labkit.plan.advise import advise
    from labkit.plan.errors import PredictionError

    tell = None if args.json else lambda text: say(f"({text})", error=True)
    try:
        advice = advise(resolved.config, bf16=bf16, say=tell)
    except PredictionError as error:
        say(f"error: {args.experiment}: {error}", error=True)
        return EXIT_FAILED
    if args.json:
        print(json.dumps(_facts(advice, args, typed), indent=1))
    else:
        say("\n".join(_lines(advice, args, typed)))
    return 0 if advice.fits or advice.proposals else EXIT_FAILED


def _facts(advice: "Advice", args: argparse.Namespace, typed: dict[str, str]) -> dict[str, Any]:
    base, largest = advice.prediction, advice.largest
    return {
        "experiment": args.experiment, "gpu": args.gpu, "verdict": base.verdict, "margin": base.margin,
        "peak_bytes": base.peak_bytes, "reserved_bytes": base.reserved_bytes, "capacity_bytes": base.capacity_bytes,
        "largest_batch_size": None if largest is None else largest.batch_size,
        "proposals": [p.to_dict() | {"to_type": p.command(args.experiment, args.gpu, typed)} for p in advice.proposals],
        "nearest": None if advice.nearest is None else advice.nearest.to_dict(),
        "missing_bytes": advice.missing_bytes, "plans": advice.plans,
    }  # fmt: skip


def _lines(advice: "Advice", args: argparse.Namespace, typed: dict[str, str]) -> list[str]:
    from labkit.ledger.words import room_words
    from labkit.memory.units import human_bytes

    base = advice.prediction
    lines = [
        f"{args.experiment} on {args.gpu}: {base.verdict} (predicted), peak {human_bytes(base.peak_bytes)} of "
        f"{human_bytes(base.capacity_bytes or 0)}, {room_words(base.peak_bytes, base.capacity_bytes)}"
    ]
    if advice.largest is not None:
        lines.append(_largest(advice))
    for line in proposal_lines(advice.proposals, args.experiment, args.gpu, typed):
        lines += ["", line] if line[0].isdigit() else [line]
    if not advice.fits and not advice.proposals:
        lines.append("nothing that labkit can change makes it fit")
        if advice.nearest is not None:
            lines.append(f"nearest, {_lack(advice)}: {_proposal(advice.nearest)}")
    return lines


def proposal_lines(proposals: "Sequence[Proposal]", experiment: str, gpu: str, typed: Mapping[str, Any]) -> list[str]:
    """Proposals in numbered lines: the change and its predicted peak, what it costs, and what to type."""
    lines = []
    for number, proposal in enumerate(proposals, 1):
        lines += [f"{number}. {_proposal(proposal)}", f"   costs {_paid(proposal)}"]
        lines.append(f"   {proposal.command(experiment, gpu, typed)}")
    return lines


def _lack(advice: "Advice") -> str:
    from labkit.memory.units import human_bytes

    died = advice.nearest.prediction.died_in if advice.nearest else None
    if advice.missing_bytes:
        return f"needs {human_bytes(advice.missing_bytes)} more"
    return f"it dies in {died['phase'].replace('_', ' ')}" if died else "too little would stay free"


def _proposal(proposal: "Proposal") -> str:
    from labkit.ledger.words import room_words
    from labkit.memory.units import human_bytes

    found = proposal.prediction
    values = " ".join([*(f"{key}={value}" for key, value in proposal.environment.items()), *proposal.words()])
    saved = f"{human_bytes(proposal.saved_bytes)} less"
    if not proposal.overrides and found.reserved_bytes:
        saved = f"reserved {human_bytes(found.reserved_bytes)}"
    room = room_words(found.peak_bytes, found.capacity_bytes)
    return f"{values}: {found.verdict}, peak {human_bytes(found.peak_bytes)}, {saved}, {room}"


def _paid(proposal: "Proposal") -> str:
    return proposal.cost if proposal.kind in ("none", "time") else f"{proposal.kind}: {proposal.cost}"


def _largest(advice: "Advice") -> str:
    from labkit.memory.units import human_bytes

    found = advice.largest
    assert found is not None and found.prediction is not None
    text = f"the largest batch_size that fits is {found.batch_size}, peak {human_bytes(found.prediction.peak_bytes)}"
    if found.above is None:
        return f"{text}; there are no more samples"
    return f"{text}; {found.above_batch_size} is {found.above.verdict}, peak {human_bytes(found.above.peak_bytes)}"
