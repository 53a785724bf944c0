"""The control plane as a whole: up, and down again without a trace."""

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import identity, site
from .block import PORTS, SSH_PORT, Block, free_block
from .configs import COMPUTES, REGIONS, Configs
from .install import install_packages, services_environment
from .nodes import Nodes
from .processes import Processes, RigError
from .stores import Database, start_queue

HERE = Path(__file__).parent


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

    def __enter__(self) -> "ControlPlane":
        try:
            self._start()
        except BaseException:  # Ctrl-C too: servers that were started are stopped, and the error goes on
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.stop_all()
        shutil.rmtree(self.folder, ignore_errors=True)  # a server that was killed may still be closing a file

    def _start(self) -> None:
        phases = (
            ("packages", install_packages), ("environment", self._environment), ("stores", self._stores),
            ("schemas", self._schemas), ("identity", self._identity), ("services", self._services),
            ("site", self._site), ("nodes", self.nodes.start),
        )  # fmt: skip
        for name, phase in phases:
            started = time.monotonic()
            phase()
            self.took_s[name] = round(time.monotonic() - started, 1)

    def _environment(self) -> None:
        self.bin = services_environment()
        self.env = self.configs.variables | {"PYTHONPATH": str(HERE / "plugins"), "PATH": f"{self.bin}:/usr/bin:/bin"}

    def _stores(self) -> None:
        self.configs.write(self.bin)
        start_queue(self.folder, self.block, self.processes)
        self.database.start()
        self.processes.wait_for_port("rabbit", self.block.host, PORTS["rabbit"])

    def _manage(self, program: str, *arguments: str, config: str) -> None:
        command = [str(self.bin / program), "--config-file", str(self.folder / "etc" / config), *arguments]
        with self.processes.log(f"{program}-{arguments[0]}").open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False, env=self.env)
        if done.returncode:
            tail = Path(log.name).read_text(errors="replace").splitlines()[-15:]
            raise RigError(f"{program} {arguments[0]} ended with {done.returncode}:\n" + "\n".join(tail))

    def _schemas(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(self._nova_schemas), pool.submit(self._other_schemas)]:
                done.result()

    def _nova_schemas(self) -> None:
        config = "nova/nova.conf"
        self._manage("nova-manage", "api_db", "sync", config=config)
        cell0 = self.configs.database("nova_cell0")
        self._manage("nova-manage", "cell_v2", "map_cell0", "--database_connection", cell0, config=config)
        cell1 = ("--name", "cell1", "--transport-url", self.configs.queue)
        database = ("--database_connection", self.configs.database("nova_cell1"))
        self._manage("nova-manage", "cell_v2", "create_cell", *cell1, *database, config=config)
        self._manage("nova-manage", "db", "sync", config=config)
        self._manage("glance-manage", "db_sync", config="glance/glance-api.conf")
        self._manage("cinder-manage", "db", "sync", config="cinder/cinder.conf")

    def _other_schemas(self) -> None:
        keystone = "keystone/keystone.conf"
        self._manage("keystone-manage", "db_sync", config=keystone)
        root = ("--keystone-user", "root", "--keystone-group", "root")
        for folder, verb in (("fernet", "fernet_setup"), ("credential", "credential_setup")):
            (self.folder / "state" / "keystone" / folder).mkdir(mode=0o700)
            self._manage("keystone-manage", verb, *root, config=keystone)
        url = self.block.url("keystone", "/v3")
        urls = [item for kind in ("public", "internal", "admin") for item in (f"--bootstrap-{kind}-url", url)]
        password = ("--bootstrap-password", identity.ADMIN_PASSWORD, "--bootstrap-region-id", REGIONS[0])
        self._manage("keystone-manage", "bootstrap", *password, *urls, config=keystone)
        self._manage("placement-manage", "db", "sync", config="placement/placement.conf")
        self._manage("blazar-db-manage", "upgrade", "head", config="blazar/blazar.conf")
        self._manage("neutron-db-manage", "upgrade", "head", config="neutron/neutron.conf")

    def _serve(self, name: str, module: str, config: str | None = None) -> None:
        address = f"{self.block.host}:{PORTS[name]}"
        options = ["--config-file", str(self.folder / "etc" / config)] if config else []
        command = [str(self.bin / "python"), str(HERE / "serve.py"), address, module, *options]
        self.processes.start(name, command, self.env)

    def _run(self, program: str, *configs: str, name: str | None = None) -> None:
        options = [item for config in configs for item in ("--config-file", str(self.folder / "etc" / config))]
        self.processes.start(name or program, [str(self.bin / program), *options], self.env)

    def _identity(self) -> None:
        self._serve("keystone", "keystone.wsgi.api", "keystone/keystone.conf")
        self.processes.wait_for_port("keystone", self.block.host, PORTS["keystone"])
        identity.seed(self.block)

    def _services(self) -> None:
        self._serve("placement", "placement.wsgi.api", "placement/placement.conf")
        self._serve("glance", "glance.wsgi.api")
        self._serve("neutron", "neutron.wsgi.api")
        self._serve("cinder", "cinder.wsgi.api", "cinder/cinder.conf")
        self._serve("nova", "nova.wsgi.osapi_compute")
        self._serve("blazar", "blazar.wsgi.api")
        for program in ("nova-conductor", "nova-scheduler"):
            self._run(program, "nova/nova.conf")
        for program in ("cinder-scheduler", "cinder-volume"):
            self._run(program, "cinder/cinder.conf")
        config = ["--config-file", str(self.folder / "etc" / "blazar" / "blazar.conf")]
        manager = [str(self.bin / "python"), str(HERE / "blazar_manager.py"), *config]
        self.processes.start("blazar-manager", manager, self.env)
        for name in ("placement", "glance", "neutron", "cinder", "nova", "blazar"):
            self.processes.wait_for_port(name, self.block.host, PORTS[name])
        for host in COMPUTES:
            self._run("nova-compute", "nova/nova.conf", f"nova/{host}.conf", name=host)
        known = "select count(*) from placement.resource_providers"
        for host in COMPUTES:
            self.processes.wait(host, lambda: int(self.database.run(known)[0]) >= len(COMPUTES))
        self._manage("nova-manage", "cell_v2", "discover_hosts", config="nova/nova.conf")

    def _site(self) -> None:
        site.seed(self.block)
        folder = self.folder / "sites"
        site.write_list(folder, self.block)
        serve = [sys.executable, "-m", "http.server", "--bind", self.block.host, str(PORTS["sites"])]
        self.processes.start("sites", serve, cwd=folder)
        self.processes.wait_for_port("sites", self.block.host, PORTS["sites"])

    @property
    def ssh_port(self) -> int:
        """The port that nodes listen to."""
        return SSH_PORT
