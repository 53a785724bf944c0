"""What a prediction costs: one of 12 billion parameters, cold and warm, the whole course, and another capacity.

    python tests/benchmarks/prediction_cost.py [--profile h100-94gb]

Prints seconds with the machine and versions that they hold for. "cold" is the whole command, in CPU time of a new
process, over that of a process that only imports torch and the model's class, in pairs. "warm" is the second prediction
in a process that has imported torch and transformers; nothing is cached but what the operations' shapes are, which each
prediction learns once more. "again" takes the same steps from the cache, for another capacity.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict

XXL = ("xxl_sgd", "xxl_adam8bit", "xxl_lora", "xxl_qlora")
REPEATS = 3
PAIRS = 5
IMPORTS = "import torch; from transformers import Blip2ForConditionalGeneration"
COMMAND = [sys.executable, "-c", "from labkit.cli import main; main()", "plan"]


def seconds(work, *args):
    """Wall and CPU time of a call; they differ where others use the cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(*args)
    return time.perf_counter() - wall, time.process_time() - cpu


def best(work, *args):
    return min(seconds(work, *args) for _ in range(REPEATS))


def child_s(command, **env):
    """CPU seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=os.environ | env, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cold(name, profile):
    """The command in an empty folder of runs, against its imports."""
    pairs = []
    for _ in range(PAIRS):
        imports_s = child_s([sys.executable, "-c", IMPORTS])
        with tempfile.TemporaryDirectory() as folder:
            pairs.append((child_s([*COMMAND, name, "--gpu", profile], LABKIT_RUNS=folder), imports_s))
    ratios = [command / imports for command, imports in pairs]
    command_s, imports_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"{name:20} cold {command_s:5.2f} s CPU, imports {imports_s:5.2f} s, {statistics.median(ratios):.2f} times "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {PAIRS} pairs)"
    )


def afresh(config):
    return predict(config, cache=TraceCache(None))


def one(profile):
    """Warm predictions of the largest model, in this process."""
    workspace = Workspace.find()
    for name in XXL:
        config = resolve(workspace, name, None, profile).config
        afresh(config)
        wall, cpu = best(afresh, config)
        kept = TraceCache(None)
        predict(config, cache=kept)
        again, _ = best(predict, config, "h200-141gb", kept)
        print(f"{name:20} warm {wall:5.2f} s (CPU {cpu:5.2f} s), again {again:5.2f} s, {wall / again:5.1f} times")
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"memory of this process at most {peak_gib:.2f} GiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="h100-94gb")
    parser.add_argument("--one", action="store_true", help="only the predictions of one process")
    args = parser.parse_args()
    if args.one:
        one(args.profile)
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(
        f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, {versions}, {args.profile}"
    )
    subprocess.run(
        [sys.executable, __file__, "--one", "--profile", args.profile], check=True, stderr=subprocess.DEVNULL
    )
    for name in ("xxl_sgd", "xxl_lora"):
        cold(name, args.profile)
    with tempfile.TemporaryDirectory() as folder:
        command = [*COMMAND, "--all", "--gpu", args.profile]

        def plan_all():
            subprocess.run(command, env=os.environ | {"LABKIT_RUNS": folder}, check=True, capture_output=True)

        (first, _), (again, _) = seconds(plan_all), seconds(plan_all)
    print(f"plan --all           first {first:5.1f} s, again {again:5.1f} s")


if __name__ == "__main__":
    main()
