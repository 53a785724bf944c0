"""The lease that a run began with: looked at before and after all that is made, and one too many given back; with a
Blazar in the place of a site's."""

import contextlib
import dataclasses
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from provisioning import addresses, booking, collect, inventory, leases, running, servers, teardown, times, volumes
from provisioning.errors import FailedError, GoneError, LeaseOverError, ServiceError, SshError, UncollectedWorkError
from provisioning.sites import find_node

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Blazar:
    """Leases by id, as a site keeps them."""

    def __init__(self):
        self.kept, self.updated = {}, []

    def put(self, id, status="ACTIVE", start=NOW - HOUR, end=NOW + HOUR, name="llm_single_abc", created=NOW - HOUR):
        self.kept[id] = {
            "id": id, "name": name, "status": status, "start_date": f"{start:%Y-%m-%dT%H:%M:%S.%f}",
            "end_date": f"{end:%Y-%m-%dT%H:%M:%S.%f}", "created_at": f"{created:%Y-%m-%d %H:%M:%S}", "reservations": [],
        }  # fmt: skip

    def list(self):
        return list(self.kept.values())

    def get(self, id):
        if id not in self.kept:
            raise GoneError("reading lease: the site does not have it.")
        return self.kept[id]

    def delete(self, id):
        del self.kept[id]

    def update(self, id, **changed):
        self.updated.append((id, changed))


@pytest.fixture
def mine(tmp_path, monkeypatch):
    for module in (leases, servers, volumes):
        for name in ("asking", "deleting"):  # they translate errors of clients, which are not here
            monkeypatch.setattr(module, name, lambda *_: contextlib.nullcontext(), raising=False)
    blazar, listed = Blazar(), []
    cloud = SimpleNamespace(
        blazar=SimpleNamespace(lease=blazar), nova=SimpleNamespace(servers=SimpleNamespace(list=lambda: listed)),
        transport=SimpleNamespace(now=lambda: NOW),
    )  # fmt: skip
    site, kind = find_node("g1.h100.pci.1")
    said = []
    made = booking.Booking("abc", site, kind, cloud, tmp_path, said.append, poll_s=0.0)
    made.said, made.leases, made.servers = said, blazar, listed
    return made


def server(lease, **more):
    data = {"labkit_owner": "llm_single_abc", "labkit_lease": lease} | more
    return SimpleNamespace(id="s", name="x", status="ACTIVE", metadata=data, created="", **{servers.TASK: None})


@pytest.mark.parametrize("status", [None, "TERMINATED", "TERMINATING", "DELETING"])
def test_a_lease_that_is_gone_stops_what_began_with_it(mine, status):
    mine.leases.put("first")
    leases.active(mine)
    leases.hold(mine)
    mine.leases.put("second", created=NOW)  # somebody has one again: it is not the one that this began with
    if status:
        mine.leases.put("first", status)
    else:
        mine.leases.delete("first")
    with pytest.raises(LeaseOverError, match=f"is {status or 'gone'}: it was torn down"):
        leases.hold(mine)


def test_a_lease_of_which_blazar_answers_nothing_is_gone(mine, monkeypatch):
    """It goes while Blazar reads it: the answer is 200, and empty."""
    mine.leases.put("first")
    lease = leases.active(mine)
    monkeypatch.setattr(mine.leases, "get", lambda id: None)
    with pytest.raises(LeaseOverError, match="is gone: it was torn down"):
        leases.hold(mine)
    leases.delete(mine, lease)


def test_what_goes_wrong_when_the_lease_goes_is_said_as_that(mine):
    mine.leases.put("first")
    with pytest.raises(LeaseOverError, match="torn down"), leases.held(mine):
        mine.leases.delete("first")
        raise FailedError("the key is refused")
    mine.lease_id = ""
    mine.leases.put("second")
    with pytest.raises(FailedError, match="the key is refused"), leases.held(mine):
        raise FailedError("the key is refused")


def test_of_two_leases_that_of_the_server_stays_and_one_of_another_day_too(mine):
    mine.leases.put("older", created=NOW - 2 * HOUR)
    mine.leases.put("used", created=NOW - HOUR)
    mine.leases.put("tomorrow", "PENDING", start=NOW + 24 * HOUR, end=NOW + 26 * HOUR)
    mine.servers.append(server("used"))
    assert leases.ensure(mine).id == "used"
    assert sorted(mine.leases.kept) == ["tomorrow", "used"]


def test_two_leases_with_a_server_each_are_left_alone_and_said(mine):
    mine.leases.put("a", created=NOW - HOUR)
    mine.leases.put("b", created=NOW)
    mine.servers += [server("a"), server("b")]
    assert leases.ensure(mine).id == "a"
    assert sorted(mine.leases.kept) == ["a", "b"]
    assert any("two, and each has a server" in line for line in mine.said)


def test_a_lease_that_was_renamed_is_known_by_the_id_that_the_server_carries(mine):
    mine.leases.put("renamed", name="my lease")
    assert leases.find(mine) is None
    mine.servers.append(server("renamed"))
    assert leases.find(mine).id == "renamed"


def test_a_lease_over_a_server_that_does_not_go_ends_by_its_date(mine):
    end = leases.end_soon(mine, "stuck")
    assert mine.leases.updated == [("stuck", {"end_date": end.strftime(times.BLAZAR)})]
    assert timedelta(seconds=60) < end - NOW < timedelta(minutes=2)


