"""What the services stand on: MariaDB and RabbitMQ, started by hand from Debian's packages."""

import subprocess
from pathlib import Path

from .block import PORTS, Block, free_port
from .configs import DATABASES
from .processes import Processes

NOT_DURABLE = (
    "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite", "--sync-binlog=0",
)  # fmt: skip


class Database:
    """MariaDB, reachable by its socket and on the services' address."""

    def __init__(self, folder: Path, block: Block, processes: Processes) -> None:
        self.folder, self.block, self.processes = folder, block, processes
        self.socket = folder / "mysql.sock"
        self.login = ["--no-defaults", "-S", str(self.socket), "-u", "root"]
        self.query = ["/usr/bin/mariadb", *self.login, "-N", "-B"]

    def start(self) -> None:
        """Make the files, start the server, make empty databases."""
        data = self.folder / "state" / "mysql"
        data.mkdir(parents=True)
        temporary = data.with_name("mysql-temporary")
        temporary.mkdir()
        # a server that starts deletes all temporary tables of its folder, also those of another worker's
        common = ["--no-defaults", "--user=root", f"--datadir={data}", f"--tmpdir={temporary}"]
        with self.processes.log("mysql-install").open("wb") as log:
            command = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
            subprocess.run(command, check=True, stdout=log, stderr=log)
        self.processes.start(
            "mysql",
            ["/usr/sbin/mariadbd", *common, f"--bind-address={self.block.host}", f"--port={PORTS['mysql']}",
             f"--socket={self.socket}", "--max-connections=400", "--innodb-buffer-pool-size=256M",
             "--skip-name-resolve", *NOT_DURABLE],
        )  # fmt: skip
        self.processes.wait_for_port("mysql", self.block.host, PORTS["mysql"])
        # root is known as root@localhost only; services come over TCP without name resolution
        user = f"create user root@'{self.block.host}'; grant all on *.* to root@'{self.block.host}' with grant option;"
        self.run(user + "".join(f"create database {name} character set utf8mb3;" for name in DATABASES))

    def dump(self, name: str, path: Path) -> None:
        """Write a database to ``path``, whole or not at all."""
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            subprocess.run(["/usr/bin/mariadb-dump", *self.login, name], check=True, stdout=file)
        partial.rename(path)

    def load(self, name: str, path: Path) -> None:
        """Read a database from ``path``."""
        with path.open("rb") as file:
            subprocess.run([*self.query, name], check=True, stdin=file)

    def run(self, sql: str) -> list[str]:
        """The lines that a query answers."""
        done = subprocess.run([*self.query, "-e", sql], check=True, capture_output=True, text=True)
        return done.stdout.splitlines()


def start_queue(folder: Path, block: Block, processes: Processes) -> None:
    """Start Erlang's port mapper and RabbitMQ; RabbitMQ would leave a port mapper running that nothing stops."""
    state = folder / "state" / "rabbit"
    state.mkdir(parents=True)
    plugins = folder / "enabled_plugins"
    plugins.write_text("[].\n")
    mapper = {"ERL_EPMD_PORT": str(free_port()), "ERL_EPMD_ADDRESS": "127.0.0.1"}
    processes.start("epmd", ["/usr/bin/epmd"], mapper)
    processes.wait_for_port("epmd", "127.0.0.1", int(mapper["ERL_EPMD_PORT"]))
    env = mapper | {
        "HOME": str(state),
        "RABBITMQ_NODENAME": "rig@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": block.host,
        "RABBITMQ_NODE_PORT": str(PORTS["rabbit"]),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(state),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbit"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    processes.start("rabbit", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], env)
