"""What more devices bring: samples a second and the peak of each rank, for every strategy.

    python tests/benchmarks/scaling.py                                          1 and 2 processes on the simulated GPU
    python tests/benchmarks/scaling.py --profile h100-94gb --devices 1 2 4      on GPUs: four H100 of 94 GB

The batch of a device stays, so that with twice the devices a perfect strategy has twice the samples a second; under
``pipeline`` all devices work on one batch. On a simulated GPU the processes share the cores of one machine, so its
seconds say nothing about GPUs. ``make bench`` runs the first line.
"""

import argparse
import os
import platform
import tempfile

from labkit.ledger.records import Record
from labkit.memory.units import human_bytes
from labkit.runs.ranks.files import side_by_side
from labkit.runs.runner import run

STRATEGIES = ("ddp", "fsdp", "pipeline")
VALUES = {"max_steps": 12, "max_epochs": 100, "dropout": 0.0, "batch_size": 8, "accumulate_grad_batches": 1}


def line(name: str, devices: int, record: Record, alone: float | None) -> str:
    """One run in a line; what went wrong, where something did."""
    if record.status != "ok":
        return f"{name:12} {devices}  {record.status}: {record.reason}"
    speed = record.samples / record.train_seconds
    peaks = [row["peak_bytes"] for row in side_by_side(record)] or [record.peak_bytes]
    scaled = f"{speed / alone:5.2f} x" if alone else "       "
    return (
        f"{name:12} {devices}  {speed:8.1f} samples/s {scaled}   peak of each rank {', '.join(map(human_bytes, peaks))}"
    )


def main() -> None:
    """Run every strategy on every number of devices and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LABKIT_RUNS"] = folder
        first = run("bf16_true", VALUES, args.profile)
        versions = f"Python {platform.python_version()}, torch {first.versions.get('torch')}"
        print(f"{first.device}, {os.cpu_count()} cores, {versions}, profile {args.profile}")
        print(line("one device", 1, first, None), flush=True)
        alone = first.samples / first.train_seconds if first.train_seconds else None
        for devices in (n for n in args.devices if n > 1):
            for strategy in STRATEGIES:
                record = run("bf16_true", VALUES | {"devices": devices, "strategy": strategy}, args.profile)
                print(line(strategy, devices, record, alone), flush=True)


if __name__ == "__main__":
    main()
