"""The names that labkit promises."""

import subprocess
import sys

import pytest

import labkit

NAMES = [
    "ConfigError", "Ledger", "MemoryCapture", "MemoryReport", "Record", "RunConfig", "Tracker", "compare", "predict",
    "resolve", "run",
]  # fmt: skip


def test_public_names_are_these():
    assert labkit.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(labkit, name).__doc__


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match="MemoryCapture"):
        labkit.nothing  # noqa: B018


@pytest.mark.slow
def test_importing_labkit_imports_nothing_heavy():
    code = "import sys, labkit; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
