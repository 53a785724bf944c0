"""``docker/renew``: the newest base, pinned by the digest that Docker says."""

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DOCKER = Path(__file__).parents[2] / "docker"
DIGEST = "sha256:" + "5a" * 32


@pytest.fixture
def copy(tmp_path):
    """The script with its Dockerfile, and a docker whose pull prints what a test wants."""
    (tmp_path / "programs").mkdir()
    program = tmp_path / "programs" / "docker"
    program.write_text('#!/bin/sh\necho "$@" > "$CALL"\ncat "$SAYS"\n[ ! -e "$SAYS.refuse" ]\n')
    program.chmod(0o755)
    for name in ("Dockerfile", "renew"):
        shutil.copy(DOCKER / name, tmp_path / name)
    return tmp_path


def renew(copy, *words, says=f"24.04: Pulling from library/ubuntu\nDigest: {DIGEST}\nStatus: Image is up to date\n"):
    (copy / "says").write_text(says)
    env = {"PATH": f"{copy / 'programs'}:/usr/bin:/bin", "CALL": str(copy / "call"), "SAYS": str(copy / "says")}
    return subprocess.run([str(copy / "renew"), *words], env=os.environ | env, capture_output=True, text=True)


def test_the_newest_base_is_pinned_by_its_digest(copy):
    before = (copy / "Dockerfile").read_text()
    done = renew(copy)
    assert done.stdout == f"ARG BASE_IMAGE=ubuntu:24.04@{DIGEST}\n", done.stderr
    assert (copy / "call").read_text() == "pull ubuntu:24.04\n"
    after = (copy / "Dockerfile").read_text()
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert changed == [f"# Base of {datetime.now(UTC):%Y-%m-%d}; docker/renew pins the newest one", done.stdout.strip()]
    assert len(after.splitlines()) == len(before.splitlines())
    assert "BASE_IMAGE=debian:13@" in renew(copy, "debian:13").stdout


@pytest.mark.parametrize("says", ["", "Digest: none\n", "Digest: sha256:12\n"])
def test_without_a_digest_nothing_is_changed(copy, says):
    before = (copy / "Dockerfile").read_text()
    done = renew(copy, says=says)
    assert done.returncode == 1
    assert "did not say the digest of ubuntu:24.04" in done.stderr
    assert (copy / "Dockerfile").read_text() == before


def test_a_base_that_cannot_be_pulled_changes_nothing(copy):
    before = (copy / "Dockerfile").read_text()
    (copy / "says.refuse").touch()
    done = renew(copy)
    assert "ubuntu:24.04 cannot be pulled. Has this machine a network?" in done.stderr
    assert (copy / "Dockerfile").read_text() == before
