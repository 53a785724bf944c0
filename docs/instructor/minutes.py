"""Minutes: how long each lab takes a student who thinks, estimated from what it asks for.

    .venv/bin/python docs/instructor/minutes.py

What a part takes are assumptions, written down here; the time that runs take on the simulated GPU is not in them.
"""

import re
from pathlib import Path

import nbformat

LABS = Path(__file__).parents[2] / "labs"

WORDS_A_MINUTE = 180
PARTS = {
    r"lab\.ask\(": 1.0, r"lab\.derive\(": 3.0, r"lab\.plot\(|lab\.full_size\(": 0.75, r"lab\.write\(": 6.0,
    r"lab\.quiz\(": 10.0, r'lab\.check\("yours': 2.0,
}  # fmt: skip
"""Minutes for each question, derivation, figure, the three exercises, the ten questions, and each choice."""
OUTPUT = 0.25
"""Minutes to read what a cell shows."""


def minutes(path: Path) -> float:
    """The estimate for one notebook."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    asked = sum(count * len(re.findall(part, source)) for source in code for part, count in PARTS.items())
    return words / WORDS_A_MINUTE + OUTPUT * len(code) + asked


def said(path: Path) -> int:
    """What the notebook says of itself."""
    return int(re.search(r"\*\*Minutes:\*\* about (\d+)", path.read_text(encoding="utf-8"))[1])


def main() -> None:
    """Print both for every lab."""
    for path in sorted(LABS.glob("*.ipynb")):
        print(f"{path.stem:28} says {said(path):3}, estimated {minutes(path):5.1f}")


if __name__ == "__main__":
    main()
