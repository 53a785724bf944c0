"""Solve: the notebooks as a student hands them in who has thought about everything.

    .venv/bin/python docs/instructor/solve.py FOLDER

writes a copy of each notebook with the answers of ``solutions/``: of questions, tasks and exercises, as they are on the
simulated GPU. It needs nothing but what the course needs.
"""

import ast
import re
import sys
from pathlib import Path

import nbformat
import yaml

HERE = Path(__file__).parent
LABS = HERE.parents[1] / "labs"
SOLUTIONS = HERE / "solutions"


def solved(path: Path, profile: str = "tiny") -> nbformat.NotebookNode:
    """The notebook with everything filled in, by what is right on a profile: that of a laptop, or ``h100-94gb``.

    ``ValueError`` where notebook and solution do not belong together.
    """
    notebook = nbformat.read(path, as_version=4)
    solution = yaml.safe_load((SOLUTIONS / f"{path.stem}.yaml").read_text(encoding="utf-8"))
    other = solution.get(profile, {})
    solution["answers"] |= other.get("answers", {})
    solution["cells"] = list((dict(solution["cells"]) | dict(other.get("cells", []))).items())
    places = [(f'lab.ask("{id}", answer=...)', f'lab.ask("{id}", answer={value!r})')
              for id, value in solution["answers"].items()]  # fmt: skip
    places += [(find, put) for find, put in solution["cells"]]
    texts = {number: " ".join(text.split()) for number, text in solution["exercises"].items()}
    written = f"lab.write(first={texts[1]!r}, second={texts[2]!r}, third={texts[3]!r})"
    places.append(("lab.write(first=..., second=..., third=...)", written))
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for find, put in places:
        found = [cell for cell in cells if find in cell.source]
        if len(found) != 1:
            raise ValueError(f"{path.name}: {find!r} is in {len(found)} cells, not in one")
        found[0].source = found[0].source.replace(find, put)
    for cell in cells:
        if any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(ast.parse(cell.source))):
            left = re.search(r".*\.\.\..*", cell.source)
            raise ValueError(f"{path.name}: nothing is filled in for {left.group() if left else cell.source!r}")
    return notebook


def main(folder: Path) -> None:
    """Write all of them to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(LABS.glob("*.ipynb")):
        nbformat.write(solved(path), folder / path.name)
        print(folder / path.name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
