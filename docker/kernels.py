"""What runs in this container's Jupyter, as JSON: kernels with their notebook and state, and terminals.

    docker exec labkit python /opt/labkit/kernels.py

Asks the server with its own token, which is not shown. ``null`` when no server answers.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

ANSWER_S = 10.0


def servers() -> list[dict[str, Any]]:
    """What Jupyter knows of its servers here: port, base_url and token."""
    command = [sys.executable, "-m", "jupyter", "server", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def ask(server: dict[str, Any], path: str) -> Any:
    """What the server answers to ``path``. ``URLError`` when it does not."""
    request = urllib.request.Request(f"http://127.0.0.1:{server['port']}{server['base_url']}{path}")
    request.add_header("Authorization", f"token {server['token']}")
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
        return json.load(answer)


def look(server: dict[str, Any]) -> dict[str, Any]:
    """Kernels and terminals of one server."""
    notebooks = {session["kernel"]["id"]: session["path"] for session in ask(server, "api/sessions")}
    kernels = [
        {
            "path": notebooks.get(kernel["id"], kernel["name"]), "state": kernel["execution_state"],
            "last_activity": kernel["last_activity"],
        }
        for kernel in ask(server, "api/kernels")
    ]  # fmt: skip
    return {"kernels": kernels, "terminals": len(ask(server, "api/terminals"))}


def main() -> None:
    """Print what the first server that answers says."""
    for server in servers():
        try:
            print(json.dumps(look(server)))
            return
        except urllib.error.URLError:
            continue  # its file outlived it
    print("null")


if __name__ == "__main__":
    main()
