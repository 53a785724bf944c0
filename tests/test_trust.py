"""What comes from outside is data: nothing is unpickled, evaluated or unpacked without a filter."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
ERRORS = {("pickle", "UnpicklingError")}
"""What is raised for a pickle that was refused, and what may be imported of their modules."""
BUILT_IN = {"eval", "exec"}  # model.eval() is another
FORBIDDEN = BUILT_IN | {"read_pickle", "unpack_archive"}
NEEDED = {"load": ("weights_only", True), "extractall": ("filter", "data"), "extract": ("filter", "data")}
"""Keywords that torch.load and tarfile need. A zip is read member by member and never extracted."""


def sources():
    """(name, text) of every module, and of the code in every notebook that is not a test."""
    for folder in ("labkit", "provisioning", "workspace", "labs", "docker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        for path in sorted((ROOT / folder).rglob("*.ipynb")):
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            lines = [line for cell in cells if cell["cell_type"] == "code" for line in [*cell["source"], "\n"]]
            yield str(path.relative_to(ROOT)), "".join(line for line in lines if not line.startswith(("%", "!")))


def risks(source):
    """What in a module would run or write what somebody else made."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if not (isinstance(node, ast.ImportFrom) and {(node.module, a.name) for a in node.names} <= ERRORS):
                found += [f"import {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
            if isinstance(node, ast.ImportFrom) and names[0] in ("torch", "yaml"):  # load would lose its first name
                found += [f"from {names[0]} import load" for alias in node.names if "load" in alias.name]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.split(".")[-1]
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in FORBIDDEN or name in FORBIDDEN - BUILT_IN:
            found.append(called)
        if called == "torch.load" or name in ("extractall", "extract"):
            key, value = NEEDED[name]
            if given.get(key) != repr(value):
                found.append(f"{called} without {key}={value!r}")
        if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
            found.append(f"{called} with allow_pickle or shell")
        if given.get("weights_only", "True") != "True" or given.get("trust_remote_code", "False") != "False":
            found.append(f"{called} trusts what it loads")
        if called.startswith("yaml.") and name in ("load", "load_all", "unsafe_load", "full_load"):
            loader = ast.unparse(node.args[1]) if len(node.args) > 1 else given.get("Loader", "")
            if loader not in ("_Loader", "yaml.SafeLoader"):
                found.append(f"{called} with {loader or 'no loader'}")
    return found


@pytest.mark.slow
def test_nothing_from_outside_is_unpickled_evaluated_or_unpacked_unseen():
    found = {name: risks(source) for name, source in sources()}
    assert {"labkit/cli.py", "provisioning/collect.py", "provisioning/1_reserve.ipynb"} <= found.keys()
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import torch, pickle as p", "from pickle import loads",
        "from pickle import UnpicklingError, loads",
        "def f():\n    import dill",
        "torch.load(path)", "torch.load(path, weights_only=False)", "from torch import load",
        "x.load_checkpoint(path, weights_only=False)", "np.load(path, allow_pickle=True)", "pd.read_pickle(path)",
        "eval(value)", "exec(value)", "yaml.load(text)", "yaml.load(text, yaml.Loader)", "yaml.unsafe_load(text)",
        "tar.extractall(folder)", "tar.extractall(folder, filter='tar')", "archive.extract(name)",
        "shutil.unpack_archive(path)", "subprocess.run(line, shell=True)", "A.load(x, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_check_sees_a_risk(source):
    assert risks(source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)", "np.load(path, allow_pickle=False)", "model.eval()", "json.load(file)",
        "yaml.safe_load(text)", "yaml.load(text, _Loader)", "tar.extractall(folder, filter='data')",
        "from pickle import UnpicklingError",
        "archive.read(name)", "subprocess.run(['ls'])", "import yaml\nimport torch",
    ],
)  # fmt: skip
def test_the_check_leaves_what_is_safe(source):
    assert risks(source) == []


def test_the_loader_of_yaml_makes_nothing_but_plain_values():
    import yaml

    from labkit.config.yaml_files import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    assert not [tag for tag in _Loader.yaml_constructors if tag and "python" in tag]
    assert [tag for tag in _Loader.yaml_multi_constructors if tag] == []
