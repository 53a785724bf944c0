"""A proxy between a client and the services that fails as networks do: before a service has seen a request, or after.

``with FaultyProxy() as proxy``: processes whose HTTP_PROXY names it go through it. ``proxy.fail(...)`` says what fails.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "trailer", "upgrade"}
DROP = 0
"""In place of an HTTP status: the connection breaks off."""


@dataclass
class Fault:
    """What fails, how, and how often still."""

    method: str
    path: re.Pattern
    status: int
    after: bool
    """Whether the service gets the request, and only its answer is lost."""
    times: int
    wait: Callable[[], None] = lambda: None
    """Called before a request is passed on, for a test that lets something else happen first."""
    met: int = 0


@dataclass
class FaultyProxy:
    """Where it listens: ``proxy.url``."""

    faults: list[Fault] = field(default_factory=list)

    def __enter__(self) -> "FaultyProxy":
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(
        self, method: str, path: str, status: int = DROP, after: bool = False, times: int = 1,
        wait: Callable[[], None] = lambda: None,
    ) -> Fault:  # fmt: skip
        """Let the next ``times`` requests of that kind fail; returns the fault, which counts how often it was met."""
        fault = Fault(method, re.compile(path), status, after, times, wait)
        self.faults.append(fault)
        return fault

    def before(self, method: str, path: str, wait: Callable[[], None]) -> Fault:
        """Let something happen before the next such request is passed on, which then is answered as ever."""
        return self.fail(method, path, status=-1, after=True, wait=wait)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        for fault in self.faults:
            if fault.met < fault.times and fault.method == method and fault.path.search(path):
                fault.met += 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        fault = self.proxy.take(self.command, address.path)
        if fault is not None:
            fault.wait()
            if not fault.after:
                self._fail(fault)
                return
        path = address.path + (f"?{address.query}" if address.query else "")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        service = HTTPConnection(address.hostname, address.port, timeout=300)
        try:
            service.request(self.command, path, body or None, headers)
            answer = service.getresponse()
            data = answer.read()
        except OSError:  # it is away: so the client finds it, too
            self._drop()
            return
        finally:
            service.close()
        if fault is not None and fault.status >= 0:
            self._fail(fault)
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _fail(self, fault: Fault) -> None:
        if fault.status == DROP:
            self._drop()
            return
        text = b"<html>the proxy has no answer</html>"
        self.send_response_only(fault.status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve

    def log_message(self, *_: object) -> None:
        pass
