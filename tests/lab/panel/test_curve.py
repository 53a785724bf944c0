"""Losses in bounded room: what is thinned out and what is not."""

import pytest

from labkit.lab.panel.curve import BUCKETS, Curve


def curve(*losses):
    found = Curve()
    found.add(list(losses))
    return found


def test_few_losses_are_there_one_by_one_and_gaps_stay():
    found = curve(3.0, None, 1.0).to_dict()
    assert found["low"] == found["high"] == found["mean"] == [3.0, None, 1.0]
    assert (found["width"], found["count"], found["lost"], found["first"], found["last"]) == (1, 3, 1, 3.0, 1.0)


def test_no_losses_and_no_numbers_are_no_fault():
    assert curve().to_dict()["mean"] == [] and curve().to_dict()["last"] is None
    found = curve(None, None).to_dict()
    assert (found["mean"], found["first"], found["last"], found["lost"]) == ([None, None], None, None, 2)


@pytest.mark.parametrize("count", [BUCKETS, BUCKETS + 1, 200_000])
def test_every_spike_stays_whatever_the_length(count):
    losses = [2.0 + at % 2 for at in range(count)]
    spikes = {at: 50.0 + at % 7 for at in range(5, count, count // 9)}
    for at, spike in spikes.items():
        losses[at] = spike if at % 2 else -spike
    found = curve(*losses).to_dict()
    assert len(found["mean"]) <= BUCKETS and found["count"] == count
    for at, spike in spikes.items():
        side = found["high"] if at % 2 else found["low"]
        assert side[at // found["width"]] == (spike if at % 2 else -spike)
    assert len([high for high in found["high"] if high > 10]) <= len(spikes)


def test_losses_in_parts_are_the_same_as_at_once():
    losses = [None if at % 5 == 0 else at / 7 for at in range(3000)]
    parts = Curve()
    for at in range(0, 3000, 7):
        parts.add(losses[at : at + 7])
    assert parts.to_dict() == curve(*losses).to_dict()


def test_what_is_trained_again_is_forgotten():
    found = curve(5.0, None, 4.0, 3.0, None)
    found.cut(3)
    assert found.to_dict() == curve(5.0, None, 4.0).to_dict()
    found.cut(7)  # there is nothing from there on
    assert found.count == 3
    found.cut(-1)
    assert found.to_dict() == Curve().to_dict()


def test_a_long_curve_that_is_cut_continues_where_it_was_cut():
    found = curve(*[1.0] * 5000)
    found.cut(4001)
    found.add([2.0] * 999)
    shown = found.to_dict()
    assert (shown["count"], len(shown["mean"])) == (5000, -(-5000 // shown["width"]))
    assert shown["high"][-1] == 2.0 and shown["high"][0] == 1.0


def test_losses_near_the_end_of_numbers_are_no_fault():
    assert curve(*[10**300, -1e300] * 3000).to_dict()["high"][0] == 1e300
