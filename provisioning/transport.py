"""How requests reach a site: those that fail for a moment are sent again, and each answer tells the site's time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3

from provisioning import times

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
"""Before each new try: half a minute in all, as long as a service takes to restart."""
DOWN = (502, 503, 504)
"""What a proxy answers while the service is away."""
BROKEN, BROKEN_TRIES = 500, 2
"""A service that fails at a write seldom does better later; Blazar also refuses with 500."""
ANSWER_S = 180.0
"""How long an answer may take: a laptop that slept finds its connections dead, without a word from the other end."""
DROPPED = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
REPEATABLE = ("/auth/tokens", "/metadata")
"""Ends of addresses to which a POST may be sent twice: the second answer is the same."""


class Transport(requests.adapters.HTTPAdapter):
    """Sends all requests to one site. ``requests``' own retries neither say what they wait for, nor cover an answer
    that breaks off in the middle."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say
        self.ahead = timedelta(0)
        """How far the site's clock is ahead of ours."""
        self.stamp = times.now()
        """The whole second of the site's clock in the last answer."""

    def now(self) -> datetime:
        """The site's time: leases are reckoned in it."""
        return times.now() + self.ahead

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send it; a request that may be repeated is sent again while the service is away."""
        tries = 0
        while True:
            last = tries == len(PAUSES_S)
            try:
                response = super().send(request, **options)
                response.content  # noqa: B018 - read here, where what breaks off is caught
            except DROPPED as error:
                if last or not (_repeatable(request) or _never_left(error)):
                    raise
                why = "no answer"
            else:
                self._set_clock(response)
                response.headers.setdefault("Content-Type", "text/plain")  # Glance's client fails at one without
                if last or not _may_pass(request, response.status_code, tries):
                    return response
                why = f"answers {response.status_code}"
            pause_s = PAUSES_S[tries]
            if pause_s >= 1:
                self.say(f"{urllib3.util.parse_url(request.url).netloc}: {why}, asked again in {pause_s:g} s")
            time.sleep(pause_s)
            tries += 1

    def _set_clock(self, response: requests.Response) -> None:
        stamp = response.headers.get("Date")
        if stamp:
            self.stamp = parsedate_to_datetime(stamp).astimezone(UTC)
            # cut off: half a second is nearer
            self.ahead = self.stamp + timedelta(seconds=0.5) - times.now()


def _repeatable(request: requests.PreparedRequest) -> bool:
    path = urllib3.util.parse_url(request.url).path or ""
    return request.method in ("GET", "HEAD", "PUT", "DELETE") or path.endswith(REPEATABLE)


def _never_left(error: Exception) -> bool:
    """Whether no service can have seen the request."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)  # urllib3's MaxRetryError has one
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, urllib3.exceptions.NewConnectionError)


def _may_pass(request: requests.PreparedRequest, status: int, tries: int) -> bool:
    if not _repeatable(request):
        return False
    return status in DOWN or status == BROKEN and (request.method == "GET" or tries < BROKEN_TRIES)
