"""Leases that change between two questions; Blazar is played, for no real one changes at the right moment."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from provisioning import leases, times
from provisioning.booking import Booking
from provisioning.errors import ServiceError


class Blazar:
    """One lease whose status is the next of a list each time that it is read; the last one stays."""

    def __init__(self, *statuses, refuses_while=()):
        self.statuses, self.refuses_while = list(statuses), refuses_while
        self.deleted = 0

    def _raw(self):
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        now = times.now().strftime(times.BLAZAR)
        return {"id": "1", "name": "llm_single_me", "status": status, "start_date": now, "end_date": now,
                "reservations": [], "created_at": now}  # fmt: skip

    def get(self, id):
        from blazarclient.exception import BlazarClientException

        if self.deleted:
            raise BlazarClientException("ERROR: not found", code=404)
        return self._raw()

    def list(self):
        return [] if self.deleted else [self._raw()]

    def delete(self, id):
        from blazarclient.exception import BlazarClientException

        if self.statuses[0] in self.refuses_while:
            raise BlazarClientException("ERROR: Invalid lease status.", code=500)
        self.deleted += 1


@pytest.fixture
def booking(tmp_path):
    def made(blazar):
        node = SimpleNamespace(count=1, name="g1")
        site = SimpleNamespace(name="KVM@TACC", virtual_machine=True)
        nova = SimpleNamespace(servers=SimpleNamespace(list=lambda: []))
        transport = SimpleNamespace(now=times.now)
        cloud = SimpleNamespace(blazar=SimpleNamespace(lease=blazar), nova=nova, transport=transport)
        found = Booking("me", site, node, cloud, Path(tmp_path), lambda line: None)
        found.poll_s = 0.01
        assert isinstance(found.stop, threading.Event)
        return found

    return made


def test_a_lease_that_starts_while_it_is_looked_at_is_waited_for(booking):
    # seen PENDING, and STARTING when asked again
    blazar = Blazar("CREATING", "CREATING", "PENDING", "STARTING", "STARTING", "ACTIVE")
    assert leases.ensure(booking(blazar)).status == "ACTIVE"


def test_a_lease_that_is_about_to_start_is_deleted_when_it_has(booking):
    blazar = Blazar("STARTING", "STARTING", "ACTIVE", refuses_while=("STARTING",))
    leases.delete(booking(blazar), SimpleNamespace(id="1"))
    assert blazar.deleted == 1
    # PENDING when it was looked at, STARTING when it was to be deleted
    blazar = Blazar("PENDING", "STARTING", "STARTING", "ACTIVE", refuses_while=("STARTING",))
    leases.delete(booking(blazar), SimpleNamespace(id="1"))
    assert blazar.deleted == 1


def test_one_that_is_refused_for_good_is_said(booking):
    blazar = Blazar("ACTIVE", refuses_while=("ACTIVE",))
    with pytest.raises(ServiceError, match="deleting lease llm_single_me: refused"):
        leases.delete(booking(blazar), SimpleNamespace(id="1"))
