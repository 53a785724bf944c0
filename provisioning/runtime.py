"""On the node: Docker with the GPU inside, the image, Jupyter. Steps are the scripts in ``remote/``."""

import json
import tempfile
from collections.abc import Callable

from provisioning import access, driver, project, running, servers
from provisioning.booking import Booking
from provisioning.errors import RemoteError
from provisioning.jupyter import Link
from provisioning.running import Choice
from provisioning.volumes import WORK, YES

INSTALL_S, BUILD_S, START_S = 1200.0, 3600.0, 300.0
SOURCE, WORKSPACE = "labkit-source", "workspace"
"""Folders in the node's home: what is uploaded and replaced, and what is the student's and never overwritten."""
SHIPPED = "labkit-shipped"
"""A file there: hash and name of each file that an upload ever brought, so that what a student changed is known."""


def install_runtime(booking: Booking, restart: bool = False) -> None:
    """A driver for torch's CUDA, Docker and the NVIDIA container toolkit, checked by nvidia-smi in a container.

    Installed where missing. A driver that is too old needs a reboot, and a changed setting a restart of Docker: under a
    lab that runs neither is done unless told to ``restart``.
    """
    driver.ensure(booking, restart)
    way = access.way_in(booking)
    for script, arguments in (("docker", ()), ("toolkit", ("stop" if restart else "keep",)), ("gpu_in_container", ())):
        log = booking.folder / "logs" / f"{script}.log"
        printed = way.run(script, *arguments, bound_s=INSTALL_S, say=booking.say, log=log)
        booking.say(f"{script}: {_last(printed)}")


def build_image(booking: Booking) -> str:
    """Upload the project and build its image there; the image's name. The same project is built once."""
    way = access.way_in(booking)
    data, digest = project.archive()
    image = f"labkit:{digest}"
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        log = booking.folder / "logs" / "upload.log"
        way.run("upload", SOURCE, digest, SHIPPED, data=file, bound_s=INSTALL_S, log=log)
    log = booking.folder / "logs" / "build.log"
    printed = way.run("build", SOURCE, image, bound_s=BUILD_S, say=booking.say, log=log)
    booking.say(f"build: {_last(printed)}")
    return image


def lab_choice(
    booking: Booking, open_port: bool = False, restart: bool = False, may_stop: Callable[[str], bool] | None = None,
) -> Choice:  # fmt: skip
    """Whether the lab that runs is stopped for this project and port, or keeps running; see ``running.choose``."""
    there = running.ask(access.way_in(booking))
    return running.choose(booking, there, f"labkit:{project.archive()[1]}", open_port, restart, may_stop)


def start_jupyter(
    booking: Booking, open_port: bool = False, restart: bool = False, choice: Choice | None = None
) -> Link:
    """Start Jupyter in the image and return the way to it; a lab that runs is left alone, unless told to ``restart``.

    It listens on the node's loopback, and is reached through an SSH tunnel. With ``open_port`` it listens on its public
    address, and only this machine is let through. Raises ``LabRunsError`` when a lab would have to be stopped for that.
    ``choice`` is what ``lab_choice`` has found already.
    """
    stop = (choice or lab_choice(booking, open_port, restart)) is Choice.STOP
    way = access.way_in(booking)
    _, digest = project.archive()
    if open_port:
        access.open_jupyter(booking)
    # before anything can be written there: from now on a teardown asks for the work
    servers.mark(booking, {WORK: YES})
    bind = "0.0.0.0" if open_port else "127.0.0.1"
    arguments = (SOURCE, WORKSPACE, f"labkit:{digest}", bind, str(access.JUPYTER_PORT), "stop" if stop else "keep")
    log = booking.folder / "logs" / "jupyter.log"
    printed = way.run("jupyter", *arguments, bound_s=START_S, say=booking.say, log=log)
    try:
        token = json.loads(_last(printed))["token"]
    except (ValueError, KeyError, TypeError):
        raise RemoteError(f"jupyter on {way.address} did not say its token. Run this step again.") from None
    link = Link(way, access.JUPYTER_PORT, token, open_port)
    link.keep(booking.folder / "jupyter-link")
    booking.say(f"jupyter: answers on port {access.JUPYTER_PORT} of the node")
    return link


def _last(printed: str) -> str:
    lines = printed.strip().splitlines()
    return lines[-1] if lines else ""
