"""One control plane for all system tests, and a student of its own for each."""

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from rig.block import SSH_PORT
from rig.identity import student_environment
from rig.plane import ControlPlane
from rig.remains import remains

from provisioning import booking, chameleon, sites, teardown

HERE = Path(__file__).parent
VM, LARGE_VM, METAL = "g1.h100.pci.1", "g1.h100.pci.4", "compute_gigaio"
POLL_S = 0.4
SSH_TIMEOUT_S = 20


def pytest_configure() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the services are stopped, as after Ctrl-C


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        # python-chi and the clients warn of what they will do next year; a warning of ours stays an error
        item.add_marker(pytest.mark.filterwarnings("default"))
        item.add_marker(pytest.mark.filterwarnings("error:::provisioning"))


@pytest.fixture(scope="session")
def plane():
    with ControlPlane() as plane:
        print(f"control plane up: {plane.took_s}")
        yield plane


@pytest.fixture(scope="session")
def site_file(plane, tmp_path_factory):
    """``sites.yaml`` as it is, but for how a node is logged into."""
    data = yaml.safe_load((sites.HERE / "sites.yaml").read_text())
    for site in data.values():
        site |= {"ssh_user": "root", "ssh_port": SSH_PORT, "ssh_timeout_s": SSH_TIMEOUT_S}
    path = tmp_path_factory.mktemp("sites") / "sites.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


@pytest.fixture(scope="session", autouse=True)
def environment(plane, site_file, tmp_path_factory):
    """What a student's shell has, for this process and all that it starts; returns the folder of the bookings."""
    home = tmp_path_factory.mktemp("home")
    values = student_environment(plane.block) | {
        "PROVISIONING_SITES": str(site_file), "PROVISIONING_POLL_S": str(POLL_S), "LABKIT_HOME": str(home),
        "LABKIT_PROJECT": str(HERE / "project"), "PYTHONPATH": str(HERE.parents[1]), "HOME": str(home),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for key, value in values.items():
            patch.setenv(key, value)
        yield home


@pytest.fixture
def book(plane):
    """Makes bookings whose messages are kept; whatever a test leaves of them is torn down after it."""
    made = []

    def book(netid: str, node: str = VM) -> booking.Booking:
        said = []
        new = booking.book(netid, node, said.append)
        new.said = said
        made.append(new)
        return new

    yield book
    if remains(plane):  # most tests leave nothing, and a teardown asks every service of both sites
        for one in {one.netid: one for one in made}.values():  # a teardown is of all that a netID has
            teardown.teardown(one, discard=True)


def booted(made: booking.Booking) -> booking.Booking:
    """The booking, with a node that lets us in."""
    for step in (chameleon.ensure_lease, chameleon.ensure_volume, chameleon.ensure_server, chameleon.ensure_address):
        step(made)
    chameleon.ensure_access(made)
    return made


@contextlib.contextmanager
def lent(netid: str, node: str, make: Callable[[booking.Booking], object]) -> Iterator[booking.Booking]:
    """A booking that ``make`` brings up, with what it says in ``said``; torn down afterwards."""
    said: list[str] = []
    made = booking.book(netid, node, said.append)
    made.said = said
    try:
        assert make(made) is not None
        yield made
    finally:
        teardown.teardown(made, discard=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_stays(plane, environment):
    """After all tests the services have nothing of anybody."""
    yield
    assert remains(plane) == {}


def text_of(notebook: dict) -> str:
    """All that a notebook's outputs show."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return json.dumps(outputs)
