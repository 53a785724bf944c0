"""The route that tells when the lease ends; what the page shows of it is in ``tests/system/test_notice.py``."""

import json
import re
import urllib.error
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labkit.lab.lease.end import read_end

ROOT = Path(__file__).parents[3]
END = datetime(2999, 1, 1, 12, tzinfo=UTC)
ROUTE = "/labkit/lease"


@pytest.fixture
def write(server):
    yield lambda text: server.lease.write_text(text)
    server.lease.unlink(missing_ok=True)


@pytest.mark.slow
def test_it_tells_the_end_and_the_servers_time(server, write):
    assert server.json(ROUTE)["end"] is None  # no lease, nothing to say
    write(json.dumps({"end": END.isoformat()}))
    told = server.json(ROUTE)
    assert datetime.fromisoformat(told["end"]) == END
    assert abs(datetime.fromisoformat(told["now"]) - datetime.now(UTC)) < timedelta(seconds=30)


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "another"])
def test_it_tells_no_one_without_the_token(server, write, token):
    write(json.dumps({"end": END.isoformat()}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get(ROUTE, token)
    assert refused.value.code == 403 and "2999" not in refused.value.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"end": 3}', '{"end": "soon"}', '{"end": "2999-01-01T12:00"}'])
def test_a_file_that_is_none_is_said_with_what_to_do(server, write, tmp_path, text):
    write(text)
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get(ROUTE)
    assert refused.value.code == 500 and "Run 'up' for this node again" in refused.value.read().decode()
    (tmp_path / "lease").write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.* Run 'up' for this node again"):
        read_end(tmp_path / "lease")


def test_without_a_lease_there_is_no_end(tmp_path):
    assert read_end(None) is None and read_end(tmp_path / "none") is None


@pytest.mark.slow
def test_the_image_and_make_install_the_pages_half_under_the_name_that_it_has():
    folder = ROOT / "docker" / "jupyter" / "labextension"
    package = json.loads((folder / "package.json").read_text())
    place = f"share/jupyter/labextensions/{package['name']}"
    assert (
        f"COPY docker/jupyter/labextension /opt/labkit/venv/{place}\n" in (ROOT / "docker" / "Dockerfile").read_text()
    )
    makefile = (ROOT / "Makefile").read_text()
    assert f"$(VENV)/{place}/$(file)" in makefile
    listed = re.search(r"^NOTICE := (.+)$", makefile, re.MULTILINE)[1].split()
    assert sorted(listed) == sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    script = folder / package["jupyterlab"]["_build"]["load"]
    assert f"_JUPYTERLAB['{package['name']}']" in script.read_text()
    # the file lies in the container, not in the student's workspace
    assert re.search(r"LABKIT_LEASE=/tmp/\S+", (ROOT / "docker" / "Dockerfile").read_text())
