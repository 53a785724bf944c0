"""What services answer, as named errors of one line."""

import pytest

from provisioning import errors
from provisioning.errors import known, refusal


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        (401, "The request you have made requires authentication.", errors.CredentialsError),
        (None, "The access token has expired", errors.CredentialsError),
        (403, "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances", errors.QuotaError),
        (
            413,
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes",
            errors.QuotaError,
        ),
        (409, "Quota exceeded for resources: ['floatingip'].", errors.QuotaError),
        (409, "No more IP addresses available on network 3.", errors.NoAddressError),
        (403, "Policy doesn't allow this", errors.ServiceError),
        (404, "Instance 2eb9cc40 could not be found.", errors.GoneError),
        (500, "Internal\n  error", errors.UnansweredError),
    ],
)
def test_a_refusal_has_a_name_and_says_what_was_tried(code, text, error):
    made = refusal("making server x", code, text)
    assert type(made) is error
    assert str(made).startswith("making server x: ")
    assert "\n" not in str(made)


def test_a_long_page_is_cut():
    assert len(str(refusal("reading", 500, "<html>" * 1000))) < 400


def test_known_names_come_with_the_nearest_first():
    assert known("h10", ["a100", "h100", "v100"]) == "Known: h100, v100, a100."
    assert known("x", []) == "There is none at all."
    assert known("n7", [f"n{i}" for i in range(30)]).count(",") == 7


def test_a_notebook_shows_one_line_and_no_traceback():
    assert errors.QuotaError("over it")._render_traceback_() == ["QuotaError: over it"]
