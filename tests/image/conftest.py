"""The image, built for real without a Docker engine: by buildah, on a Debian base that is made here."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "openstack"))  # its rig installs Debian packages

from rig.install import install_packages

from provisioning import project

ROOT = Path(__file__).parents[2]
TOOLS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "shellcheck": "shellcheck"}
LAB = "labs/00_setup.ipynb"
RUN_S = 300.0
"""The most that one command in the container may take: an end to a test that hangs, not a measure of speed."""
BASE = """\
FROM scratch
ADD base.tar /
"""


def pytest_configure() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped, as after Ctrl-C


class Image:
    """The built image, and one container of it that commands run in. Its network is this machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = ("buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run"))

    def buildah(self, *words: str, log: str = "buildah") -> str:
        """Run buildah; what it prints."""
        with (self.folder / f"{log}.log").open("a+") as errors:
            done = subprocess.run([*self.program, *words], stdout=subprocess.PIPE, stderr=errors, text=True)
            errors.seek(0)
            assert done.returncode == 0, "\n".join([*done.stdout.splitlines()[-30:], *errors.readlines()[-10:]])
        return done.stdout

    def build(self) -> None:
        """Make the base, build the image, and a container of it."""
        include = "--include=python3,python3-venv,python3-pip,ca-certificates"
        options = ("--quiet", "--variant=minbase", "--dpkgopt=force-unsafe-io", include)  # it is thrown away
        subprocess.run(["mmdebstrap", *options, "bookworm", str(self.folder / "base.tar")], check=True)
        (self.folder / "Base").write_text(BASE)
        file = ("--file", str(self.folder / "Base"))
        self.buildah("bud", "--isolation", "chroot", "--tag", "localhost/base", *file, str(self.folder))
        (self.folder / "base.tar").unlink()
        settings = ("--build-arg", "BASE_IMAGE=localhost/base", "--build-arg", "CUDA=no", *pip_as_here(self.folder))
        context = project_as_sent(self.folder / "context")
        build = ("bud", "--format", "docker", "--isolation", "chroot", "--tag", "localhost/labkit", *settings)
        self.buildah(*build, "--file", str(context / "docker" / "Dockerfile"), str(context), log="build")
        self.config = json.loads(self.buildah("inspect", "--type", "image", "localhost/labkit"))["Docker"]["config"]
        self.container = self.buildah("from", "localhost/labkit").strip()
        # buildah puts a volume of its own over the folder that is mounted there; Docker does not
        self.buildah("config", "--volume", "/workspace-", self.container)

    def command(self, workspace: Path, *words: str, user: str | None = None, **env: str) -> list[str]:
        """The command line that runs ``words`` in the container, as the image's user or another."""
        options = ["--isolation", "chroot", "--volume", f"{workspace}:/workspace"]
        options += ["--user", user] if user else []
        options += [item for key, value in env.items() for item in ("--env", f"{key}={value}")]
        return [*self.program, "run", *options, self.container, "--", *words]

    def run(self, workspace: Path, *words: str, **options: str) -> subprocess.CompletedProcess:
        """Run a command in the container."""
        command = self.command(workspace, *words, **options)
        return subprocess.run(command, capture_output=True, text=True, timeout=RUN_S)


def project_as_sent(folder: Path) -> Path:
    """The project as provisioning sends it to a node; with a lab, should this checkout have none."""
    data, _ = project.archive(ROOT)
    with tarfile.open(fileobj=BytesIO(data)) as tar:
        tar.extractall(folder, filter="data")
    lab = folder / LAB
    lab.parent.mkdir(exist_ok=True)
    if not lab.exists():
        lab.write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return folder


def pip_as_here(folder: Path) -> list[str]:
    """Options of buildah that let pip in the image find packages where pip here finds them."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    wanted = ("index-url", "extra-index-url", "find-links", "cert", "proxy", "trusted-host")
    settings: dict[str, str] = {}
    places = {str(folder / "pip.conf"): "/etc/pip.conf"}
    for line in listed.stdout.splitlines():  # the environment's settings come first, and count
        key, value = line.partition(".")[2].partition("=")[::2]
        if key in wanted and key not in settings:
            settings[key] = value.strip("'")
            for word in settings[key].split():
                # an index is a folder of links to files beside it
                place = Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
                places |= {str(place): str(place)} if place.exists() else {}
    lines = ["[global]", *(f"{key} = {value}" for key, value in settings.items())]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return [word for here, there in places.items() for word in ("--volume", f"{here}:{there}:ro")]


@pytest.fixture(scope="session")
def tools() -> None:
    """Debian's part of what the tests call; hadolint comes with the tests' requirements."""
    install_packages(TOOLS)


@pytest.fixture(scope="session")
def image(tools) -> Iterator[Image]:
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    folder.chmod(0o755)
    image = Image(folder)
    try:
        image.build()
        yield image
    finally:
        subprocess.run([*image.program, "rm", "--all"], stdout=subprocess.DEVNULL)
        shutil.rmtree(folder)


@pytest.fixture
def workspace(image) -> Iterator[Path]:
    """A new workspace that belongs to the image's user."""
    folder = Path(tempfile.mkdtemp(prefix="workspace-", dir=image.folder))
    uid, gid = map(int, image.config["User"].split(":"))
    os.chown(folder, uid, gid)
    return folder
