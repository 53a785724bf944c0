"""Make the ledger of the first version, with the code of then. Made once: today's labkit must read it as it is.

    git archive 807e65b | tar -x -C /tmp/first_version --one-top-level
    .venv/bin/python tests/data/first_version/make.py /tmp/first_version /tmp/runs_of_then

Runs in the environment of today, with the labkit of then.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
KEPT = ("record.json", "events.jsonl", "config.json", "log.txt", "answers.jsonl")
SHORT = {"max_steps": 2, "num_train_samples": 32}
SAVING = {"enable_checkpointing": True, "save_every": 1, "max_epochs": 2, "num_train_samples": 64, "batch_size": 16}
TINY_ADAPTER = {"lora_r": 1, "lora_targets": ["q_proj"], "max_epochs": 2, "num_train_samples": 32, "batch_size": 8}
RUNS = """
import json, sys
import psutil
from labkit.lab import Lab
from labkit.runs.climb import climb
from labkit.runs.runner import run

short, saving, adapter = json.loads(sys.argv[1])

def kill_after(step):
    def look(event):
        if event["event"] == "progress" and event["step"] >= step:
            for child in psutil.Process().children():
                if child.status() != "zombie" and "labkit.train.fit" in child.cmdline():
                    child.kill()
    return look

lab = Lab("00_setup")
lab.ask("share_of_parameters", answer=18)
lab.run("reduced_batch", **short)
lab.check()
run("baseline", short)
run("reduced_batch", saving, on_event=kill_after(2))
run("reduced_batch", saving)
stopped = {**adapter, "enable_checkpointing": True, "save_every": 1, "keep_checkpoints": 1}
run("food_lora", stopped, on_event=kill_after(2))
run("food_lora", adapter)
climb("reduced_batch", {"capacity_gib": 0.07, "max_steps": 1, "num_train_samples": 16})
"""


def neutral(text: str, runs: Path, checkout: Path) -> str:
    """The text without what tells on which machine it was made."""
    names = {
        str(runs): "/course/workspace/runs", str(checkout): "/course", sys.prefix: "/course/.venv",
        sys.base_prefix: "/usr", str(Path.home()): "/home/student", socket.gethostname(): "laptop",
    }  # fmt: skip
    for name, other in names.items():
        text = text.replace(name, other)
    return text


def small(text: str, lines: bool) -> str:
    """JSON without blanks, to take half the room; ``lines``: a value a line."""
    parts = text.splitlines() if lines else [text]
    return "".join(json.dumps(json.loads(part), separators=(",", ":")) + "\n" for part in parts)


def main() -> None:
    """Run, where that has not been done, and keep what is small."""
    checkout, runs = (Path(name).resolve() for name in sys.argv[1:])
    env = os.environ | {
        "PYTHONPATH": str(checkout), "LABKIT_RUNS": str(runs), "LABKIT_WORKSPACE": str(checkout / "workspace"),
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", RUNS, json.dumps([SHORT, SAVING, TINY_ADAPTER])]
    if not runs.exists():
        subprocess.run(command, env=env, cwd=checkout, check=True)
    for file in sorted(runs.rglob("*")):
        copy = HERE / "runs" / file.relative_to(runs)
        if file.name in KEPT:
            copy.parent.mkdir(parents=True, exist_ok=True)
            text = neutral(file.read_text(encoding="utf-8"), runs, checkout)
            copy.write_text(text if file.suffix == ".txt" else small(text, file.suffix == ".jsonl"), encoding="utf-8")
        elif file.parent.match("food_lora/*/checkpoints/step-*"):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    for kind in ("configs", "profiles"):
        shutil.copytree(checkout / "workspace" / kind, HERE / "workspace" / kind, dirs_exist_ok=True)
    (HERE / "labs").mkdir(exist_ok=True)
    for notebook in sorted((checkout / "labs").glob("*.ipynb")):
        shutil.copy(notebook, HERE / "labs")


if __name__ == "__main__":
    main()
