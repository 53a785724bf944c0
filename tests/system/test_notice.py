"""The notice of the lease's end, inside a JupyterLab in a real headless Chromium."""

import json
import os
import re
import shutil
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import serving

ROOT = Path(__file__).parents[2]
TOKEN = "only-for-this-test"
TOAST = ".jp-toast-message"
WAIT_MS = 120_000


def write_end(file, end):
    file.with_suffix(".part").write_text(json.dumps({"end": end.isoformat()}))
    file.with_suffix(".part").rename(file)


@pytest.fixture(scope="module")
def lease(tmp_path_factory):
    """The file that provisioning writes; not there yet."""
    return tmp_path_factory.mktemp("lease") / "lease.json"


@pytest.fixture(scope="module")
def jupyter(lease, tmp_path_factory):
    """JupyterLab with the extension's two halves, as the image has them."""
    root = tmp_path_factory.mktemp("lab")
    extensions = root / "extensions"
    shutil.copytree(ROOT / "docker" / "jupyter" / "labextension", extensions / "labkit-lease")
    (root / "config").mkdir()
    switched_on = root / "config" / "jupyter_server_config.json"
    shutil.copy(ROOT / "docker" / "jupyter" / "server_extension.json", switched_on)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "LABKIT_LEASE": str(lease), "JUPYTER_CONFIG_DIR": str(root / "config"), "HOME": str(root), "TZ": "UTC",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}",
        f"--LabApp.extra_labextensions_path={extensions}",
    ]  # fmt: skip
    with serving(command, port, env, root / "server.log", 120) as url:
        yield url


@pytest.fixture(scope="module")
def page(chromium, jupyter):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # it runs as root
        page = browser.new_page(timezone_id="UTC", locale="en-GB")
        page.set_default_timeout(WAIT_MS)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        browser.close()


def test_the_student_sees_when_the_lease_ends_and_is_warned_30_and_10_minutes_before(page, jupyter, lease):
    toast = page.locator(TOAST)
    page.goto(f"{jupyter}/lab?reset&token={TOKEN}")
    page.wait_for_selector(".jp-Launcher")
    page.wait_for_timeout(3000)
    assert toast.count() == 0  # no lease, nothing to say

    def shows(words, end):
        found = toast.filter(has_text=re.compile(words))
        found.first.wait_for()
        assert end.strftime("%H:%M") in found.first.inner_text()

    end = datetime.now(UTC) + timedelta(hours=2, minutes=10, seconds=25)
    write_end(lease, end)
    shows("reserved until .* for 2 h (09|10) min", end)
    end = datetime.now(UTC) + timedelta(minutes=29, seconds=30)
    write_end(lease, end)
    shows("node's lease ends in (29|30) min.*Download what you want to keep.*where you made the node", end)
    end = datetime.now(UTC) + timedelta(minutes=9, seconds=40)
    write_end(lease, end)
    shows("node's lease ends in (9|10) min.*'extend' where you made the node", end)
    toast.nth(1).wait_for(state="detached")  # the older ones go
    page.reload()
    shows("node's lease ends in (9|10) min", end)
    end = datetime.now(UTC) - timedelta(seconds=5)
    write_end(lease, end)
    shows("node's lease ended at", end)
    end = datetime.now(UTC) + timedelta(hours=1, minutes=1)  # extended
    write_end(lease, end)
    shows("reserved until .* for 1 h 0", end)
    assert page.errors == []


def test_the_same_lease_passes_its_levels_by_itself(page, jupyter, lease):
    end = datetime.now(UTC) + timedelta(minutes=10, seconds=29)
    write_end(lease, end)
    page.goto(f"{jupyter}/lab?reset&token={TOKEN}")
    toast = page.locator(TOAST)
    toast.filter(has_text="ends in 10 min").first.wait_for()
    before = page.locator(".Toastify__toast--warning").count()
    page.locator(".Toastify__toast--error", has_text="ends in 10 min").first.wait_for()
    assert before == 1
    page.locator(".Toastify__toast--warning").first.wait_for(state="detached")
    assert page.errors == []
