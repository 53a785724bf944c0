"""Advise: the changes that would make a run fit, each of them planned, the cheapest first."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.gpus import find_gpu, missing_bf16
from labkit.config.schema import RunConfig
from labkit.config.values import pairs
from labkit.plan.allocator import CachingAllocator, SimulatedAllocator
from labkit.plan.cache import TraceCache
from labkit.plan.errors import PredictionError
from labkit.plan.expandable import ExpandableAllocator
from labkit.plan.fallback import KINDS, Fallback, Kind, add, combine, overrides, smaller_batches
from labkit.plan.fallbacks import BATCH, fallbacks_for
from labkit.plan.predict import Prediction, judge, warm_up_bytes
from labkit.plan.search import LargestBatch, largest_batch, search, with_batch

State = tuple[Fallback, ...]

_OFFLOAD = ("offload", "offload of weights")

_TOPS = 3
"""Longest combinations planned before it is said that none fits; the last fallback can be one that does not help."""

LONG_TRACE = 20_000
"""Length of a trace from which it pays to execute several at once, each in a process that first loads torch."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One change, or several together, and what planning them predicted.

    ``overrides`` are the keys to type and ``environment`` what is set for the process. ``cost`` says in words what the
    change costs, and ``kind`` what is paid with: nothing, time, numerics or quality. ``saved_bytes`` is how much lower
    the peak is than that of the run as it was.
    """

    changes: tuple[str, ...]
    overrides: dict[str, Any]
    environment: dict[str, str]
    kind: Kind
    cost: str
    config: RunConfig
    prediction: Prediction
    saved_bytes: int

    def command(self, experiment: str, profile: str, typed: Mapping[str, Any] | None = None) -> str:
        """What to type in a shell; ``typed`` are the overrides that the run had before."""
        before = {key: value for key, value in (typed or {}).items() if key not in self.overrides}
        environment = [f"{key}={value}" for key, value in self.environment.items()]
        values = [*pairs(before), *self.words()]
        return " ".join([*environment, "labkit", "run", experiment, *values, "--profile", profile])

    def words(self) -> list[str]:
        """The overrides as they are typed."""
        return pairs(self.overrides)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        found = self.prediction
        return {
            "changes": list(self.changes), "overrides": self.overrides, "environment": self.environment,
            "kind": self.kind, "cost": self.cost, "verdict": found.verdict, "margin": found.margin,
            "peak_bytes": found.peak_bytes, "reserved_bytes": found.reserved_bytes, "host_bytes": found.host_bytes,
            "saved_bytes": self.saved_bytes,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What would make a run fit. ``proposals`` all fit, the cheapest first; of a run that fits there are none.

    ``largest`` is the largest batch of a run that fits. Where nothing fits, ``nearest`` is the proposal that comes
    closest, and ``missing_bytes`` is how far its peak is above the capacity; 0 if only the allocator's holes or the
    margin keep it from fitting. ``plans`` counts the runs that were planned.
    """

    config: RunConfig
    prediction: Prediction
    proposals: list[Proposal] = field(default_factory=list)
    largest: LargestBatch | None = None
    nearest: Proposal | None = None
    plans: int = 0

    @property
    def fits(self) -> bool:
        """Whether the run fits as it is."""
        return self.prediction.verdict == "fits"

    @property
    def missing_bytes(self) -> int:
        """Of what comes nearest: how much its peak is above the capacity."""
        if self.nearest is None:
            return 0
        found = self.nearest.prediction
        return max(0, found.peak_bytes - (found.capacity_bytes or 0))


