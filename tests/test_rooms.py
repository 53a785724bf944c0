"""The rooms of labkit: which may import which, what stays light, and what no module is called."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.plan.cache import ROOMS

ROOT = Path(__file__).parents[1]
LABKIT = ROOT / "labkit"
MODULES = sorted(LABKIT.rglob("*.py"))

FRONT_DESK = "front desk"  # cli.py and __init__.py, which may import anything and which no room imports
MAY_IMPORT = {
    "assets": set(),
    "borrowed": set(),
    "config": set(),
    "memory": {"config", "borrowed"},
    "families": {"config", "memory", "assets", "borrowed"},
    "train": {"config", "memory", "families", "assets", "borrowed"},
    "plan": {"config", "memory", "families", "train", "borrowed"},
    "ledger": {"config", "memory", "plan"},
    "help": {"config", "memory", "plan", "ledger", "borrowed"},
    "runs": {"config", "memory", "plan", "ledger", "help"},
    "cluster": {"config", "memory", "ledger", "help", "runs"},
    "lab": {"config", "memory", "plan", "ledger", "help", "runs"},
    "grading": {"config", "memory", "ledger", "lab"},
    "verbs": {"config", "memory", "train", "plan", "ledger", "help", "runs", "cluster", "lab", "grading"},
    FRONT_DESK: {"config", "memory", "train", "plan", "ledger", "runs", "cluster", "verbs"},
}
HEAVY = {"torch", "lightning", "transformers", "numpy", "bitsandbytes", "datasets", "rich"}


def room_of(parts):
    """The room of a module by the parts of its name below ``labkit``."""
    return parts[0] if parts and (LABKIT / parts[0]).is_dir() else FRONT_DESK


def parts_of(path):
    parts = path.relative_to(LABKIT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported_rooms(source, package):
    """Rooms that a module imports from, anywhere in it; ``package`` has the parts that relative imports start at."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ("labkit", *package)[: len(package) + 2 - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            # "from labkit import assets" names a room, "from labkit.memory import report" has named it already
            names += [f"{module}.{alias.name}" for alias in node.names]
    return {room_of(name.split(".")[1:]) for name in names if name.split(".")[0] == "labkit"}


def ids(path):
    return str(path.relative_to(LABKIT))


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_go_one_way(path):
    parts = parts_of(path)
    room = room_of(parts)
    package = parts if path.stem == "__init__" else parts[:-1]
    found = imported_rooms(path.read_text(encoding="utf-8"), package) - {room}
    assert found <= MAY_IMPORT[room], f"{room} may import from {sorted(MAY_IMPORT[room])}"


def test_every_folder_is_a_room_of_the_table():
    rooms = {path.name for path in LABKIT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(MAY_IMPORT) - {FRONT_DESK}
    assert {path.stem for path in LABKIT.glob("*.py")} <= {"__init__", "__main__", "cli"}


def test_the_arrows_of_the_table_make_no_circle():
    def above(room, seen):
        assert room not in seen
        for other in MAY_IMPORT[room]:
            above(other, (*seen, room))

    for room in MAY_IMPORT:
        above(room, ())


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import labkit.train.fit", {"train"}),
        ("import torch, labkit.ledger.records as r", {"ledger"}),
        ("from labkit.memory.report import MemoryReport", {"memory"}),
        ("from labkit import assets", {"assets"}),
        ("from labkit import run", {FRONT_DESK}),
        ("from labkit.cli import main", {FRONT_DESK}),
        ("def f():\n    from labkit.train import fit", {"train"}),
        ("from .report import MemoryReport", {"memory"}),
        ("from . import report", {"memory"}),
        ("from ..train import fit", {"train"}),
        ("from .. import train", {"train"}),
        ("import torch\nfrom torch import nn\nimport labkitten", set()),
    ],
)
def test_the_reader_of_imports_sees_every_form(source, rooms):
    assert imported_rooms(source, ("memory",)) == rooms


def test_no_module_is_called_utils():
    names = {part for path in MODULES for part in parts_of(path)}
    assert not {name for name in names if "util" in name or name in ("helpers", "common", "misc")}


KNOWS_BLIP2 = re.compile(r"blip|q-?former", re.IGNORECASE)
MAY_KNOW_BLIP2 = ("families/", "config/catalogue/", "lab/lessons/")
PATTERNS_OF_OTHERS = "help/diagnosis/place.py"  # names of models in other people's logs


def names_blip2(path):
    where = path.relative_to(LABKIT).as_posix()
    return not where.startswith(MAY_KNOW_BLIP2) and KNOWS_BLIP2.search(path.read_text(encoding="utf-8")) is not None


def test_only_the_family_and_the_catalogue_and_the_lessons_name_blip_2():
    assert [ids(path) for path in MODULES if names_blip2(path)] == [PATTERNS_OF_OTHERS]


def loaded_after(code):
    """Top-level names of all modules that a fresh interpreter has loaded after ``code``."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import labkit, labkit.cli",
        "import labkit.runs.runner, labkit.ledger.compare",
        "from labkit.config.layers import resolve, course\n"
        "from labkit.config.workspace import Workspace\n"
        "from labkit.config.datasets import find_dataset\n"
        "from pathlib import Path\n"
        "w = Workspace(Path('workspace'))\n"
        "for e in course(w):\n"
        "    for p in ('tiny', 'h100-94gb', 'a100-80gb'):\n"
        "        resolve(w, e.name, {'max_steps': '3'}, p).config.hash\n"
        "find_dataset('fluent_emoji', w.data)",
        "from labkit.config.schema import coerce, key_docs\n"
        "key_docs()\n"
        "try:\n"
        "    coerce('batchsize', '1')\n"
        "except ValueError:\n"
        "    pass",
    ],
    ids=["command line", "runner", "resolving the course", "a config error"],
)
def test_nothing_heavy_is_imported_before_a_run_starts(code):
    loaded = loaded_after(code)
    assert "labkit" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.slow
def test_the_check_for_heavy_imports_sees_one():
    assert "numpy" in loaded_after("import labkit, numpy")


def test_a_prediction_is_made_again_after_an_edit_of_any_room_that_it_executes():
    assert set(ROOMS) == {"plan"} | MAY_IMPORT["plan"]
