"""What runs in the lab's container on this node, as JSON; ``null`` when none runs.

python3 - NAME
"""

import json
import re
import subprocess
import sys
from typing import Any

OF_THE_SERVER = re.compile(
    r"docker-init|jupyter-?(lab|server)|\bjupyter lab\b|ipykernel_launcher|bash_kernel|/api'|<defunct>"
)
"""Command lines of the server itself, its kernels and the image's health check, and what has ended."""
SHELL = re.compile(r"^(\S*/)?-?bash( -l)?$")
"""A terminal's: a shell without a command."""


def said(*command: str) -> str | None:
    """What a command prints; None when it fails or is not there."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processes(name: str) -> list[list[Any]]:
    """Seconds and command line of what runs in the container, other than server, kernels and terminals."""
    found = []
    for line in (said("sudo", "docker", "top", name, "-eo", "pid,etimes,args") or "").splitlines()[1:]:
        words = line.split(None, 2)
        if len(words) == 3 and not OF_THE_SERVER.search(words[2]) and not SHELL.search(words[2]):
            found.append([int(words[1]), words[2]])
    return found


def gpu_mib() -> int | None:
    """GPU memory that programs hold, in MiB; None where no GPU answers."""
    used = said("nvidia-smi", "--query-compute-apps=used_memory", "--format=csv,noheader,nounits")
    return None if used is None else sum(int(word) for word in used.split() if word.isdigit())


def look(name: str) -> dict[str, Any] | None:
    """All of it."""
    shown = '{{.State.Running}}\t{{.State.StartedAt}}\t{{index .Config.Labels "labkit"}}'
    state = said("sudo", "docker", "inspect", "--format", shown, name)
    if state is None or not state.startswith("true\t"):
        return None
    _, started, label = state.split("\t")
    inside = said("sudo", "docker", "exec", name, "python", "/opt/labkit/kernels.py")
    jupyter = (json.loads(inside) if inside else None) or {"kernels": None, "terminals": None}
    return {"label": label, "started": started, "processes": processes(name), "gpu_mib": gpu_mib(), **jupyter}


if __name__ == "__main__":
    print(json.dumps(look(sys.argv[1])))
