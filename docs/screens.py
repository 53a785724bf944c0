"""Pictures of what the command prints in a terminal of 100 columns, drawn by rich from what it printed.

    labkit run --all && python docs/screens.py

Writes ``docs/compare.svg`` from the newest runs of the ledger, and ``docs/plan.svg``.
"""

import io
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 100
SCREENS = {"compare": ["compare"], "plan": ["plan", "--all", "--gpu", "h100-94gb"]}


def draw(command: list[str], path: Path) -> None:
    """Run ``labkit`` with these arguments, and write a picture of what it printed."""
    env = os.environ | {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "labkit.cli", *command], capture_output=True, encoding="utf-8", env=env, check=True
    )
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    said = "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("Records: "))
    console.print(Text.from_ansi(f"$ labkit {' '.join(command)}\n{said}"))  # without the folder of who draws it
    # named, so that the same text makes the same file
    console.save_svg(str(path), title="labkit", unique_id=path.stem)


if __name__ == "__main__":
    for name, arguments in SCREENS.items():
        draw(arguments, Path(__file__).with_name(f"{name}.svg"))
