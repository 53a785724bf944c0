"""Times, and the next free slot."""

from datetime import UTC, datetime, timedelta

import pytest

from provisioning import times
from provisioning.errors import UsageError
from provisioning.slots import MARGIN, next_slot

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def taken(host, *hours):
    spans = [
        {"start_date": (NOON + start * HOUR).strftime("%Y-%m-%dT%H:%M:%S.000000"),
         "end_date": (NOON + end * HOUR).strftime("%Y-%m-%dT%H:%M:%S.000000")}
        for start, end in hours
    ]  # fmt: skip
    return {"resource_id": host, "reservations": spans}


@pytest.mark.parametrize(
    ("hosts", "allocations", "hours", "expected"),
    [
        (["1"], [], 3, NOON),
        (["1"], [taken("1", (0, 3))], 3, NOON + 3 * HOUR + MARGIN),
        (["1"], [taken("1", (-5, -1))], 3, NOON),
        (["1"], [taken("1", (4, 8))], 3, NOON),
        (["1"], [taken("1", (3, 8))], 3, NOON + 8 * HOUR + MARGIN),
        (["1"], [taken("1", (6, 8), (0, 2))], 3, NOON + 2 * HOUR + MARGIN),
        (["1", "2"], [taken("1", (0, 9)), taken("2", (0, 5))], 3, NOON + 5 * HOUR + MARGIN),
        (["1", "2"], [taken("1", (0, 9))], 3, NOON),
        (["1"], [taken("3", (0, 9))], 3, NOON),
        ([], [], 3, None),
    ],
)
def test_the_next_free_slot(hosts, allocations, hours, expected):
    assert next_slot(hosts, allocations, hours * HOUR, NOON) == expected


@pytest.mark.parametrize(("text", "minutes"), [("2h50m", 170), ("90m", 90), ("3h", 180), ("2h 50m", 170), ("0h5m", 5)])
def test_a_length(text, minutes):
    assert times.parse_length(text) == timedelta(minutes=minutes)


@pytest.mark.parametrize("text", ["", "0m", "2", "h", "-1h", "1d", "2h50"])
def test_a_length_that_is_none(text):
    with pytest.raises(UsageError, match=f"'{text}' is not a length. Write it like 2h50m"):
        times.parse_length(text)


def test_a_start_is_local_unless_it_says_otherwise(monkeypatch):
    assert times.parse_start("2026-11-21T13:00+01:00") == NOON
    monkeypatch.setenv("TZ", "America/New_York")
    import time

    time.tzset()
    try:
        assert times.parse_start("2026-11-21T07:00") == NOON
        assert times.show(NOON).endswith("12:00 UTC (07:00 EST)")
    finally:
        monkeypatch.undo()
        time.tzset()
    with pytest.raises(UsageError, match="start 'tomorrow' is not a time"):
        times.parse_start("tomorrow")


def test_a_time_of_blazar_is_in_utc():
    assert times.parse_blazar("2026-11-21T12:00:00.000000") == NOON


def test_lengths_are_readable():
    assert times.length(timedelta(hours=2, minutes=50, seconds=30)) == "2 h 50 min"
    assert times.length(timedelta(minutes=5)) == "5 min"
    assert times.length(timedelta(seconds=-5)) == "0 min"
