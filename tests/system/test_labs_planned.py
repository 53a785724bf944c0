"""Every lab planned at full size, filled in: what someone without a GPU sees of the whole course, and what it earns.
Run by ``make test-system``.

The first planning of each real model takes a while; it is kept where the fixture ``traces`` says.
"""

from pathlib import Path

import pytest
from nbclient import NotebookClient
from support.walk import solve, untold

from labkit.config.workspace import Workspace
from labkit.grading.grade import grade
from labkit.grading.points import Points
from labkit.grading.submit import submit

FOLDER = Path(__file__).parents[2] / "labs"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, traces):
    folder = tmp_path_factory.mktemp("runs")
    (folder / ".predictions").symlink_to(traces)
    return str(folder)


def said(notebook):
    """All that the cells show, as text."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]


def lost(lab, folder):
    """What is lacking of the lab's points."""
    archive, _ = submit(Workspace.find(), "planned", folder / f"{lab}.tar.gz")
    (row,) = grade(Workspace.find(), [archive])
    points = Points()
    return {id for id in points.ids(lab) if points.of_one(lab, id, row) != points.of_one(lab, id)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lab_executes_planned_only(path, runs, monkeypatch, warm_kernels, tmp_path):
    monkeypatch.setenv("LABKIT_MODE", "plan")
    monkeypatch.setenv("LABKIT_PROFILE", "h100-94gb")
    monkeypatch.setenv("LABKIT_RUNS", runs)
    before = set(Path(runs).glob("*/*/*/config.json"))
    notebook = solve().solved(path, "h100-94gb")
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER)}}).execute()
    text = "\n".join(said(notebook))
    assert "mode: plan" in text and "h100-94gb" in text
    assert "predicted" in text
    assert "[failed]" not in text
    assert "measured on the" not in text
    assert set(Path(runs).glob("*/*/*/config.json")) == before, "something was run"
    checks = [line for line in text.splitlines() if line.startswith(("[passed]", "[not available]", "[open]"))]
    assert checks
    assert lost(path.stem, tmp_path) <= untold(path.stem)
