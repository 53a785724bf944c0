"""The way to a Jupyter server: an SSH tunnel, or an open port; its token stays out of what is displayed."""

import contextlib
import html
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path

from provisioning.errors import SshError
from provisioning.ssh import Ssh

LOCAL_PORT = 8889
"""Not 8888: that is where the Jupyter that runs these notebooks listens."""
TUNNEL_S = 30.0


@dataclass
class Link:
    """Shown without its token, so that no saved notebook gives it away; ``link.url`` has it."""

    way: Ssh
    port: int
    token: str = field(repr=False)
    is_open: bool = False
    local_port: int = LOCAL_PORT
    file: Path | None = None
    _tunnel: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def _base(self) -> str:
        return f"http://{self.way.address}:{self.port}" if self.is_open else f"http://127.0.0.1:{self.local_port}"

    @property
    def url(self) -> str:
        """The address with the token: anyone who has it can use the node."""
        return f"{self._base}/lab?token={self.token}"

    @property
    def tunnel_command(self) -> str:
        """The command that opens the tunnel from any machine that has the key."""
        return self.way.login("-N", "-L", f"{self.local_port}:127.0.0.1:{self.port}")

    def __str__(self) -> str:
        there = "for this machine only" if self.is_open else "while the tunnel is open"
        return "\n".join([
            f"Log in:  {self.way.login()}",
            *([] if self.is_open else [f"Tunnel:  {self.tunnel_command}"]),
            f"Jupyter: {self._base}/lab, {there}.",
            f"The address with its token is in {self.file}.",
        ])  # fmt: skip

    __repr__ = __str__

    def keep(self, file: Path) -> None:
        """Write the address with its token to a file that only its owner can read."""
        _write_private(file, self.url + "\n")
        self.file = file

    def open(self, browser: bool = True) -> None:
        """Open the tunnel from here, and the browser at its end. ``close`` closes it, as the kernel's end does."""
        if not self.is_open and (self._tunnel is None or self._tunnel.poll() is not None):
            self.local_port = _free_port(self.local_port)
            forward = f"127.0.0.1:{self.local_port}:127.0.0.1:{self.port}"
            command = ["ssh", *self.way.options, "-o", "ExitOnForwardFailure=yes", "-N", "-L", forward, self.way.target]
            self._tunnel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if self.file is not None:
                self.keep(self.file)  # the port may have changed
        self._wait()
        if browser:
            webbrowser.open(self._page().as_uri())

    def _page(self) -> Path:
        """A page that only its owner can read and that leads to Jupyter: a browser is started with an address on its
        command line, which all users of this machine can read, so the token must not be in it."""
        page = (self.file or Path(tempfile.mkdtemp(prefix="labkit-")) / "jupyter").with_suffix(".html")
        address = html.escape(self.url, quote=True)
        _write_private(page, f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">\n')
        return page.absolute()

    def close(self) -> None:
        """Close the tunnel."""
        if self._tunnel is not None:
            self._tunnel.terminate()
            self._tunnel.wait()
            self._tunnel = None

    def _wait(self) -> None:
        deadline = time.monotonic() + TUNNEL_S
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, OSError), \
                    urllib.request.urlopen(f"{self._base}/api/status?token={self.token}", timeout=5):  # fmt: skip
                return
            time.sleep(0.2)
        self.close()
        raise SshError(f"Jupyter does not answer at {self._base}. Start it again with start_jupyter.")


def tunnel_to(url: str, way: Ssh, port: int, key: bool = True) -> str:
    """The command of the tunnel that an address kept in a file needs; empty for one that needs none."""
    local = urllib.parse.urlsplit(url)
    if local.hostname != "127.0.0.1":
        return ""
    return way.login("-N", "-L", f"{local.port}:127.0.0.1:{port}", key=key)


def _write_private(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)


def _free_port(first: int) -> int:
    for port in range(first, first + 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise SshError(f"no port from {first} on is free here. Close a tunnel.")
