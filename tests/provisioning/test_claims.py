"""Several that make the same thing at the same time, in any order of their calls: one stays, and all use that one."""

import itertools
import random
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning import claims
from provisioning.booking import Booking
from provisioning.errors import LeaseOverError, ServiceError, TooSlowError, UnansweredError

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Service:
    """Keeps things, and lets one call at a time through, in an order that is drawn: each caller waits for its turn.

    Its clock moves by a drawn part of a second at each call, and things carry whole seconds, as in OpenStack.
    """

    def __init__(self, seed: int, callers: int, step_s: float) -> None:
        self.draw, self.step_s = random.Random(seed), step_s
        self.things: dict[str, claims.Made] = {}
        self.now = NOON
        self.numbers = itertools.count()
        self.turns = threading.Condition()
        self.alive, self.waiting, self.chosen = callers, set(), None
        self.answered: dict[int, datetime] = {}

    def _turn(self, act):
        me = threading.get_ident()
        with self.turns:
            self.waiting.add(me)
            self._choose()
            self.turns.wait_for(lambda: self.chosen == me)
            self.now += timedelta(seconds=self.draw.uniform(0, self.step_s))
            self.answered[me] = self.now.replace(microsecond=0)
            try:
                return act()
            finally:
                self.chosen = None
                self.waiting.discard(me)

    def _choose(self) -> None:
        if self.chosen is None and len(self.waiting) == self.alive and self.waiting:
            self.chosen = self.draw.choice(sorted(self.waiting))
            self.turns.notify_all()

    def leave(self) -> None:
        with self.turns:
            self.alive -= 1
            self._choose()

    def make(self, name: str) -> str:
        def act() -> str:
            # ids are no order: what was made later may have the smaller one
            id = f"{self.draw.random():.12f}-{next(self.numbers)}"
            self.things[id] = claims.Made(self.now.replace(microsecond=0), id, id)
            return id

        return self._turn(act)

    def read(self) -> list[claims.Made]:
        return self._turn(lambda: list(self.things.values()))

    def wait(self, length_s: float) -> None:
        def act() -> None:
            self.now += timedelta(seconds=length_s)

        self._turn(act)

    def give_back(self, id: str) -> None:
        self._turn(lambda: self.things.pop(id, None))


def caller(service):
    """A booking, as far as a claim asks it; waiting is the service's clock moving."""
    transport = Stamp(service)
    stop = SimpleNamespace(wait=service.wait)
    now = lambda: service.now  # noqa: E731
    return SimpleNamespace(
        say=lambda _: None, poll_s=0.1, stop=stop, now=now, cloud=SimpleNamespace(transport=transport),
        site=SimpleNamespace(name="KVM@TACC"), check_not_interrupted=lambda: None,
    )  # fmt: skip


class Stamp:
    """The second of the service's last answer to this thread."""

    def __init__(self, service):
        self.service = service

    @property
    def stamp(self):
        return self.service.answered[threading.get_ident()]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 4), st.sampled_from([0.0, 0.2, 1.0, 3.0]))
def test_one_stays_whatever_the_order_and_all_use_that_one(seed, callers, step_s):
    service, used = Service(seed, callers, step_s), []

    def run(name):
        try:
            used.append(
                claims.claim(caller(service), "thing", lambda: service.make(name), service.read, service.give_back)
            )
        finally:
            service.leave()

    threads = [threading.Thread(target=run, args=(str(n),), daemon=True) for n in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(service.things) == 1
    assert used == [*service.things] * callers


def alone():
    """A service with one caller, who never waits."""
    return Service(1, 1, 0.1)


def test_an_answer_that_was_lost_is_looked_for_before_it_is_made_again():
    service, tries = alone(), []

    def make():
        tries.append(1)
        service.make("x")
        raise UnansweredError("making thing: no answer")

    one = claims.claim(caller(service), "thing", make, service.read, service.give_back)
    assert len(tries) == 1 and list(service.things) == [one]


def test_what_was_never_made_is_made_again_with_a_bound():
    service, tries = alone(), []

    def make():
        tries.append(1)
        if len(tries) < 3:
            raise UnansweredError("making thing: no answer")
        return service.make("x")

    assert claims.claim(caller(service), "thing", make, service.read, service.give_back) in service.things
    assert len(tries) == 3

    def never():
        raise UnansweredError("making thing: no answer")

    with pytest.raises(UnansweredError):
        claims.claim(caller(service), "thing", never, alone().read, service.give_back)


def test_where_there_may_be_one_only_that_of_the_other_is_used():
    service = alone()
    theirs = service.make("theirs")

    def taken():
        raise ServiceError("making thing: refused (409: in use).")

    assert claims.claim(caller(service), "thing", taken, service.read, service.give_back) == theirs
    with pytest.raises(ServiceError, match="409"):
        claims.claim(caller(service), "thing", taken, alone().read, service.give_back)


def test_what_must_not_be_made_any_more_is_given_back():
    service, checks = alone(), []

    def check():
        checks.append(len(service.things))
        if len(checks) == 2:
            raise LeaseOverError("the lease is gone")

    with pytest.raises(LeaseOverError):
        claims.claim(caller(service), "thing", lambda: service.make("x"), service.read, service.give_back, check)
    assert checks == [0, 1] and service.things == {}  # asked before and after


def test_nothing_is_made_after_ctrl_c(tmp_path):
    made = Booking("ann", SimpleNamespace(name="x"), SimpleNamespace(count=1), None, tmp_path)
    made.stop.set()
    asked = []
    with pytest.raises(TooSlowError, match="llm_single_ann: interrupted. Run the same again to continue"):
        claims.claim(made, "volume", lambda: asked.append("made"), lambda: asked.append("read"), asked.append)
    assert asked == []
