"""Options of ``sbatch`` and ``srun``: long names, with what follows them, and where the command begins."""

import re
import shlex

_SHORT = {
    "A": "account", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task", "C": "constraint", "d": "dependency",
    "D": "chdir", "e": "error", "F": "nodefile", "G": "gpus", "i": "input", "J": "job-name", "L": "licenses",
    "m": "distribution", "M": "clusters", "n": "ntasks", "N": "nodes", "o": "output", "p": "partition", "q": "qos",
    "r": "relative", "S": "core-spec", "t": "time", "T": "threads", "w": "nodelist", "W": "wait", "x": "exclude",
    "a": "array",
}  # fmt: skip
_SHORT_FLAGS = frozenset("EHIkKlOQsuvVXZh")
_FLAGS = frozenset(
    {"exclusive", "overlap", "unbuffered", "label", "pty", "kill-on-bad-exit", "oversubscribe", "quiet", "verbose",
     "preserve-env", "no-allocate", "contiguous", "disable-status", "exact", "whole", "multi-prog", "immediate",
     "use-min-nodes", "resv-ports", "requeue", "no-requeue", "hold", "parsable", "overcommit", "no-kill", "spread-job",
     "get-user-env", "interactive", "ignore-pbs", "test-only", "container-writable", "container-readonly",
     "container-remap-root", "no-container-remap-root", "no-container-mount-home", "container-mount-home",
     "container-entrypoint", "no-container-entrypoint", "wait-all-nodes", "enable-nccl", "propagate", "nice"}
)  # fmt: skip
"""Long options that take nothing, or only after ``=``; those of pyxis, a plugin for containers, too."""

_SAME = {"tasks-per-node": "ntasks-per-node", "workdir": "chdir", "share": "oversubscribe"}
_LONG = re.compile(r"--([\w-]+)(?:=(.*))?", re.DOTALL)


def read_options(words: list[str] | tuple[str, ...]) -> tuple[dict[str, str], int]:
    """Options at the front of ``words`` by their long names without dashes, and where the command begins."""
    found: dict[str, str] = {}
    i = 0
    while i < len(words) and words[i].startswith("-") and len(words[i]) > 1:
        word, i = words[i], i + 1
        if word == "--":
            break
        if match := _LONG.fullmatch(word):
            name = _SAME.get(match[1], match[1])
            takes = match[2] is None and name not in _FLAGS
            found[name] = words[i] if takes and i < len(words) else match[2] or ""
            i += takes
            continue
        letters = word[1:]
        while letters:
            if letters[0] in _SHORT:
                takes = len(letters) == 1
                rest = words[i] if takes and i < len(words) else letters[1:].removeprefix("=")
                found[_SHORT[letters[0]]] = rest
                i += takes
                break
            if letters[0] not in _SHORT_FLAGS:
                break
            letters = letters[1:]
    return found, min(i, len(words))


def directive(text: str) -> dict[str, str]:
    """The options of what follows ``#SBATCH``; a word between them is passed over, as by ``sbatch``."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quote that is never closed; sbatch says so itself
        return {}
    found: dict[str, str] = {}
    while words:
        options, end = read_options(words)
        found |= options
        words = words[max(end, 1) :]
    return found


def number(text: str | None) -> int | None:
    """The number that a value begins with; None without one."""
    found = re.match(r"\d{1,9}", text or "")
    return int(found[0]) if found else None


def count(text: str | None) -> int | None:
    """How many GPUs: ``2``, ``a100:2`` or ``a100:2(S:0)``, kinds with commas between them added; None without one."""
    if text is None:
        return None
    found = [part.partition("(")[0].rpartition(":")[2] for part in text.split(",")]
    return sum(map(int, found)) if all(part.isdecimal() and len(part) < 9 for part in found) else None


def gpus_in_gres(text: str) -> int | None:
    """GPUs among the resources of a node, ``gpu``, ``gpu:2``, ``gres/gpu:a100:2`` or ``gpu:a100``."""
    found = None
    for part in text.split(","):
        name, _, rest = part.strip().removeprefix("gres:").removeprefix("gres/").replace("=", ":").partition(":")
        if name == "gpu":
            found = (found or 0) + (count(rest) or 1 if rest else 1)
    return found
