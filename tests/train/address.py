"""An address on the loopback that gives an archive as servers do, and as they should not."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Address:
    """Use it as a context. ``asked`` has the ranges that were asked for.

    ``ranges``: whether it sends parts, ``shifts``: but all of it is such a part. ``cuts``: after how many bytes an
    answer ends, one for each answer to come that sends more than two bytes. ``stalls``: it waits there instead.
    ``told``: whether it says how large the archive is. ``status``, ``kind``, ``etag``: those of its answers.
    """

    def __init__(self, content=b""):
        self.content, self.asked, self.cuts = content, [], []
        self.ranges = self.told = True
        self.shifts = False
        self.stalls, self.status, self.kind, self.etag = False, 200, "application/gzip", '"one"'
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/food.gz"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(address):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                address.answer(self)

            def log_message(self, *arguments):
                pass

        return Handler

    def answer(self, request):
        span = request.headers["Range"].removeprefix("bytes=")
        self.asked.append(span)
        first, last = span.split("-")
        first, last = int(first) * (not self.shifts), int(last or len(self.content) - 1)
        headers = {"Content-Type": self.kind, "ETag": self.etag}
        body, status = self.content, self.status
        if self.ranges and status == 200:
            body, status = self.content[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{len(self.content)}"
        if self.told:
            headers["Content-Length"] = len(body)
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, str(value))
        request.end_headers()
        cut = self.cuts.pop(0) if self.cuts and span != "0-1" else None
        try:
            request.wfile.write(body[:cut])
            if cut is not None and self.stalls:
                request.wfile.flush()
                self.released.wait()
        except ConnectionError:  # no one reads on
            pass
        request.close_connection = True
