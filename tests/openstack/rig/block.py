"""A free block of loopback addresses, and free ports."""

import random
import socket
from dataclasses import dataclass

KEYSTONE_PORT = 5000
"""python-chi's ``use_site`` appends this port to a site's address, so it is not ours to choose."""
PORTS = {
    "keystone": KEYSTONE_PORT, "placement": 8778, "glance": 9292, "neutron": 9696, "cinder": 8776, "nova": 8774,
    "blazar": 1234, "blazar_uc": 1235, "sites": 8099, "mysql": 13306, "rabbit": 5673,
}  # fmt: skip
SSH_PORT = 2222
"""Not 22: a machine may have an sshd of its own, which listens on every address."""
FIRST_NODE, NODES = 10, 34
"""A class of thirty, and few enough to be used up by a test."""
TRIES = 50


@dataclass(frozen=True)
class Block:
    """127.x.y.0/24: services on .1, floating IPs from .10 on."""

    prefix: str

    @property
    def host(self) -> str:
        """The address of all services."""
        return f"{self.prefix}.1"

    @property
    def nodes(self) -> list[str]:
        """The floating IPs."""
        return [f"{self.prefix}.{FIRST_NODE + i}" for i in range(NODES)]

    def url(self, service: str, path: str = "") -> str:
        """The address of a service."""
        return f"http://{self.host}:{PORTS[service]}{path}"


def free_block() -> Block:
    """A block on which nothing listens on any of our ports."""
    for _ in range(TRIES):
        block = Block(f"127.{random.randint(1, 254)}.{random.randint(1, 254)}")
        wanted = [(block.host, port) for port in PORTS.values()] + [(node, SSH_PORT) for node in block.nodes]
        if all(_is_free(address) for address in wanted):
            return block
    raise RuntimeError(f"no free block of loopback addresses in {TRIES} tries: is a port of {PORTS} taken everywhere?")


def free_port() -> int:
    """A free port of 127.0.0.1, for Erlang's port mapper, which listens nowhere else."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _is_free(address: tuple[str, int]) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            return False
    return True
