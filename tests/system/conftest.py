"""What more than one system test needs."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module", autouse=True)
def own_servers(request) -> Iterator[None]:
    """As on a user's machine each process that runs has a fork server of its own, but for the many planned labs."""
    with pytest.MonkeyPatch.context() as patch:
        if "labs_planned" not in request.module.__name__:
            patch.delenv("LABKIT_FORK_SERVER", raising=False)
        yield


@pytest.fixture(scope="session")
def chromium():
    """The browser of the system; Debian's package where there is none."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], check=True)
        found = shutil.which("chromium")
    return found


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, env: Mapping[str, str], log: Path, start_s: float) -> Iterator[str]:
    """The address of a Jupyter server that ``command`` starts; its process group is ended afterwards."""
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + start_s
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