def advise(
    config: RunConfig, gpu: str | None = None, cache: TraceCache | None = None, *, bf16: bool = True,
    say: Callable[[str], None] | None = None,
) -> Advice:  # fmt: skip
    """The changes that would make a run fit, ranked by what they cost; of a run that fits, the largest batch.

        for proposal in advise(config, "24GiB").proposals:
            print(proposal.overrides, proposal.cost, proposal.prediction.peak_bytes)

    ``gpu`` is a GPU by name or size in place of the config's device; without it ``bf16`` says whether the device has
    that. Every proposal was planned, and its verdict is ``fits``. Single changes come from ``labkit.plan.fallbacks``,
    whose order ranks them. Where none fits, or only one that costs numerics, quality or offload, changes are
    combined: fallbacks are added until the run fits, and each change that turns out not to be needed is dropped
    again, the costliest first. So no single change can be left out of a combination; another combination may still
    be better. ``say`` is called with what is planned.

    Raises ``ConfigError`` for an unknown GPU, a run without a capacity or one that the GPU cannot do, and
    ``PredictionError`` for a run that cannot be predicted.
    """
    if gpu is not None:
        found = find_gpu(gpu)
        bf16 = found.bf16
        config = dataclasses.replace(config, **found.values)
    if config.capacity_gib is None:
        raise ConfigError("capacity_gib is empty, so anything fits; give a GPU, or set capacity_gib.")
    if not bf16 and (lacking := missing_bf16(config)):
        raise ConfigError(f"{lacking} does not go with this GPU, which has no bf16; set precision=16-mixed or 32-true.")
    plans = _Plans(config, cache or TraceCache.find(), bf16, say or (lambda text: None))
    if plans.base.verdict == "fits":
        plans.say("planning larger batches")
        found_batch = largest_batch(config, cache=plans.cache)
        return Advice(config=config, prediction=plans.base, largest=found_batch, plans=1 + found_batch.plans)
    proposals = _single_changes(plans)
    proposals += _combinations(plans, proposals)
    proposals.sort(key=plans.rank)
    nearest = None if proposals else min(plans.tried, key=_distance, default=None)
    return Advice(
        config=config, prediction=plans.base, proposals=proposals, nearest=nearest, plans=len(plans.known)
    )  # fmt: skip


