"""Try labkit with the oldest versions that its ranges allow, and with the newest.

    python tests/versions/try_versions.py --torch torch==2.13.0

makes an environment for each, has the course planned there at full size, compares with the runs that ship, runs a few
test files, and writes tests/benchmarks/results/versions.md. torch is named, since a loose range brings gigabytes of
CUDA; give each torch that is to be tried. Takes half an hour on 2 cores.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import tempfile
import tomllib
import venv
from datetime import UTC, datetime
from pathlib import Path

from labkit.config.workspace import Workspace
from labkit.lab.reference import read_reference

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "versions.md"
GPU = "h100-94gb"
TESTS = (
    "tests/train/test_adapters.py", "tests/train/test_quantized.py", "tests/train/test_optimizers.py",
    "tests/train/test_data.py", "tests/plan/test_paged.py", "tests/borrowed/test_fences.py",
    "tests/ledger/test_records.py", "tests/lab/test_figures.py", "tests/lab/test_form.py",
)  # fmt: skip
"""What touches libraries most: adapters, 4 bits, optimizers, data sets, private names, records, figures, widgets."""

HEAD = f"""\
# Oldest and newest versions

What `python tests/versions/try_versions.py --torch TORCH` found: labkit with the oldest releases that the ranges in
pyproject.toml allow, and with the newest there are. "planned" counts experiments of the course whose verdict and peak
on `{GPU}` are those that ship in workspace/reference, to the byte. What the allocator reserves may differ, for a
release may allocate in another order. "tests" is pytest's summary of {len(TESTS)} files. torch is the one that was
named; other releases of torch, and other Pythons, are not tried here.

"""


def ranges() -> list[str]:
    """Requirements of the core, of ``gpu`` and of ``course``, without torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["gpu"], *extras["course"]]
    return [line for line in lines if not re.match(r"(torch|labkit)\b", line)]


def of_the_tests() -> list[str]:
    """pytest and what the chosen files need beside it, as locked."""
    lines = (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(("pytest==", "hypothesis=="))]


class Environment:
    """An environment in a temporary folder."""

    def __init__(self, folder: Path, requirements: list[str]) -> None:
        venv.create(folder / "venv", with_pip=True)
        self.python = folder / "venv" / "bin" / "python"
        self.env = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(folder),
            "LABKIT_RUNS": str(folder / "runs"), "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Python with these arguments."""
        return subprocess.run([self.python, *words], cwd=ROOT, env=self.env, capture_output=True, text=True)

    def versions(self) -> dict[str, str]:
        """What is installed, by name."""
        code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        return {re.sub(r"[-_.]+", "-", k).lower(): v for k, v in json.loads(self.run("-c", code).stdout).items()}

    def planned(self) -> str:
        """How many experiments are planned as in the reference, and which are not."""
        done = self.run("-m", "labkit.cli", "plan", "--all", "--gpu", GPU, "--json")
        if done.returncode:
            return f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
        shipped = {run.name: run.record.prediction for run in read_reference(Workspace(ROOT / "workspace"), GPU)}
        rows = json.loads(done.stdout)
        other, most, apart = [], 0, 0
        for row in rows:
            there = shipped[row["experiment"]]
            if (row.get("verdict"), row.get("peak_bytes")) != (there.verdict, there.peak_bytes):
                other.append(row["experiment"])
            elif difference := abs((row["reserved_bytes"] or 0) - (there.reserved_bytes or 0)):
                apart, most = apart + 1, max(most, difference)
        said = f"{len(rows) - len(other)} of {len(rows)}{' without ' + ', '.join(other) if other else ''}"
        return f"{said}; {apart} reserve up to {most / 2**20:.0f} MiB more or less" if apart else said

    def tested(self) -> str:
        """pytest's last line, and the names of what failed. Warnings are no errors: those of other releases differ."""
        done = self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default", *TESTS)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        lines = done.stdout.strip().splitlines() or [done.stderr[-300:]]
        return re.sub(r" in [\d.]+s.*", "", lines[-1].strip("= ")) + "".join(f"; {name}" for name in failed)


def try_one(which: str, torch: str) -> tuple[dict[str, str], list[str]]:
    """Versions, and the row of the table."""
    wanted = [line.replace(">=", "==") for line in ranges()] if which == "oldest" else ranges()
    with tempfile.TemporaryDirectory(prefix=f"labkit-{which}-", ignore_cleanup_errors=True) as folder:
        made = Environment(Path(folder), [torch, *wanted, *of_the_tests()])
        versions = made.versions()
        return versions, [which, versions["torch"], made.planned(), made.tested()]


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Try both, write the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", action="append", required=True, help="requirement of torch, such as torch==2.13.0")
    parser.add_argument("--only", choices=("oldest", "newest"), help="one environment; nothing is written")
    args = parser.parse_args()
    tried, rows = {}, []
    for torch in args.torch:
        for which in (args.only,) if args.only else ("oldest", "newest"):
            versions, row = try_one(which, torch)
            tried[which] = versions
            rows.append(row)
            print(" | ".join(row), flush=True)
    if args.only:
        return
    names = sorted(re.match(r"[\w.-]+", line)[0].lower() for line in ranges())
    text = (
        HEAD + f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {cpu()}, {os.cpu_count()} cores.\n\n"
    )
    text += "| versions | torch | planned | tests |\n|---|---|---|---|\n"
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows)
    text += "\n| library | oldest | newest |\n|---|---|---|\n"
    text += "".join(f"| {name} | {tried['oldest'][name]} | {tried['newest'][name]} |\n" for name in names)
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
