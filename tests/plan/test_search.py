"""The largest batch: found by planning, with its neighbour above, also where more is not always worse."""

from types import SimpleNamespace

import pytest

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict
from labkit.plan.search import largest_batch, search, with_batch

CACHE = TraceCache(None)
CAPACITY = 1000


def config_of(name, **overrides):
    return resolve(Workspace.find(), name, {key: str(value) for key, value in overrides.items()}).config


def linear(per_sample, fixed=100, odd=()):
    """A plan whose peak grows straight; ``odd`` sizes do not fit whatever they hold."""

    def plan(size):
        peak = fixed + per_sample * size
        verdict = "fits" if peak <= 0.95 * CAPACITY and size not in odd else "out of memory"
        phase = SimpleNamespace(peak={"activations": per_sample * size, "inputs": 0})
        return SimpleNamespace(verdict=verdict, peak_bytes=peak, capacity_bytes=CAPACITY, peak_phase=phase)

    return plan


@pytest.mark.parametrize("near", [1, 7, 64, 512])
@pytest.mark.parametrize("per_sample", [2, 3, 10, 33, 85, 425])
def test_it_is_the_largest_and_the_next_one_does_not_fit(per_sample, near):
    found = search(range(1, 513), linear(per_sample), near)
    assert found.batch_size == min(850 // per_sample, 512)
    assert found.prediction.verdict == "fits"
    assert found.above_batch_size == (None if found.batch_size == 512 else found.batch_size + 1)
    assert found.above is None or found.above.verdict != "fits"
    assert found.plans <= 6


def test_a_straight_line_is_not_taken_for_granted():
    def plan(size):
        found = linear(0, fixed=900)(size)
        found.verdict = "fits" if size <= 77 else "out of memory"  # what is reserved, not what is allocated
        return found

    assert search(range(1, 513), plan, 16).batch_size == 77
    assert search(range(1, 513), linear(10, odd={80, 81}), 16).above.verdict != "fits"


def test_nothing_may_fit_and_everything_may():
    none = search([1, 2, 4], linear(2000), 4)
    assert (none.batch_size, none.prediction, none.above_batch_size) == (None, None, 1)
    every = search([1, 2, 4], linear(1), 4)
    assert (every.batch_size, every.above_batch_size, every.plans) == (4, None, 1)
    assert search([], linear(1), 4).batch_size is None


@pytest.mark.slow
def test_the_largest_batch_of_a_run_is_planned_again():
    config = config_of("reduced_batch")
    found = largest_batch(config, cache=CACHE)
    assert found.above_batch_size == found.batch_size + 1
    for size, verdict in ((found.batch_size, True), (found.above_batch_size, False)):
        assert (predict(config_of("reduced_batch", batch_size=size), cache=CACHE).verdict == "fits") is verdict


@pytest.mark.slow
def test_a_global_batch_is_kept():
    config = config_of("baseline")
    found = largest_batch(config, cache=CACHE, choices=range(1, 33), keep_global=True)
    assert 32 % found.batch_size == 0
    assert found.above_batch_size == 2 * found.batch_size
    kept = with_batch(config, found.batch_size, keep_global=True)
    assert kept.batch_size * kept.accumulate_grad_batches == 32
    by_key = with_batch(config_of("baseline", global_batch_size=64), 16, keep_global=True)
    assert (by_key.accumulate_grad_batches, by_key.global_batch_size) == (4, 64)