class _Plans:
    """Plans of a run and of its changes, each made once."""

    def __init__(self, config: RunConfig, cache: TraceCache, bf16: bool, say: Callable[[str], None]) -> None:
        self.config = config
        self.cache = cache
        self.bf16 = bf16
        self.say = say
        self.fallbacks = fallbacks_for(bf16)
        self.known: dict[tuple[str, bool], Prediction | None] = {}
        self.tried: list[Proposal] = []
        trace = cache.trace(config)
        self._at_once = len(trace.moves) > LONG_TRACE
        self.base = self._judge(config, False)
        self.known[config.hash, False] = self.base

    def _judge(self, config: RunConfig, expandable: bool) -> Prediction:
        trace = self.cache.trace(config)
        return judge(trace, config.capacity_bytes, self._kind(expandable), warm_up_bytes(config, trace))

    def _kind(self, expandable: bool) -> type[CachingAllocator]:
        if not self.config.on_cuda:
            return SimulatedAllocator
        return ExpandableAllocator if expandable else CachingAllocator

    def fill(self, states: Iterable[State]) -> None:
        """Execute what several states need at once, if they are long."""
        configs = [config for state in states if (config := combine(self.config, state, self.bf16)) is not None]
        if self._at_once and len(configs) > 1:
            self.cache.fill(configs)

    def predict(self, config: RunConfig, expandable: bool) -> Prediction | None:
        """What a config would hold; None for one that cannot be predicted."""
        key = config.hash, expandable
        if key not in self.known:
            try:
                self.known[key] = self._judge(config, expandable)
            except (PredictionError, ConfigError):
                self.known[key] = None
        return self.known[key]

    def propose(self, fallbacks: State, config: RunConfig | None = None) -> Proposal | None:
        """The fallbacks as a proposal, whatever its verdict; ``config`` if a batch was chosen. None if not to be
        had."""
        config = config or combine(self.config, fallbacks, self.bf16)
        if config is None:
            return None
        expandable = any(fallback.environment for fallback in fallbacks)
        found = self.predict(config, expandable)
        if found is None:
            return None
        worst = max((fallback.kind for fallback in fallbacks), key=KINDS.index)
        proposal = Proposal(
            changes=tuple(fallback.name for fallback in fallbacks), overrides=overrides(self.config, config),
            environment={key: value for fallback in fallbacks for key, value in fallback.environment.items()},
            kind=worst, cost="; ".join(_cost(fallback, config, found) for fallback in fallbacks), config=config,
            prediction=found, saved_bytes=self.base.peak_bytes - found.peak_bytes,
        )  # fmt: skip
        self.tried.append(proposal)
        return proposal

    def with_largest_batch(self, fallbacks: State) -> Proposal | None:
        """The fallbacks with the largest batch below the run's that fits and keeps the samples of an optimizer step."""
        others = tuple(fallback for fallback in fallbacks if fallback is not BATCH)
        rest = combine(self.config, others, self.bf16)
        if rest is None:
            return None
        expandable = any(fallback.environment for fallback in fallbacks)

        def plan(size: int) -> Prediction:
            found = self.predict(with_batch(rest, size, keep_global=True), expandable)
            if found is None:
                raise PredictionError(f"batch_size={size} cannot be predicted.")
            return found

        try:
            found = search(smaller_batches(rest), plan, near=rest.batch_size // 2)
        except PredictionError:
            return None
        size = found.batch_size or 1
        proposal = self.propose(fallbacks, with_batch(rest, size, keep_global=True))
        return proposal if found.batch_size is not None else None

    def rank(self, proposal: Proposal) -> tuple[int, int, int]:
        """Kind of cost, then the costliest fallback, then how many there are."""
        names = [fallback.name for fallback in self.fallbacks]
        return (
            KINDS.index(proposal.kind), max(names.index(name) for name in proposal.changes), len(proposal.changes)
        )  # fmt: skip


def _single_changes(plans: _Plans) -> list[Proposal]:
    states = [
        (fallback,)
        for fallback in plans.fallbacks
        if _can_reach(fallback, plans.base) and add(plans.config, (), fallback)
    ]
    plans.say(f"planning {len(states)} single changes")
    plans.fill(state for state in states if state != (BATCH,))
    found = [plans.with_largest_batch(state) if state == (BATCH,) else plans.propose(state) for state in states]
    return [proposal for proposal in found if proposal is not None and proposal.prediction.verdict == "fits"]


def _can_reach(fallback: Fallback, base: Prediction) -> bool:
    """Whether the memory that the change does not touch fits at all; if not, the change fails, and no plan is needed to
    see it."""
    capacity = base.capacity_bytes or 0
    if fallback.environment:  # no allocator makes room for what is allocated
        return base.peak_bytes <= capacity
    for phase in base.phases:
        in_step = phase.phase == "after_optimizer_step"
        untouched = 0
        if fallback.reach == "optimizer" and phase.step == 0 and not in_step:
            untouched = phase.peak_bytes
        elif fallback.reach == "activations":
            held = phase.peak if in_step else phase.end
            kept = ("parameters", "gradients", "optimizer_gpu", *(["temporaries"] if in_step else []))
            untouched = sum(held[category] for category in kept)
        if untouched > capacity:
            return False
    return True


def _combinations(plans: _Plans, single: list[Proposal]) -> list[Proposal]:
    """Changes together, where none alone fits for nothing or for time: with offload, and without.

    The search does not end with offload alone, since not every host has the memory for it.
    """
    names = [fallback.name for fallback in plans.fallbacks]
    found: list[Proposal] = []
    for barred in ((), _OFFLOAD):
        alone = [proposal for proposal in single if proposal.changes[0] not in barred]
        if alone and alone[0].kind in ("none", "time"):
            continue
        fallbacks = plans.fallbacks[: names.index(alone[0].changes[0])] if alone else plans.fallbacks
        proposal = _fewest_that_fit(plans, [fallback for fallback in fallbacks if fallback.name not in barred])
        if proposal is not None and proposal.changes not in [p.changes for p in (*found, *single)]:
            found.append(proposal)
    return found


def _fewest_that_fit(plans: _Plans, fallbacks: list[Fallback]) -> Proposal | None:
    """Fallbacks added one by one, as far as needed, less those that are not."""
    states: list[State] = []
    for fallback in fallbacks:
        state = add(plans.config, states[-1] if states else (), fallback, plans.bf16)
        if state is not None:
            states.append(state)
    plans.say("planning changes together")
    tops = range(len(states) - 1, max(len(states) - 1 - _TOPS, -1), -1)
    high = next((at for at in tops if _fits(plans, states[at])), None)
    if high is None:
        return None
    low = -1
    while high - low > 1:  # with more fallbacks a run nearly always holds less; what comes out is planned in any case
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(plans, states[middle]) else (middle, high)
    state = states[high]
    plans.fill(tuple(r for r in state if r is not fallback) for fallback in state[:-1])
    for fallback in reversed(state[:-1]):
        less = tuple(r for r in state if r is not fallback)
        if less and _fits(plans, less):
            state = less
    return plans.with_largest_batch(state) if BATCH in state else plans.propose(state)


def _fits(plans: _Plans, state: State) -> bool:
    proposal = plans.propose(state)
    return proposal is not None and proposal.prediction.verdict == "fits"


def _distance(proposal: Proposal) -> tuple[bool, int]:
    found = proposal.prediction
    return found.verdict != "borderline", found.peak_bytes


def _cost(fallback: Fallback, config: RunConfig, found: Prediction) -> str:
    if fallback.name.startswith("offload"):
        return f"{fallback.cost}; {found.host_bytes / 2**30:.1f} GiB of host memory"
    if fallback.name == "batch":
        return f"{fallback.cost} ({config.accumulate_grad_batches} of {config.batch_size})"
    return fallback.cost
