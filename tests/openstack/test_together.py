"""Two at once, and one who sleeps between two calls: held up in a proxy at the moment that matters."""

import contextlib
import threading

import pytest
from conftest import VM
from rig.proxy import FaultyProxy
from rig.remains import remains

from provisioning import addresses, booking, chameleon, errors, inventory, leases, teardown

MAKING = {
    "lease": r"/leases$", "volume": r"/volumes$", "server": r"/servers$", "address": r"/floatingips",
    "group": r"/security-groups",
}  # fmt: skip
STEPS = (
    chameleon.ensure_lease, chameleon.ensure_volume, chameleon.ensure_server, chameleon.ensure_address,
    chameleon.ensure_access,
)  # fmt: skip


@pytest.fixture
def proxy(monkeypatch):
    """A booking that is made from now on goes through it; one made before does not."""
    with FaultyProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        yield proxy


def counts(plane) -> dict[str, int]:
    return {kind: len(names) for kind, names in remains(plane).items()}


def go(made, steps, ended: list) -> None:
    try:
        for step in steps:
            step(made)
    except errors.ProvisioningError as error:
        ended.append(error)


def test_two_that_make_the_same_in_the_same_moment_end_with_one_of_each(plane, book, proxy):
    both, ended = [book("twins"), book("twins")], []
    met = []
    for path in MAKING.values():
        barrier = threading.Barrier(2)

        def together(barrier=barrier):
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(15)

        met.append(proxy.fail("POST", path, status=-1, after=True, times=2, wait=together))
    threads = [threading.Thread(target=go, args=(made, STEPS, ended)) for made in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [str(error) for error in ended] == []
    assert [fault.met for fault in met] == [2] * len(MAKING)  # both asked for each
    assert counts(plane) == {"servers": 1, "volumes": 1, "addresses": 1, "groups": 1, "keys": 1, "leases": 1}
    assert any("the same moment" in line for made in both for line in made.said)
    assert chameleon.status(both[0]).line.count("!") == 0


def test_what_two_left_is_counted_and_a_further_run_gives_back(plane, book):
    made = book("doubled")
    lease = chameleon.ensure_lease(made)
    for step in STEPS[1:4]:
        step(made)
    # as an older version left it: a second lease under the same name, and a second address
    flavor = next(one for one in made.cloud.nova.flavors.list() if one.name == VM)
    reservation = {"resource_type": "flavor:instance", "flavor_id": flavor.id, "amount": 1, "affinity": None}
    until = lease.end.strftime("%Y-%m-%d %H:%M")
    made.cloud.blazar.lease.create(made.name, "now", until, [reservation], [])
    public = next(n["id"] for n in made.cloud.neutron.list_networks()["networks"] if n["name"] == "public")
    body = {"floating_network_id": public, "description": made.tag_text}
    made.cloud.neutron.create_floatingip({"floatingip": body})
    spare = made.cloud.cinder.volumes.create(1, name=made.name, metadata=made.tag)
    made.wait("volume", lambda: made.cloud.cinder.volumes.get(spare.id).status, ("available",), 60)
    for _ in range(2):
        group = {"name": f"{made.name}-ssh", "description": made.tag_text}
        made.cloud.neutron.create_security_group({"security_group": group})
    read = chameleon.status(made)
    for what in ("leases", "addresses", "volumes"):
        assert f"! 2 {what}" in read.line
    for step in STEPS:
        step(made)
    assert counts(plane) == {"servers": 1, "volumes": 1, "addresses": 1, "groups": 1, "keys": 1, "leases": 1}
    assert leases.find(made).id == lease.id  # the one that the server runs under
    assert "!" not in chameleon.status(made).line


def test_two_whose_addresses_are_written_late_end_with_the_one_on_the_server(plane, book, monkeypatch):
    """Each has read before the other's was there, and takes its own for the first."""
    both = [book("late"), book("late")]
    for step in STEPS[:3]:
        step(both[0])
    public = next(n["id"] for n in both[0].cloud.neutron.list_networks()["networks"] if n["name"] == "public")
    body = {"floating_network_id": public, "description": both[0].tag_text}
    own = {id(made): made.cloud.neutron.create_floatingip({"floatingip": body})["floatingip"] for made in both}
    read, first = addresses.find_all, set()

    def late(made):
        found = read(made)
        if id(made) in own and id(made) not in first:
            first.add(id(made))
            return [own[id(made)]]
        return found

    monkeypatch.setattr(addresses, "find_all", late)
    assert chameleon.ensure_address(both[0]) == chameleon.ensure_address(both[1])
    assert counts(plane)["addresses"] == 1


@pytest.mark.parametrize("asleep", ["volume", "server", "address", "group"])
def test_an_up_that_wakes_after_a_down_stops_and_leaves_nothing(plane, book, proxy, monkeypatch, asleep):
    slept, woken, ended = threading.Event(), threading.Event(), []

    def sleep():
        slept.set()
        woken.wait(120)

    made = book("sleeper")
    proxy.before("POST", MAKING[asleep], sleep)
    thread = threading.Thread(target=go, args=(made, STEPS, ended))
    thread.start()
    assert slept.wait(120), ended
    monkeypatch.delenv("HTTP_PROXY")
    chameleon.teardown(book("sleeper"))  # another machine, which is awake
    woken.set()
    thread.join(120)
    assert [type(error) for error in ended] == [errors.LeaseOverError], ended
    assert "torn down" in str(ended[0])
    made.wait("leftovers", lambda: "none" if not remains(plane) else "some", ("none",), 60)


def test_an_up_that_finds_another_lease_after_a_sleep_stops(plane, book, proxy, monkeypatch):
    slept, woken, ended = threading.Event(), threading.Event(), []

    def sleep():
        slept.set()
        woken.wait(120)

    made = book("sleeper")
    proxy.before("POST", MAKING["address"], sleep)
    thread = threading.Thread(target=go, args=(made, STEPS, ended))
    thread.start()
    assert slept.wait(120), ended
    monkeypatch.delenv("HTTP_PROXY")
    awake = book("sleeper")
    chameleon.teardown(awake)
    for step in STEPS:  # and up again, before the first wakes
        step(awake)
    woken.set()
    thread.join(120)
    assert [type(error) for error in ended] == [errors.LeaseOverError], ended
    assert counts(plane) == {"servers": 1, "volumes": 1, "addresses": 1, "groups": 1, "keys": 1, "leases": 1}
    assert chameleon.ensure_access(awake).run("hello") == "hello\n"


def test_a_teardown_finds_what_a_netid_has_at_all_sites_under_all_names(plane, book, environment):
    from conftest import METAL

    first, second = book("scattered"), book("scattered", METAL)
    for step in STEPS[:3]:
        step(first)
    chameleon.ensure_lease(second)
    lease = leases.find(first)
    first.cloud.blazar.lease.update(lease.id, name="my lease")  # renamed by hand, in the site's page
    server = chameleon.ensure_server(first)
    first.cloud.nova.servers.update(server, name="my-server")
    booking.remember(book("somebody"))
    assert chameleon.ensure_lease(first).id == lease.id  # it is known by its id: no second one is made
    names = chameleon.remains(second)
    assert any(name.startswith("lease my lease (renamed) at KVM@TACC") for name in names), names
    assert any(name.startswith("lease llm_single_scattered at CHI@UC") for name in names), names
    said = []
    gone = teardown.teardown_of("scattered", False, said.append, threading.Event())
    assert len(gone) == 5  # two leases, server, volume, key
    assert remains(plane) == {}
    assert inventory.everything(first.cloud, first.site) == []
