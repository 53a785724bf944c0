"""A hub on the loopback: serves folders as huggingface_hub asks for them, and can be told to misbehave."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


class Hub:
    """Use it as a context. ``models`` has a folder by name, ``refused`` a status and the hub's code for it.

    ``damaged`` names files that arrive with one byte changed; ``served`` has the paths of the files that were sent.
    """

    def __init__(self, models=None, refused=None):
        self.models, self.refused, self.damaged, self.served = models or {}, refused or {}, set(), []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(hub):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self, with_body=True)

            def do_HEAD(self):
                hub.answer(self, with_body=False)

            def log_message(self, *arguments):
                pass

        return Handler

    def answer(self, request, with_body):
        parts = urlsplit(request.path).path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:
            name, rest = "/".join(parts[:2]), parts[2:]
        if name in self.refused or name not in self.models:
            status, code = self.refused.get(name, (404, "RepoNotFound"))
            return self._send(request, status, b"{}", with_body, **({"X-Error-Code": code} if code else {}))
        folder = self.models[name]
        if rest[0] == "revision":
            return self._send(request, 200, json.dumps(self._info(name, folder)).encode(), with_body)
        if rest[0] == "tree":
            return self._send(request, 200, json.dumps(self._tree(folder)).encode(), with_body)
        assert rest[:2] == ["resolve", COMMIT], request.path
        path = folder / "/".join(rest[2:])
        data = path.read_bytes()
        etag = blob_of(path)
        if with_body:
            self.served.append(path.name)
        if path.name in self.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return self._send(request, 200, data, with_body, ETag=f'"{etag}"', **{"X-Repo-Commit": COMMIT})

    def _info(self, name, folder):
        siblings = []
        for path in files(folder):
            entry = {"rfilename": path.name, "size": path.stat().st_size, "blobId": git_oid(path)}
            if is_large(path):
                entry["lfs"] = {"sha256": blob_of(path), "size": path.stat().st_size, "pointerSize": 134}
            siblings.append(entry)
        return {"_id": "0", "id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False}

    def _tree(self, folder):
        rows = []
        for path in files(folder):
            row = {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": git_oid(path)}
            if is_large(path):
                row["lfs"] = {"oid": blob_of(path), "size": path.stat().st_size, "pointerSize": 134}
            rows.append(row)
        return rows

    def _send(self, request, status, body, with_body, **headers):
        request.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
            request.send_header(key, str(value))
        request.end_headers()
        if with_body:
            request.wfile.write(body)


def files(folder):
    return sorted(path for path in folder.iterdir() if path.is_file())


def is_large(path):
    """Whether a hub keeps the file in its large file storage, with a checksum of its content."""
    return path.suffix in (".safetensors", ".bin")


def blob_of(path):
    """What the cache calls the file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if is_large(path) else git_oid(path)


def git_oid(path):
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
