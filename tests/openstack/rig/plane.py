"""The control plane as a whole: up, and down again without a trace."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import identity, site
from .block import PORTS, SSH_PORT, Block, free_block
from .configs import BLAZARS, COMPUTES, REGIONS, Configs
from .install import install_packages, services_environment
from .nodes import Nodes
from .processes import Processes, RigError
from .stores import Database, start_queue
from .tables import Tables

HERE = Path(__file__).parent
QUEUE, PLACE = "{scheme}://{username}:{password}@{hostname}:{port}/", "{scheme}://{username}@{hostname}:{port}"
"""Nova fills them in from its configuration at each start."""
CELLS = (
    f"cell_v2 map_cell0 --database_connection {PLACE}/nova_cell0?{{query}}",
    f"cell_v2 create_cell --name cell1 --transport-url {QUEUE} --database_connection {PLACE}/nova_cell1?{{query}}",
)


class ControlPlane:
    """``with ControlPlane() as plane``: services answer, users and sites exist; afterwards nothing is left."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.folder.chmod(0o755)
        (self.folder / "log").mkdir()
        self.block: Block = free_block()
        self.processes = Processes(self.folder / "log")
        self.configs = Configs(self.folder, self.block)
        self.database = Database(self.folder, self.block, self.processes)
        self.nodes = Nodes(self.folder / "nodes", self.block, self.database, self.processes)
        self.took_s: dict[str, float] = {}
        self.admin = identity.admin(self.block)
        """The administrator's connection; tests use it to break things and to read what is left."""

    def __enter__(self) -> "ControlPlane":
        try:
            self._start()
        except BaseException:  # Ctrl-C too: servers that were started are stopped, and the error is raised all the same
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.admin.close()
        self.processes.stop_all()
        if left := self.processes.that_name(self.folder):
            raise RigError(f"outlived the control plane: {left}")
        shutil.rmtree(self.folder, ignore_errors=True)  # a server that was killed may still be closing a file

    def _start(self) -> None:
        phases = (
            ("installs", self._installs), ("stores", self._stores), ("tables", self._tables),
            ("services", self._services), ("site", self._site), ("nodes", self.nodes.start),
        )  # fmt: skip
        for name, phase in phases:
            started = time.monotonic()
            phase()
            self.took_s[name] = round(time.monotonic() - started, 1)

    def _installs(self) -> None:
        with ThreadPoolExecutor() as pool:
            packages = pool.submit(install_packages)
            self.bin = services_environment()
            packages.result()
        self.env = self.configs.variables | {"PYTHONPATH": str(HERE / "plugins"), "PATH": f"{self.bin}:/usr/bin:/bin"}

    def _stores(self) -> None:
        self.configs.write(self.bin)
        start_queue(self.folder, self.block, self.processes)
        self.database.start()
        self.processes.wait_for_port("rabbit", self.block.host, PORTS["rabbit"])

    def _several(self, program: str, how: str, commands: Sequence[tuple[str, ...]]) -> list[str]:
        words = [word for command in commands for word in ("--", *command)]
        return [str(self.bin / "python"), str(HERE / "several.py"), program, how, *words]

    def _config(self, name: str) -> tuple[str, str]:
        return "--config-file", str(self.folder / "etc" / name)

    def _words(self, config: str, *commands: str) -> list[tuple[str, ...]]:
        """The words of commands of a service's own tool."""
        return [(*self._config(config), *command.split()) for command in commands]

    def _in_turn(self, program: str, words: Sequence[tuple[str, ...]]) -> None:
        """Run commands of a service's own tool, one after the other."""
        argv = self._several(program, "in-turn", words)
        with self.processes.log(program).open("ab") as log:
            done = subprocess.run(argv, stdout=log, stderr=log, check=False, env=os.environ | self.env)
        if done.returncode:
            tail = Path(log.name).read_text(errors="replace").splitlines()[-15:]
            raise RigError(f"{program} ended with {done.returncode}:\n" + "\n".join(tail))

    def _serve(self, name: str, module: str, config: str | None = None, **variables: str) -> None:
        address = f"{self.block.host}:{PORTS[name]}"
        options = self._config(config) if config else ()
        command = [str(self.bin / "python"), str(HERE / "serve.py"), address, module, *options]
        self.processes.start(name, command, self.env | variables)

    def _run(self, program: str, config: str) -> None:
        self.processes.start(program, [str(self.bin / program), *self._config(config)], self.env)

    def _tables(self) -> None:
        tables = Tables(self.bin.parent / "tables", self.database, self._in_turn)
        tables.make({
            ("neutron",): ("neutron-db-manage", self._words("neutron/neutron.conf", "upgrade head")),
            ("nova_api", "nova_cell0", "nova_cell1"): (
                "nova-manage", self._words("nova/nova.conf", "api_db sync", *CELLS, "db sync")),
            ("keystone",): ("keystone-manage", self._words("keystone/keystone.conf", "db_sync")),
            ("cinder",): ("cinder-manage", self._words("cinder/cinder.conf", "db sync")),
            tuple(BLAZARS.values()): (
                "blazar-db-manage",
                [word for name in BLAZARS.values() for word in self._words(f"{name}/blazar.conf", "upgrade head")]),
            ("glance",): ("glance-manage", self._words("glance/glance-api.conf", "db_sync")),
            ("placement",): ("placement-manage", self._words("placement/placement.conf", "db sync")),
        })  # fmt: skip

    def _services(self) -> None:
        """Each service starts, all at once; then what needs the others."""
        for name in ("cinder", "placement"):
            self._serve(name, f"{name}.wsgi.api", f"{name}/{name}.conf")
        # these find their configuration by themselves
        for name, module in (("neutron", "api"), ("glance", "api"), ("nova", "osapi_compute")):
            self._serve(name, f"{name}.wsgi.{module}")
        for name in BLAZARS.values():
            self._serve(name, "blazar.wsgi.api", OS_BLAZAR_CONFIG_DIR=str(self.configs.etc(name)))
        for program in ("cinder-scheduler", "cinder-volume", "nova-conductor", "nova-scheduler"):
            service = program.partition("-")[0]
            self._run(program, f"{service}/{service}.conf")
        self._keystone()
        for name in BLAZARS.values():
            # each by itself: one that is forked leaves the process group, and would outlive the rig
            manager = [str(self.bin / "python"), str(HERE / "plugins" / "blazar_manager.py")]
            self.processes.start(f"{name}-manager", [*manager, *self._config(f"{name}/blazar.conf")], self.env)
        computes = tuple((*self._config("nova/nova.conf"), *self._config(f"nova/{host}.conf")) for host in COMPUTES)
        self.processes.start("nova-compute", self._several("rig-nova-compute", "together", computes), self.env)
        for name in ("placement", "glance", "neutron", "cinder", "nova", *BLAZARS.values()):
            self.processes.wait_for_port(name, self.block.host, PORTS[name])

    def _keystone(self) -> None:
        for folder in ("fernet", "credential"):
            (self.folder / "state" / "keystone" / folder).mkdir(mode=0o700)
        root = "--keystone-user root --keystone-group root"
        url = self.block.url("keystone", "/v3")
        urls = " ".join(f"--bootstrap-{kind}-url {url}" for kind in ("public", "internal", "admin"))
        bootstrap = f"--bootstrap-password {identity.ADMIN_PASSWORD} --bootstrap-region-id {REGIONS[0]} {urls}"
        commands = (f"fernet_setup {root}", f"credential_setup {root}", f"bootstrap {bootstrap}")
        self._in_turn("keystone-manage", self._words("keystone/keystone.conf", *commands))
        self._serve("keystone", "keystone.wsgi.api", "keystone/keystone.conf")
        self.processes.wait_for_port("keystone", self.block.host, PORTS["keystone"])
        identity.seed(self.block)

    def _hypervisors(self) -> None:
        """Until Nova's scheduler has found all, each with what it can hold."""
        known = ("select count(*) from placement.resource_providers", "select count(*) from nova_api.host_mappings")
        all_known = lambda: all(int(self.database.run(ask)[0]) >= len(COMPUTES) for ask in known)  # noqa: E731
        self.processes.wait("nova-compute", all_known)

    def _site(self) -> None:
        site.seed(self.block)  # while the hypervisors start
        self._hypervisors()
        site.seed_nodes(self.block)
        folder = self.folder / "sites"
        site.write_list(folder, self.block)
        serve = [sys.executable, "-m", "http.server", "--bind", self.block.host, str(PORTS["sites"])]
        self.processes.start("sites", serve, cwd=folder)
        self.processes.wait_for_port("sites", self.block.host, PORTS["sites"])

    @contextlib.contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Let a service be away; it is there again afterwards."""
        self.processes.stop(name)
        try:
            yield
        finally:
            self.start_again(name)

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Let a service stand still: what it is told waits."""
        self.processes.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self.processes.signal(name, signal.SIGCONT)

    def start_again(self, name: str) -> None:
        """Start a service that was stopped, unless that was done."""
        self.processes.start_again(name)
        if name in PORTS:
            self.processes.wait_for_port(name, self.block.host, PORTS[name])

    @property
    def ssh_port(self) -> int:
        """The port that nodes listen to."""
        return SSH_PORT
