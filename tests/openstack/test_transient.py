"""A service that is away for a moment, answers that are lost, and errors that are not ours."""

import threading
import time

import pytest
from conftest import VM
from rig.proxy import DROP, FaultyProxy
from rig.remains import remains

from provisioning import chameleon, errors, servers, transport, volumes


@pytest.fixture
def proxy(monkeypatch):
    with FaultyProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        yield proxy


def test_up_and_down_go_on_over_answers_that_are_lost_and_nothing_is_made_twice(plane, book, proxy):
    faults = [
        proxy.fail("POST", r"/auth/tokens", status=503),
        # the service did it, and no one heard
        proxy.fail("POST", r"/leases$", after=True),
        proxy.fail("POST", r"/volumes$", status=504, after=True),
        proxy.fail("POST", r"/os-keypairs$", after=True),
        proxy.fail("POST", r"/servers$", status=502, after=True),
        proxy.fail("POST", r"/floatingips", after=True),
        proxy.fail("POST", r"/security-groups", after=True),
        proxy.fail("POST", r"/security-group-rules", after=True),
        # the service never saw it
        proxy.fail("PUT", r"/floatingips/", status=503),
        proxy.fail("PUT", r"/ports/", status=DROP),
        proxy.fail("POST", r"/servers/.*/metadata", status=503),
        # reads
        proxy.fail("GET", r"/leases", status=502, times=3),
        proxy.fail("GET", r"/servers/detail", status=DROP),
        proxy.fail("GET", r"/v2/images", status=500),
        proxy.fail("GET", r"/volumes/detail", status=503, times=2),
        proxy.fail("GET", r"/flavors/detail", status=DROP),
        proxy.fail("GET", r"/ports", status=504),
    ]
    made = book("shaky")
    assert chameleon.up(made) is not None
    assert {kind: len(names) for kind, names in remains(plane).items()} == {
        "servers": 1, "volumes": 1, "addresses": 1, "groups": 1, "keys": 1, "leases": 1,
    }  # fmt: skip
    assert [fault.path.pattern for fault in faults if fault.met != fault.times] == []
    assert any("the answer was lost, but it is there" in line for line in made.said)
    deletes = [
        proxy.fail("DELETE", path, status=status, after=after)
        for path, status, after in (
            (r"/servers/", DROP, True), (r"/leases/", 503, False), (r"/floatingips/", DROP, True),
            (r"/security-groups/", 503, False), (r"/os-keypairs/", DROP, True),
        )
    ]  # fmt: skip
    chameleon.teardown(made, discard=True)
    assert remains(plane) == {}
    assert [fault.path.pattern for fault in deletes if fault.met != fault.times] == []


def test_what_was_never_made_is_made_once_more(plane, book, proxy):
    made = book("unheard")
    lost = [proxy.fail("POST", path, status=503) for path in (r"/leases$", r"/volumes$")]
    chameleon.ensure_lease(made)
    chameleon.ensure_volume(made)
    assert [fault.met for fault in lost] == [1, 1]
    assert any("it is not there; made again" in line for line in made.said)
    assert {kind: len(names) for kind, names in remains(plane).items()} == {"leases": 1, "volumes": 1}


def test_a_service_that_restarts_is_waited_for(plane, book):
    made = book("patient")
    chameleon.ensure_lease(made)
    with plane.without("cinder"):
        back = threading.Timer(3.0, plane.start_again, ("cinder",))
        back.start()
        assert volumes.find_all(made) == []
        back.join()
    assert any("no answer, asked again in" in line for line in made.said)


def test_errors_that_are_not_ours_have_a_name(plane, book, proxy, monkeypatch):
    made = book("named")
    monkeypatch.setattr(transport, "PAUSES_S", (0.01,) * 3)
    tried = proxy.fail("GET", r"/v2/images", status=500, times=100)
    with pytest.raises(errors.UnansweredError, match=r"^reading the images: refused \(500") as error:
        volumes.image(made)
    assert tried.met == 4  # with a bound
    assert str(error.value).count("reading the images") == 1
    cut = proxy.fail("GET", r"/servers/detail", status=DROP, times=100)
    with pytest.raises(errors.UnansweredError, match=r"^reading the servers: no answer .* Check the network") as error:
        servers.find_all(made)
    assert str(error.value).count("reading the servers") == 1
    cut.times = tried.times = 0
    monkeypatch.setattr(made.cloud.nova.client, "region_name", "nowhere")
    with pytest.raises(errors.ServiceError, match="reading the servers: the site's catalogue does not have"):
        servers.find_all(made)
    monkeypatch.undo()
    proxy.fail("POST", r"/auth/tokens", status=500, times=100)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setattr(transport, "PAUSES_S", (0.01,) * 3)
    started = time.monotonic()
    with pytest.raises(errors.UnansweredError, match="logging in to KVM@TACC"):
        book("named", VM)
    assert time.monotonic() - started < 60
