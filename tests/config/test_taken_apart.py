"""No module takes a value of ``strategy``, ``precision`` or ``device`` apart but the one that says what it means."""

import ast
from pathlib import Path

import pytest

LABKIT = Path(__file__).parents[2] / "labkit"
OF_KEY = {"strategy": "config/strategy.py", "precision": "config/precision.py", "device": "config/device.py"}
"""The module of each key. What the values mean stands in its table, and that is where others may look one up."""
TABLES = ("PLACEMENTS", "DTYPES")


def key_of(node):
    """The key whose value an expression is, as far as its name tells: ``config.strategy``, ``strategy``,
    ``config["strategy"]``, ``values.get("strategy")``, and any of them in ``str()``; None if it is none."""
    name = None
    match node:
        case ast.Call(func=ast.Name(id="str"), args=[inner]):
            return key_of(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            pass
        case ast.Subscript(slice=ast.Constant(value=name)):
            pass
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=name), *_]):
            pass
    return name if name in OF_KEY else None


def taken_apart(source):
    """Lines, with the key, where a value is compared with anything, cut, matched, or looked up in a table."""
    found = []
    for node in ast.walk(ast.parse(source)):
        keys = []
        match node:
            case ast.Compare(left=left, ops=ops, comparators=right):
                sides = [left, *right]
                names = {key_of(side) for side in sides}
                if len(names) > 1 and not all(isinstance(op, ast.Is | ast.IsNot) for op in ops):
                    keys = [key_of(side) for side in sides]
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if hasattr(str, method):
                keys = [key_of(value)]
            case ast.Call(func=ast.Attribute(value=table, attr="get"), args=[value, *_]) if not is_table(table):
                keys = [key_of(value)]
            case ast.Subscript(value=table, slice=index) if not is_table(table):
                keys = [key_of(table) if isinstance(index, ast.Slice) else key_of(index)]
            case ast.Match(subject=value):
                keys = [key_of(value)]
        found += [(node.lineno, key) for key in keys if key]
    return sorted(found)


def is_table(node):
    return isinstance(node, ast.Name) and node.id in TABLES


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(LABKIT.rglob("*.py")), ids=lambda path: str(path.relative_to(LABKIT)))
def test_a_value_is_taken_apart_in_the_module_of_its_key_only(path):
    own = path.relative_to(LABKIT).as_posix()
    found = taken_apart(path.read_text(encoding="utf-8"))
    assert [(line, key) for line, key in found if OF_KEY[key] != own] == []


@pytest.mark.slow
def test_the_name_of_the_simulated_gpu_is_written_once():
    written = {
        path.relative_to(LABKIT).as_posix()
        for path in LABKIT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in ("simulated", "virtual")
    }
    assert written == {OF_KEY["device"]}


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("config.strategy == 'fsdp'", "strategy"),
        ("'auto' != self.config.strategy", "strategy"),
        ("config.strategy in SPLITS", "strategy"),
        ("'stage_3' in config.strategy", "strategy"),
        ("config.strategy.startswith('deepspeed')", "strategy"),
        ("strategy[:3]", "strategy"),
        ("TABLE.get(strategy, 'x')", "strategy"),
        ("match config.strategy:\n    case 'ddp': pass", "strategy"),
        ("TABLE[config.precision]", "precision"),
        ("str(record.config.get('precision', '16')).startswith('16')", "precision"),
        ("record.config['device'] == 'simulated'", "device"),
        ("needs.device not in ('cuda',)", "device"),
    ],
)
def test_the_reader_sees_every_form(source, key):
    assert taken_apart(source) == [(1, key)]


@pytest.mark.parametrize(
    "source",
    [
        "RunConfig(strategy='ddp', precision=config.precision, device='cuda')",
        "f'strategy={config.strategy}'",
        "precision is None",
        "PLACEMENTS[config.strategy]",
        "DTYPES.get(str(config.get('precision')))",
        "one['precision'] == precision",
        "trainer.strategy.barrier()",
        "flat.device.type == 'cpu'",
        "config.placement.zero_stage == 3",
    ],
)
def test_the_reader_leaves_the_rest(source):
    assert taken_apart(source) == []
