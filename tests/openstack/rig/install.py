"""What the control plane needs on the machine: Debian packages, and an environment for the services."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]
REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"
PACKAGES = {
    "mariadb-server": "mariadbd",
    "rabbitmq-server": "rabbitmq-server",
    "openssh-server": "sshd",
    "openssh-client": "ssh",
    "shellcheck": "shellcheck",
}
AT_ONCE = 3
"""Calls of pip."""
PLACES = os.pathsep.join(("/usr/sbin", "/usr/bin", "/usr/lib/rabbitmq/bin"))


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Each worker of the tests comes here, and the second finds all done."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


@one_at_a_time(Path(__file__).parent)
def install_packages(packages: Mapping[str, str] = PACKAGES) -> None:
    """Install those Debian packages whose program is missing, without starting any of their servers."""
    missing = [package for package, program in packages.items() if shutil.which(program, path=PLACES) is None]
    if not missing:
        return
    # run level 1 keeps invoke-rc.d from starting what is installed; the rig starts its own
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    apt = ["apt-get", "-q", "-o", "Dpkg::Use-Pty=0"]
    subprocess.run([*apt, "update"], check=True, env=env, stdout=subprocess.DEVNULL)
    install = [*apt, "install", "-y", "--no-install-recommends", *missing]
    subprocess.run(install, check=True, env=env, stdout=subprocess.DEVNULL)


@one_at_a_time(REQUIREMENTS.parent)
def services_environment() -> Path:
    """The ``bin`` of the services' environment, made when it is missing or its pins have changed."""
    home = ROOT / ".venv-openstack"
    ready = home / "pins.txt"
    pins = REQUIREMENTS.read_text(encoding="utf-8")
    if not ready.exists() or ready.read_text(encoding="utf-8") != pins:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        # all is pinned, so nothing is left to resolve; several share the waiting
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        wanted = [line for line in pins.splitlines() if line and not line.startswith("#")]
        running = [subprocess.Popen([*pip, *wanted[first::AT_ONCE]]) for first in range(AT_ONCE)]
        if any([one.wait() for one in running]):
            raise RuntimeError(f"pip cannot install what {REQUIREMENTS} lists; its reasons are above.")
        # forty processes would each do it again where Python writes no bytecode; some packages ship files for Python 2
        compile_all = [str(home / "bin" / "python"), "-m", "compileall", "-q", "-j", "0", "-x", r"/tests?/", "lib"]
        subprocess.run(compile_all, check=False, stdout=subprocess.DEVNULL, cwd=home)
        ready.write_text(pins, encoding="utf-8")
    return home / "bin"
