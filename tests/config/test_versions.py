"""Versions."""

import re

from labkit.config.versions import version_of


def test_what_is_not_there_is_missing_and_no_error():
    assert version_of("no-such-distribution") == "missing"
    assert re.match(r"[0-9]+[.][0-9]+", version_of("torch"))
