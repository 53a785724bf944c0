"""How long 1,000 records take to be listed, 5,000 to be compared and shown, and two writers of 100 runs each.

    python tests/benchmarks/ledger.py

Claims: listed in under a second; of 5,000 ``labkit compare`` and ``labkit show`` answer in under three. Real records
are made by two runs, one with few reported phases and the one with the most of the course, and copied. ``make bench``
runs it.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from labkit.ledger.ledger import Ledger
from labkit.runs.runner import run

RECORDS, MANY, REPEATS = 1000, 5000, 5
LABKIT = str(Path(sys.executable).with_name("labkit"))
WRITER = """
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger.ledger import Ledger
resolved = resolve(Workspace.find(), "baseline")
for _ in range(100):
    with Ledger(Workspace.find().runs).open_run(resolved, {}, {}) as folder:
        folder.write(folder.read())
"""


def fill(root: Path, records: list[Path], count: int = RECORDS, names: list[str] | None = None) -> None:
    """A ledger of copies with ids of their own, over as many experiments as the course has."""
    names = names or [f"experiment{i}" for i in range(15)]
    for i in range(count):
        source = records[i % len(records)]
        folder = root / "tiny" / names[i % len(names)] / f"20260101-{i:06}-00000000"
        folder.mkdir(parents=True)
        for name in ("config.json", "record.json"):
            data = json.loads((source / name).read_text())
            data.get("record", data).update(id=folder.name, experiment=folder.parent.name)
            (folder / name).write_text(json.dumps(data, indent=1))
        (folder / "lock").touch()


def listed(root: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a listing; the best of some."""
    best = []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        assert len(Ledger(root).records()) == RECORDS
        best.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(best)


def answered(root: Path, *arguments: str) -> float:
    """Wall seconds of the command, start-up included; the best of some."""
    best = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run([LABKIT, *arguments], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env=os.environ | {"LABKIT_RUNS": str(root)})  # fmt: skip
        best.append(time.perf_counter() - started)
    return min(best)


def main() -> None:
    """Make the records, copy them, and print seconds."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LABKIT_RUNS"] = f"{folder}/real"
        made = {name: run(name, {"max_steps": 2, "num_train_samples": 128}) for name in ("reduced_batch", "xxl_lora")}
        found = {name: Ledger(Path(folder) / "real").find(record.id).path for name, record in made.items()}
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {RECORDS} records, best of {REPEATS}")
        for name, records in {**{n: [p] for n, p in found.items()}, "half of each": list(found.values())}.items():
            root = Path(folder) / f"copies of {name}"
            fill(root, records)
            kb = sum((path / "record.json").stat().st_size for path in records) / len(records) / 1000
            wall, cpu = listed(root)
            print(f"listed, {name:14} {kb:5.1f} KB each  {wall:6.3f} s (CPU {cpu:6.3f} s)")
        root = Path(folder) / "many"
        course = ["reduced_batch", "xxl_lora", "baseline", "bf16_true", "xxl_sgd"]
        fill(root, list(found.values()), MANY, course)
        newest = max((root / "tiny" / "baseline").iterdir()).name
        empty = answered(Path(folder) / "none", "compare")
        for arguments in (("compare",), ("show", newest), ("show", "baseline")):
            seconds, what = answered(root, *arguments), "an id" if newest in arguments else " ".join(arguments[1:])
            print(f"{MANY} records, labkit {arguments[0]} {what:8}  "
                  f"{seconds:5.2f} s, {seconds / empty:.1f} times an empty ledger's compare")  # fmt: skip
        os.environ["LABKIT_RUNS"] = f"{folder}/written"
        started = time.perf_counter()
        writers = [subprocess.Popen([sys.executable, "-c", WRITER]) for _ in range(2)]
        assert [writer.wait() for writer in writers] == [0, 0]
        ids = {record.id for record in Ledger(Path(folder) / "written").records()}
        print(f"two writers, 100 runs each: {len(ids)} records in {time.perf_counter() - started:.1f} s with start-up")


if __name__ == "__main__":
    main()
