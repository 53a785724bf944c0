"""What a prediction costs: one of 12 billion parameters, its memory, the whole course, and another capacity.

    python tests/benchmarks/prediction_cost.py [--profile h100-94gb]

Prints seconds with the machine and versions that they hold for. "warm" is the second prediction in a process that has
imported torch and transformers; nothing is cached but what the operations' shapes are, which each prediction learns
once more. "again" takes the same steps from the cache, for another capacity.
"""

import argparse
import os
import platform
import resource
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


def seconds(work, *args):
    """Wall and CPU time of a call; they differ where others use the cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    work(*args)
    return time.perf_counter() - wall, time.process_time() - cpu


def best(work, *args):
    return min(seconds(work, *args) for _ in range(REPEATS))


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
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from labkit.cli import main; main()", "plan", "--all", "--gpu", args.profile]

        def plan_all():
            subprocess.run(command, env=os.environ | {"LABKIT_RUNS": folder}, check=True, capture_output=True)

        (first, _), (again, _) = seconds(plan_all), seconds(plan_all)
    print(f"plan --all           first {first:5.1f} s, again {again:5.1f} s")


if __name__ == "__main__":
    main()
