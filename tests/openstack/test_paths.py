"""The whole way, from a reservation to a command on the node and back to nothing, as students and instructors go it."""

import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import pytest
from conftest import LARGE_VM, METAL, VM, text_of
from nbclient import NotebookClient
from rig.remains import remains

from provisioning import access, booking, errors, servers, sites
from provisioning.jupyter import Link

TOKEN = "token-of-this-server"
"""What the stand-in for Jupyter says; it must show up nowhere."""


def run_notebook(name: str, **parameters) -> dict:
    """Execute a notebook as it is committed, with other values in its cell of parameters."""
    path = sites.HERE / name
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            names = [line.partition(" =")[0] for line in cell.source.splitlines()]
            assert set(parameters) <= set(names)
            cell.source += "\n" + "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, resources=folder, shutdown_kernel="immediate").execute()
    executed = booking.home() / "executed"  # pytest keeps it, for a person to look at
    executed.mkdir(exist_ok=True)
    nbformat.write(notebook, executed / name)
    return notebook


def command(*arguments: str, timeout: float = 400) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "provisioning", *arguments], capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.parametrize("node", [VM, METAL], ids=["virtual machine", "bare metal"])
def test_the_notebooks_go_from_a_reservation_to_a_node_and_back_to_nothing(plane, book, environment, node):
    assert remains(plane) == {}
    netid = "nb-" + node.replace(".", "-").replace("_", "-")
    name = book(netid, node).name
    reserved = run_notebook("1_reserve.ipynb", NETID=netid, NODE=node)
    assert "make: " in text_of(reserved)
    assert remains(plane) == {"leases": [name]}
    if node == VM:  # again from the top, at any moment
        again = run_notebook("1_reserve.ipynb", NETID=netid, NODE=node)
        assert "keep, ACTIVE" in text_of(again)
        assert remains(plane) == {"leases": [name]}

    booted = run_notebook("2_boot.ipynb")
    assert "lets us in" in text_of(booted)
    if node == VM:
        there = remains(plane)
        run_notebook("2_boot.ipynb")
        assert remains(plane) == there

    started = run_notebook("3_jupyter.ipynb")
    shown = text_of(started)
    made = booking.resume()
    way = access.way_in(made)
    assert f"-L 8889:127.0.0.1:8888 -i {way.key}" in shown
    assert "2 h 4" in shown  # time left
    assert "a warning comes at" in shown
    assert TOKEN not in shown
    link = made.folder / "jupyter-link"
    assert link.read_text().strip() == f"http://127.0.0.1:8889/lab?token={TOKEN}"
    assert link.stat().st_mode & 0o077 == 0
    kept = [path for path in environment.rglob("*") if path.is_file() and path.name != link.name]
    assert [path for path in kept if TOKEN.encode() in path.read_bytes()] == []
    assert way.run("hello").strip() == "hello"  # a command over real SSH on the floating IP
    server_id = servers.find(made).id
    assert sum(call.startswith("docker build") for call in plane.nodes.calls(server_id)) == 1
    work = plane.nodes.home(server_id) / "workspace" / "runs" / "tiny"
    work.mkdir(parents=True)
    (work / "record.json").write_text("{}")

    run_notebook("4_teardown.ipynb")
    assert remains(plane) == {}
    (brought,) = (made.folder / "collected").glob("*/runs/tiny/record.json")
    assert brought.read_text() == "{}"
    if node == VM:
        run_notebook("4_teardown.ipynb")  # twice is as good as once


def test_a_plan_makes_nothing(plane):
    done = command("up", "eve", "--node", LARGE_VM, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "make: g1.h100.pci.4 at KVM@TACC, from now for 2 h 50 min" in done.stdout
    assert remains(plane) == {}


class Answer(BaseHTTPRequestHandler):
    """A Jupyter server, as far as a tunnel can tell."""

    def do_GET(self):
        self.send_response(200 if f"token={TOKEN}" in self.path else 403)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments):
        pass


def test_jupyter_is_reached_through_the_tunnel_or_from_this_address_alone(plane, book):
    made = book("tunnel")
    from provisioning import chameleon

    link = chameleon.up(made)
    assert access.groups(made)[0]["name"] == f"{made.name}-ssh"
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tunnel = Link(link.way, server.server_address[1], TOKEN)
        tunnel.keep(made.folder / "link")
        tunnel.open(browser=False)
        with urllib.request.urlopen(f"http://127.0.0.1:{tunnel.local_port}/api?token={TOKEN}") as answer:
            assert answer.status == 200
        assert TOKEN not in repr(tunnel) + str(tunnel)
        assert str(tunnel.local_port) in (made.folder / "link").read_text()
        child = tunnel._tunnel
        tunnel.close()
        assert child.poll() is not None
        server.shutdown()

    with pytest.raises(errors.LabRunsError, match="--open binds another address"):
        chameleon.start_jupyter(made, open_port=True)
    opened = chameleon.start_jupyter(made, open_port=True, restart=True)
    (rule,) = [
        rule for group in access.groups(made) if group["name"].endswith("-jupyter")
        for rule in group["security_group_rules"] if rule["direction"] == "ingress"
    ]  # fmt: skip
    caller = opened.way.run("caller").strip()
    assert (rule["remote_ip_prefix"], rule["port_range_min"], rule["port_range_max"]) == (f"{caller}/32", 8888, 8888)
    (runs_open,) = [c for c in plane.nodes.calls(servers.find(made).id) if "0.0.0.0:8888:8888" in c and "run" in c]
    assert opened.url.startswith(f"http://{opened.way.address}:8888/lab?token=")
    assert TOKEN not in (made.folder / "logs" / "jupyter.log").read_text()
