"""What teardown, server and port ask before they act, with clients in the place of a site's."""

import contextlib
import stat
from types import SimpleNamespace

import pytest

from provisioning import access, addresses, booking, collect, inventory, leases, runtime, servers, teardown, volumes
from provisioning.errors import LeaseOverError, NotOursError, UncollectedWorkError
from provisioning.sites import find_node

MADE = "2026-11-22T12:00:00Z"
OURS, THEIRS = "llm_single_abc", "llm_single_other"


class Neutron:
    """What a site's network says, and the rules that were made there."""

    def __init__(self):
        self.made, self.deleted = [], []
        self.old = {"id": "old", "remote_ip_prefix": None, "port_range_min": access.JUPYTER_PORT}
        self.port = {"id": "port", "security_groups": []}

    def list_security_groups(self):
        names = [(OURS, f"labkit_owner={OURS}"), (OURS, f"labkit_owner={THEIRS}"), (OURS, "")]
        return {"security_groups": [
            {"id": text, "name": f"{n}-jupyter", "description": text, "created_at": MADE} for n, text in names
        ]}  # fmt: skip

    def list_security_group_rules(self, **asked):
        return {"security_group_rules": [self.old]}

    def list_floatingips(self):
        texts = (f"labkit_owner={OURS}", f"labkit_owner={THEIRS}", "")
        return {"floatingips": [
            {"id": text, "floating_ip_address": text, "description": text, "created_at": MADE, "port_id": None}
            for text in texts
        ]}  # fmt: skip

    def list_ports(self, **asked):
        return {"ports": [self.port]}

    def create_security_group_rule(self, body):
        self.made.append(body["security_group_rule"])

    def delete_security_group_rule(self, rule):
        self.deleted.append(rule)

    def update_port(self, port, body):
        self.port |= body["port"]


def thing(owner, name=THEIRS, **more):
    data = {"labkit_owner": owner}
    server = {"created": MADE, "created_at": MADE, servers.TASK: None}
    return SimpleNamespace(id=f"of {owner}", name=name, status="ACTIVE", metadata=data, **server, **more)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A booking whose site has what is ours, and what is somebody else's."""
    for module in (access, addresses, leases, servers, volumes):
        for name in ("asking", "deleting"):  # they translate errors of clients, which are not here
            monkeypatch.setattr(module, name, lambda *_: contextlib.nullcontext(), raising=False)
    found = [thing(OURS, OURS), thing(THEIRS), SimpleNamespace(id="x", name="x", status="ACTIVE", metadata={})]
    listed = SimpleNamespace(list=lambda: found, get=lambda id: next(one for one in found if one.id == id))
    cloud = SimpleNamespace(nova=SimpleNamespace(servers=listed), cinder=SimpleNamespace(volumes=listed))
    cloud.neutron, cloud.listed = Neutron(), found
    site, kind = find_node("g1.h100.pci.1")
    return booking.Booking("abc", site, kind, cloud, tmp_path, lambda _: None, poll_s=0.0)


def test_what_others_have_is_never_found(mine):
    assert [server.id for server in servers.find_all(mine)] == [f"of {OURS}"]
    assert [volume.id for volume in volumes.find_all(mine)] == [f"of {OURS}"]
    assert [address["floating_ip_address"] for address in addresses.find_all(mine)] == [f"labkit_owner={OURS}"]
    assert [group["id"] for group in access.groups(mine)] == [f"labkit_owner={OURS}"]


@pytest.mark.parametrize("kind", [servers, volumes])
def test_our_name_without_our_tag_is_not_taken_for_ours(mine, kind):
    mine.cloud.listed.append(thing(THEIRS, OURS))
    with pytest.raises(NotOursError, match="Rename it"):
        kind.find_all(mine)


def test_a_teardown_deletes_nothing_while_there_is_work_to_lose(mine, monkeypatch):
    held = inventory.Holding("server", OURS, "1", OURS, "ACTIVE", mine.site.name)
    seen = inventory.Seen({}, {}, ())
    monkeypatch.setattr(teardown, "scan", lambda *_: teardown.Scan({mine: [held]}, seen))
    monkeypatch.setattr("provisioning.collect.uncollected", lambda _: "there is newer work on the node")
    for module in (servers, addresses, volumes, leases):
        monkeypatch.setattr(module, "delete", lambda *_: pytest.fail("something was deleted"))
    monkeypatch.setattr(volumes, "mark", lambda *_: pytest.fail("the volume was said to hold no work"))
    with pytest.raises(UncollectedWorkError, match="newer work"):
        teardown.teardown(mine)


