"""Why a site refuses a lease: each reason with its own next step, and none made up."""

import contextlib
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from provisioning import claims, errors, leases, slots, times
from provisioning.errors import refusal

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def blazar(monkeypatch):
    """A booking with an active lease of five more days, and a Blazar that refuses what is asked as it is told."""
    monkeypatch.setattr(leases, "asking", lambda doing: contextlib.nullcontext())
    monkeypatch.setattr(times, "now", lambda: NOW)
    lease = leases.Lease("1", "ACTIVE", NOW - timedelta(days=1), NOW + timedelta(days=5), "r", NOW)
    monkeypatch.setattr(leases, "active", lambda booking: lease)
    monkeypatch.setattr(leases, "hold", lambda booking: None)

    def refusing(code, text):
        def refuse(*arguments, **more):
            raise refusal("asking", code, text)

        service = SimpleNamespace(lease=SimpleNamespace(update=refuse, create=refuse, list=lambda: []))
        cloud = SimpleNamespace(blazar=service)
        return SimpleNamespace(cloud=cloud, name="x", say=print, now=lambda: NOW, check_not_interrupted=lambda: None)

    return refusing


@pytest.mark.parametrize(
    ("code", "text", "error", "says"),
    [
        (403, "Lease can only be extended within 172800 seconds of its end", errors.RuleError,
         "too early by the site's rule: a lease can be extended only in its last 48 h. Try again from 2026-11-25"),
        (400, "Lease can only be extended within 86400 seconds of the leases current end time.", errors.RuleError,
         "in its last 24 h. Try again from 2026-11-26 12:00 UTC"),
        (403, "Extension window is 2 days", errors.RuleError, "in its last 48 h"),
        (400, "Extension not available until 48 hours before the end of the lease", errors.RuleError,
         "in its last 48 h"),
        (403, "Leases may not be renewed until 2 days before their end date", errors.RuleError, "in its last 48 h"),
        (403, "It is too early to extend this lease", errors.RuleError, "Too early by the site's rule"),
        (400, "Lease length of 691200 seconds be less than or equal the maximum lease length of 604800 seconds.",
         errors.RuleError, "too long by the site's rule: a lease may have 7 days at most"),
        (403, "Lease duration exceeds 7 days", errors.RuleError, "Extend by 48 h 00 min at most"),
        (400, "Lease duration exceeds 5 days", errors.RuleError, "Try again nearer to its end"),
        (403, "Lease can only be extended for at most 7 days", errors.RuleError, "too long by the site's rule"),
        (403, "Reservation would spend 12.5 SUs, only 3.1 left", errors.QuotaError, "too few service units"),
        (403, "Project CHI-1 does not have enough balance", errors.QuotaError, "too few service units"),
        (403, "Project CHI-1 has expired", errors.QuotaError, "The project is over"),
        (400, "End date must be later than current date.", errors.LeaseOverError, "The time is over"),
        (400, "The lease has already ended", errors.LeaseOverError, "make a new lease"),
        (403, "User limit of 3 leases reached", errors.QuotaError, "A limit of the site is reached"),
        (403, "Policy doesn't allow lease:update to be performed.", errors.RuleError, "site's rules do not allow it"),
        (404, "Flavor g1.h100 could not be found", errors.GoneError, "the site does not have it"),
        (400, "Not enough hosts available", errors.NoSlotError, "Somebody may have the node next: extend by less"),
        (409, "Reservation conflicts with another lease", errors.NoSlotError, "extend by less"),
        (500, "Internal error", errors.UnansweredError, "Internal error"),
    ],
)  # fmt: skip
def test_a_refused_extension_says_why_and_what_to_do(blazar, code, text, error, says):
    with pytest.raises(errors.ProvisioningError) as raised:
        leases.extend(blazar(code, text), timedelta(days=1))
    assert type(raised.value) is error
    assert says in str(raised.value) and "\n" not in str(raised.value)
    assert ("Somebody may have the node" in str(raised.value)) == (error is errors.NoSlotError)


def test_who_cannot_have_the_node_is_not_told_to_try_again(blazar):
    """A Blazar answers 500 to this, too."""
    with pytest.raises(errors.NoSlotError) as raised:
        leases.extend(blazar(500, "ERROR: Not enough hosts available"), timedelta(hours=1))
    assert "Run this again" not in str(raised.value)


@pytest.mark.parametrize(
    ("code", "text", "error", "says"),
    [
        (400, "Lease length of 864000 seconds be less than or equal the maximum lease length of 604800 seconds.",
         errors.RuleError, "too long by the site's rule: at most 7 days, and 10 days were asked for"),
        (403, "Reservation would spend 12.5 SUs, only 3.1 left", errors.QuotaError, "too few service units"),
        (400, "Not enough hosts available", errors.NoSlotError, "no slot"),
        (400, "Start date must be later than current date.", errors.LeaseOverError, "The time is over"),
        (500, "Internal error", errors.UnansweredError, "Internal error"),
    ],
)  # fmt: skip
def test_a_refused_lease_says_why_and_what_to_do(blazar, monkeypatch, code, text, error, says):
    booking = blazar(code, text)
    booking.site = SimpleNamespace(virtual_machine=False)
    booking.node = SimpleNamespace(name="gpu")
    draft = SimpleNamespace(
        name="x", start_date="", end_date="", flavor_reservations=[], node_reservations=[],
        add_node_reservation=lambda **asked: None,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "chi.lease", SimpleNamespace(Lease=lambda *arguments, **more: draft))
    monkeypatch.setitem(sys.modules, "chi", SimpleNamespace(lease=sys.modules["chi.lease"]))
    monkeypatch.setattr(leases, "find_all", lambda booking: [])
    monkeypatch.setattr(claims, "LOOKS", 0)
    monkeypatch.setattr(slots, "none_free", lambda *arguments: errors.NoSlotError("no slot"))
    with pytest.raises(errors.ProvisioningError) as raised:
        leases.ensure(booking, timedelta(days=10))
    assert type(raised.value) is error and says in str(raised.value)
