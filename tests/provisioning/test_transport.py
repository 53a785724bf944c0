"""Requests to a site: a server on loopback that fails as it is told, and a clock that is wrong."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from provisioning import times, transport
from provisioning.transport import PAUSES_S, Transport

pytestmark = pytest.mark.slow

DROP, HALF = 0, 1


class Site(ThreadingHTTPServer):
    """Answers with the next of ``answers``, and 200 when there are none left."""

    daemon_threads = True

    def __init__(self):
        self.answers, self.asked, self.date = [], [], None
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path))
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == DROP:
            self.close_connection = True
            return
        self.send_response_only(200 if status == HALF else status)
        self.send_header("Date", format_datetime(self.server.date or datetime.now(UTC), usegmt=True))
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"he" if status == HALF else b"hello")
        self.close_connection = status == HALF

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    with Site() as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield site
        site.shutdown()


@pytest.fixture
def session(monkeypatch):
    said, slept = [], []
    monkeypatch.setattr(transport.time, "sleep", slept.append)
    session = requests.Session()
    session.trust_env = False
    session.transport = Transport(said.append)
    session.mount("http://", session.transport)
    session.said, session.slept = said, slept
    return session


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("fails", [[503], [502, DROP, 504], [HALF], [500]])
def test_what_may_be_repeated_is_asked_again(site, session, method, fails):
    site.answers = list(fails)
    answer = session.request(method, f"{site.url}/servers/1")
    assert (answer.status_code, answer.text) == (200, "hello")
    assert len(site.asked) == len(fails) + 1
    assert session.slept == list(PAUSES_S[: len(fails)])


@pytest.mark.parametrize("fails", [DROP, HALF, 503, 500])
def test_what_makes_a_thing_is_sent_once(site, session, fails):
    site.answers = [fails]
    if fails in (DROP, HALF):
        with pytest.raises(requests.RequestException):
            session.post(f"{site.url}/servers", data=b"{}")
    else:
        assert session.post(f"{site.url}/servers", data=b"{}").status_code == fails
    assert len(site.asked) == 1


@pytest.mark.parametrize("path", ["/v3/auth/tokens", "/servers/1/metadata"])
def test_what_may_be_posted_twice_is_asked_again(site, session, path):
    site.answers = [503, DROP]
    assert session.post(f"{site.url}{path}", data=b"{}").status_code == 200
    assert len(site.asked) == 3


def test_a_service_that_was_not_reached_may_be_asked_again_for_anything(site, session):
    site.shutdown()
    site.server_close()
    with pytest.raises(requests.ConnectionError):
        session.post(f"{site.url}/servers", data=b"{}")
    assert session.slept == list(PAUSES_S)  # with a bound
    assert session.said == [
        f"{site.url.removeprefix('http://')}: no answer, asked again in {pause_s:g} s"
        for pause_s in PAUSES_S if pause_s >= 1
    ]  # fmt: skip


def test_a_service_that_stays_away_is_given_up_and_its_answer_shown(site, session):
    site.answers = [503] * 100
    assert session.get(f"{site.url}/servers").status_code == 503
    assert len(site.asked) == len(PAUSES_S) + 1
    site.answers, site.asked[:] = [500] * 100, []
    assert session.delete(f"{site.url}/leases/1").status_code == 500  # Blazar refuses so
    assert len(site.asked) == transport.BROKEN_TRIES + 1


@pytest.mark.parametrize("status", [400, 401, 404, 409, 501])
def test_an_answer_is_an_answer(site, session, status):
    site.answers = [status]
    assert session.get(f"{site.url}/servers").status_code == status
    assert len(site.asked) == 1


def test_an_answer_has_a_kind_though_what_stands_before_a_service_says_none(site, session):
    assert session.get(site.url).headers["content-type"] == "text/plain"  # Glance's client reads it of every error


def test_the_sites_clock_counts(site, session):
    assert session.transport.now() - times.now() < timedelta(seconds=1)  # before any answer: ours
    site.date = datetime.now(UTC) - timedelta(hours=4)
    session.get(site.url)
    assert abs(session.transport.now() - site.date) < timedelta(seconds=2)