def test_what_is_saved_after_the_first_look_is_seen_and_the_lab_goes_on(mine, monkeypatch):
    mine.servers.append(server("a", labkit_work="yes"))
    done = []
    monkeypatch.setattr(teardown.access, "way_in", lambda *_: "way")
    monkeypatch.setattr(running, "stop", lambda way: done.append("stop"))
    monkeypatch.setattr(running, "resume", lambda way: done.append("resume"))
    monkeypatch.setattr(collect, "uncollected", lambda _: "there is newer work" if "stop" in done else None)
    with pytest.raises(UncollectedWorkError):
        teardown._look_once_more([mine])
    assert done == ["stop", "resume"]


@pytest.mark.parametrize(
    ("status", "task", "leaving"),
    [("ACTIVE", None, False), ("ACTIVE", "deleting", True), ("ACTIVE", "soft-deleting", True),
     ("DELETED", None, True), ("SOFT_DELETED", None, True), ("ACTIVE", "powering-off", False)],
)  # fmt: skip
def test_a_server_is_on_its_way_out_also_after_nova_has_ended_the_task(status, task, leaving):
    there = server("a")
    there.status = status
    setattr(there, servers.TASK, task)
    assert servers.is_leaving(there) is leaving


@pytest.mark.parametrize("goes", [True, False])
def test_a_node_that_goes_while_its_lab_is_stopped_is_no_failure(mine, monkeypatch, goes):
    mine.servers.append(server("a", labkit_work="yes"))
    asked = []
    monkeypatch.setattr(teardown.access, "way_in", lambda *_: "way")
    monkeypatch.setattr(running, "resume", lambda way: asked.append("resume"))
    monkeypatch.setattr(collect, "uncollected", lambda _: asked.append("what is left"))

    def stop(way):
        if goes:
            mine.servers.clear()
        raise SshError("the key is refused")

    monkeypatch.setattr(running, "stop", stop)
    with contextlib.nullcontext() if goes else pytest.raises(SshError):
        teardown._look_once_more([mine])
    assert asked == (["what is left"] if goes else ["resume"])


@pytest.mark.parametrize("seen_first", [True, False])
def test_of_two_nodes_no_lab_stays_stopped_when_one_is_refused(mine, monkeypatch, seen_first):
    mine.servers.append(server("a", labkit_work="yes"))
    second = dataclasses.replace(mine)
    labs = {id(mine): "on", id(second): "on"}
    monkeypatch.setattr(teardown.access, "way_in", lambda booking, _: id(booking))
    monkeypatch.setattr(running, "stop", lambda way: labs.update({way: "off"}))
    monkeypatch.setattr(running, "resume", lambda way: labs.update({way: "on"}))
    monkeypatch.setattr(volumes, "find_all", lambda _: [])
    found = inventory.Seen({}, {}, ())
    monkeypatch.setattr(teardown, "scan", lambda *_: teardown.Scan({mine: ["a"], second: ["b"]}, found))
    monkeypatch.setattr(teardown, "_take_down", lambda *_: pytest.fail("something was deleted"))

    def uncollected(booking):
        return "newer work" if booking is second and (seen_first or labs[id(second)] == "off") else None

    monkeypatch.setattr(collect, "uncollected", uncollected)
    with pytest.raises(UncollectedWorkError, match="newer work"):
        teardown.teardown(mine)
    assert set(labs.values()) == {"on"}


@pytest.mark.parametrize("mark", ["yes", "no"])
def test_work_on_a_volume_without_a_server_is_never_called_none(mine, monkeypatch, mark):
    monkeypatch.setattr(servers, "find", lambda booking: None)
    monkeypatch.setattr(volumes, "find", lambda booking: SimpleNamespace(metadata={volumes.WORK: mark}))
    if mark == "no":
        assert collect.collect(mine) is None
        assert mine.said == ["collect llm_single_abc: there is no server, and no work"]
        return
    with pytest.raises(
        UncollectedWorkError, match="its server is gone.*never collected.*'up' where there is no server"
    ):
        collect.collect(mine)


class Neutron:
    """Two addresses of ours, and a port that takes one."""

    def __init__(self, on_port):
        self.ips = {
            name: {"id": name, "floating_ip_address": name, "description": "labkit_owner=llm_single_abc",
                   "created_at": name, "port_id": "port" if name == on_port else None}
            for name in ("1-older", "2-younger")
        }  # fmt: skip

    def list_floatingips(self):
        return {"floatingips": [dict(one) for one in self.ips.values()]}

    def list_ports(self, **asked):
        return {"ports": [{"id": "port"}]}

    def update_floatingip(self, id, body):
        if any(one["port_id"] for one in self.ips.values()):
            raise ServiceError("refused (409)")
        self.ips[id] |= body["floatingip"]

    def delete_floatingip(self, id):
        del self.ips[id]


@pytest.mark.parametrize(("on_port", "stays"), [("2-younger", "2-younger"), ("1-older", "1-older"), (None, "1-older")])
def test_of_two_addresses_that_on_the_port_stays_else_the_older(mine, monkeypatch, on_port, stays):
    for name in ("asking", "deleting"):
        monkeypatch.setattr(addresses, name, lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(servers, "find", lambda booking: SimpleNamespace(id="s"))
    mine.leases.put("first")
    mine.cloud.neutron = Neutron(on_port)
    assert addresses.ensure(mine) == addresses.find(mine) == stays
    assert list(mine.cloud.neutron.ips) == [stays]
