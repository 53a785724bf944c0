"""A rotation of a class, by its properties."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning import leases, servers, times, timetable, volumes
from provisioning.errors import NoSlotError, UsageError
from provisioning.leases import Lease
from provisioning.roster import Student, read_class, write_times
from provisioning.rotation import rotate, table

DAY = datetime(2999, 1, 1, 8, tzinfo=UTC)
minutes = st.integers(1, 600).map(lambda n: timedelta(minutes=n))


@given(
    st.integers(0, 40), st.integers(1, 9), st.datetimes(timezones=st.just(UTC), max_value=datetime(2998, 1, 1)),
    st.timedeltas(timedelta(seconds=1), timedelta(days=3)), minutes, st.integers(0, 90),
)  # fmt: skip
def test_everyone_gets_one_slot_in_the_window_and_no_node_two_students(
    students, nodes, start, window, length, turnover
):
    netids, turnover, end = [f"s{number}" for number in range(students)], timedelta(minutes=turnover), start + window
    try:
        slots = rotate(netids, nodes, start, end, length, turnover)
    except NoSlotError as error:
        assert "\n" not in str(error) and "It fits " in str(error)
        # brute force: one node after the other, as early as it can be
        begin = start if start == start.replace(second=0, microsecond=0) else start.replace(
            second=0, microsecond=0) + timedelta(minutes=1)  # fmt: skip
        places = 0
        while begin + length <= end:
            places, begin = places + nodes, begin + length + turnover
        assert places < students
        return
    assert [slot.netid for slot in slots] == netids
    for slot in slots:
        assert start <= slot.start < slot.end <= end and slot.length == length
        assert slot.start.second == slot.start.microsecond == 0
        assert 1 <= slot.place <= nodes
    for place in range(1, nodes + 1):
        on_it = [slot for slot in slots if slot.place == place]
        assert all(b.start - a.end >= turnover for a, b in zip(on_it, on_it[1:], strict=False))


def test_what_does_not_fit_is_said_with_what_would():
    wanted = {"netids": [f"s{n}" for n in range(26)], "nodes": 4, "start": DAY, "end": DAY + timedelta(hours=10),
              "length": timedelta(hours=2, minutes=50), "turnover": timedelta(minutes=20)}  # fmt: skip
    with pytest.raises(NoSlotError, match="26 students do not fit: 4 nodes have 12 slots of 2 h 50 min") as error:
        rotate(**wanted)
    assert "with 9 nodes, or until 2999-01-02 05:50 UTC" in str(error.value) and "slots of 1 h 08 min" in str(
        error.value
    )
    for way in ({"nodes": 9}, {"end": datetime(2999, 1, 2, 5, 50, tzinfo=UTC)}, {"length": timedelta(minutes=68)}):
        assert len(rotate(**wanted | way)) == 26
    for less in ({"nodes": 8}, {"end": datetime(2999, 1, 2, 5, 49, tzinfo=UTC)}, {"length": timedelta(minutes=69)}):
        with pytest.raises(NoSlotError):
            rotate(**wanted | less)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"nodes": 0}, "--nodes=0 must"), ({"end": DAY}, "has no time in it"), ({"length": timedelta(0)}, "no slots")],
)
def test_values_that_make_no_rotation_are_refused(change, says):
    wanted = {"netids": ["a"], "nodes": 1, "start": DAY, "end": DAY + timedelta(hours=9), "length": timedelta(hours=1)}
    with pytest.raises(UsageError, match=says):
        rotate(**wanted | change)


def test_the_slots_are_shown_and_written_into_the_class_list_where_all_else_stays(tmp_path):
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ann@laptop, the old one"
    path = tmp_path / "class.csv"
    path.write_text(f'netid,public_key\nann,"{key}"\n\nben,\n')
    slots = rotate(["ann", "ben"], 1, DAY, DAY + timedelta(hours=6), timedelta(hours=2, minutes=50))
    shown = [line.split() for line in table(slots, "x").splitlines()]
    assert shown[1:] == [
        ["ann", "node", "1", "2999-01-01", "08:00", "UTC", "for", "2", "h", "50", "min"],
        ["ben", "node", "1", "2999-01-01", "11:10", "UTC", "for", "2", "h", "50", "min"],
    ]
    write_times(path, {slot.netid: ("x", slot.start, slot.length) for slot in slots})
    assert read_class(path, None) == [
        Student("ann", "x", key, DAY, timedelta(hours=2, minutes=50)),
        Student("ben", "x", "", slots[1].start, timedelta(hours=2, minutes=50)),
    ]
    assert [place.name for place in tmp_path.iterdir()] == ["class.csv"]


NOW = DAY + timedelta(hours=1)


@pytest.mark.parametrize(
    ("begins_h", "length_h", "wanted"),
    [
        (2, 3, (NOW + timedelta(hours=2), timedelta(hours=3))),
        (-1, 3, (None, timedelta(hours=2))),  # late: what is left, since the node is somebody else's then
        (-3, 3, None),
        (-1, None, (None, timedelta(hours=4))),
        (None, None, ("asked", timedelta(hours=5))),
        (None, 1, ("asked", timedelta(hours=1))),
    ],
)
def test_a_lease_keeps_to_the_class_list(begins_h, length_h, wanted):
    begin = None if begins_h is None else NOW + timedelta(hours=begins_h)
    student = Student("ann", "x", "", begin, timedelta(hours=length_h) if length_h else None)
    assert timetable.still(student, "asked", timedelta(hours=5), NOW) == wanted


def lease(begin, length):
    return Lease("id", "ACTIVE", begin, begin + length, "reservation", begin)


def test_a_lease_for_another_time_is_not_taken_for_the_booked_one(monkeypatch):
    booking, hour = SimpleNamespace(name="llm_single_ann"), timedelta(hours=1)
    monkeypatch.setattr(leases, "ensure", lambda *_: lease(DAY, hour))
    assert timetable.reserve(booking, DAY, hour).start == DAY
    for start, length in ((DAY + hour, hour), (DAY, 2 * hour)):
        with pytest.raises(NoSlotError, match="llm_single_ann is there already, from 2999-01-01 08:00 UTC until"):
            timetable.reserve(booking, start, length)


def test_who_did_not_start_is_told_from_who_did_and_who_has_yet_to(monkeypatch):
    now, hour = times.now(), timedelta(hours=1)
    there = {"lease": None, "server": None}
    monkeypatch.setattr(leases, "find", lambda _: there["lease"])
    monkeypatch.setattr(servers, "find", lambda _: there["server"])

    def absent(begin=None, **now_there):
        there.update(now_there)
        return timetable.absent(SimpleNamespace(now=times.now), Student("ann", "x", "", begin))

    def server(status, **metadata):
        return SimpleNamespace(status=status, metadata=metadata)

    assert absent() is None  # no time of their own, and no lease
    assert absent(now + hour) is None
    assert absent(now - hour).endswith(": no lease")
    assert absent(lease=lease(now - hour, 3 * hour)).endswith(": no server")
    assert absent(server=server("SHUTOFF")).endswith("the server is SHUTOFF")
    assert absent(server=server("ACTIVE")).endswith("Jupyter was never started")
    assert absent(now - hour, server=server("ACTIVE", **{volumes.WORK: volumes.YES})) is None
