"""Auto-fit: run again with the next change that was planned to fit, until a run fits."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from labkit.config.gpus import ROOM_BYTES, has_bf16
from labkit.config.layers import DEFAULT_PROFILE, resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.help.diagnosis.cuda_message import read_cuda_message
from labkit.ledger.parts import Fallback
from labkit.ledger.records import Record
from labkit.ledger.shape import shaped
from labkit.runs.runner import run

CLOSER = 0.9
"""Share of the capacity that is planned with when a run died although it was predicted to fit."""

LEAST_SHARE = 0.5
"""Share of the capacity below which nothing is planned: something else is wrong then."""


RunOne = Callable[[dict[str, Any], Fallback | None], Record]


def auto_fit(
    experiment: str, overrides: dict[str, Any] | None = None, profile: str = DEFAULT_PROFILE,
    run_one: RunOne | None = None, allow_quality: bool = False,
) -> tuple[list[Record], str | None]:  # fmt: skip
    """Run an experiment, and where memory runs out again with the next fallback; all records, and why it stopped short.

        records, stopped = auto_fit("xxl_smallest_batch")

    Every fallback is a fresh child process with a record of its own, whose ``fallback`` says what it changed against
    the first run. Fallbacks come from ``labkit.plan.advise``: each was predicted to fit, the cheapest is first, and the
    samples of an optimizer step stay as they are, so that the learning rate means the same. A fallback that trains
    something else (``kind`` quality) is not run unless ``allow_quality``. ``run_one`` runs overrides with a fallback,
    None for the first; by default it is ``run``. The second value is None when the last run did not run out of memory.
    Raises what ``run`` raises, and ``PredictionError``.
    """
    typed = dict(overrides or {})
    run_one = run_one or (lambda changed, fallback: run(experiment, changed, profile, fallback=fallback))
    records = [run_one(typed, None)]
    if records[0].status != "oom":
        return records, None
    config = resolve(Workspace.find(), experiment, typed, profile).config
    tried: set[tuple[str, str]] = set()
    for fallback, changed in _fallbacks(config, records[0], has_bf16(profile)):
        key = changed.hash, str(fallback.environment)
        if key in tried:
            continue
        tried.add(key)
        if fallback.kind == "quality" and not allow_quality:
            return records, f"the next fallback trains something else ({words(fallback)}: {fallback.cost})"
        records.append(run_one(typed | fallback.overrides, fallback))
        if records[-1].status != "oom":
            return records, None
    return records, "nothing more that labkit can change was predicted to fit"


def words(fallback: Fallback) -> str:
    """What a fallback changes, as one types it."""
    return " ".join(f"{key}={value}" for key, value in (fallback.environment | fallback.overrides).items())


def _fallbacks(config: RunConfig, first: Record, bf16: bool) -> Iterator[tuple[Fallback, RunConfig]]:
    """Fallbacks that were planned to fit, the cheapest first; when these are used up, with less of the capacity."""
    from labkit.plan.advise import advise

    capacity_gib = config.capacity_gib
    if capacity_gib is None:  # of the whole GPU, as the run has found it
        capacity_bytes = first.out_of_memory.capacity_bytes if first.out_of_memory else None
        if capacity_bytes is None and (message := read_cuda_message(first.reason or "")) is not None:
            capacity_bytes = message.capacity_bytes - ROOM_BYTES
        capacity_gib = capacity_bytes / 2**30 if capacity_bytes else None
    share = 1.0
    while share >= LEAST_SHARE:
        planned = dataclasses.replace(config, capacity_gib=None if capacity_gib is None else share * capacity_gib)
        for proposal in advise(planned, bf16=bf16).proposals:
            facts = shaped(Fallback, {**proposal.to_dict(), "planned_share": share, "of": first.id})
            yield facts, dataclasses.replace(proposal.config, capacity_gib=config.capacity_gib)
        share *= CLOSER
