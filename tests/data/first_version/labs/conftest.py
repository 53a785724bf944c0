"""For pytest alone: of the notebooks of then those are executed whose code is not that of a notebook of today."""

from pathlib import Path

from support.walk import code_of

LABS = Path(__file__).parents[4] / "labs"
collect_ignore = [
    str(path) for path in Path(__file__).parent.glob("*.ipynb") if code_of(path) == code_of(LABS / path.name)
]