def test_a_teardown_is_refused_for_work_that_collect_cannot_bring_home(mine, monkeypatch):
    left = '"links": [], "others": [], "left_out": {"caches": {"files": 2, "bytes": 9, "largest": [["cache/x", 5]]}}'
    listed = f'{{"digest": "d1", "files": [], "behind": [["big.csv", 3000000000, "too large"]], {left}}}'
    monkeypatch.setattr(access, "way_in", lambda *_: SimpleNamespace(run=lambda *_, **__: listed))
    mine.cloud.listed[0].metadata |= {volumes.WORK: volumes.YES, volumes.COLLECTED: "d1 2026-11-29 10:00 UTC"}
    monkeypatch.setattr(mine, "say", (said := []).append)
    with pytest.raises(
        UncollectedWorkError, match=r"cannot bring home: big.csv 2.8 GiB \(too large\). Copy it yourself"
    ):
        collect.refuse_to_lose(mine)
    assert any(line.endswith("left out, caches: 2 files, 9 B, the largest cache/x 5 B") for line in said)
    whole = listed.replace('["big.csv", 3000000000, "too large"]', "")
    monkeypatch.setattr(access, "way_in", lambda *_: SimpleNamespace(run=lambda *_, **__: whole))
    collect.refuse_to_lose(mine)


def test_a_server_of_an_earlier_lease_is_refused(mine, monkeypatch):
    monkeypatch.setattr(leases, "hold", lambda _: SimpleNamespace(id="this one", status="ACTIVE"))
    mine.cloud.listed[0].metadata |= {servers.LEASE: "an earlier one"}
    with pytest.raises(LeaseOverError, match="of an earlier lease"):
        servers.ensure(mine)
    mine.cloud.listed[0].metadata |= {servers.LEASE: "this one"}
    assert servers.ensure(mine).id == f"of {OURS}"


def test_an_open_port_is_open_to_the_one_who_asks_and_an_older_rule_goes(mine, monkeypatch):
    way = SimpleNamespace(run=lambda *_, **__: "198.51.100.7\n")
    monkeypatch.setattr(access, "way_in", lambda *_: way)
    assert access.open_jupyter(mine) == "198.51.100.7"
    (rule,) = mine.cloud.neutron.made
    assert (rule["remote_ip_prefix"], rule["port_range_min"], rule["port_range_max"]) == (
        "198.51.100.7/32", access.JUPYTER_PORT, access.JUPYTER_PORT,
    )  # fmt: skip
    assert mine.cloud.neutron.deleted == ["old"]
    assert mine.cloud.neutron.port["security_groups"] == [f"labkit_owner={OURS}"]


def test_jupyter_listens_on_the_nodes_loopback_and_the_work_is_marked_before_it_can_be_written(mine, monkeypatch):
    done = []

    def run(script, *arguments, **_):
        done.append((script, *arguments))
        return "null" if script == "running" else '{"token": "s3cret"}\n'

    way = SimpleNamespace(run=run, address="203.0.113.7", key="key", port=22, target="cc@203.0.113.7")
    monkeypatch.setattr(access, "way_in", lambda *_: way)
    monkeypatch.setattr(runtime.project, "archive", lambda: (b"", "0123"))
    monkeypatch.setattr(servers, "mark", lambda _, values: done.append(("mark", values)))
    runtime.start_jupyter(mine)
    asked, marked, (script, *arguments) = done
    assert asked[0] == "running"
    assert marked == ("mark", {volumes.WORK: volumes.YES})
    assert arguments[-1] == "keep"
    assert script == "jupyter" and "127.0.0.1" in arguments and "0.0.0.0" not in arguments


def test_the_folder_with_the_key_is_its_owners(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setattr(booking.Cloud, "connect", lambda *_: None)
    folder = booking.book("abc", "g1.h100.pci.1").folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
