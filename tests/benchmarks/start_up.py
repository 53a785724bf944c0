"""How long the command takes to answer, against starting Python alone. ``make bench`` runs it.

Claim: help and a config error answer in well under half a second, since nothing heavy is imported.
"""

import platform
import statistics
import subprocess
import sys
import time

REPEATS = 15
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "labkit --help": [sys.executable, "-m", "labkit.cli", "--help"],
    "labkit run, unknown key": [sys.executable, "-m", "labkit.cli", "run", "reduced_batch", "batchsize=8"],
    "labkit run --show-config": [sys.executable, "-m", "labkit.cli", "run", "reduced_batch", "--show-config"],
}


def main() -> None:
    """Measure every command in turn, many times over, and print medians and ratios."""
    seconds = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=False)
            seconds[name].append(time.perf_counter() - started)
    base = statistics.median(seconds["python -c pass"])
    print(f"Python {platform.python_version()}, median of {REPEATS}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:28} {median:6.3f} s   {median / base:4.1f} x python")


if __name__ == "__main__":
    main()
