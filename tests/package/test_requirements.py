"""What the package declares: ranges that the locks satisfy, and a room for everything that labkit imports."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from labkit.config.extras import EXTRAS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE, GROUPS = PROJECT["dependencies"], PROJECT["optional-dependencies"]
OF_THE_SERVER = {"jupyter_server", "tornado", "IPython"}
"""Imported by what only JupyterLab's server or a kernel loads, which bring them."""


def pins(*files):
    found = (
        re.match(r"([\w.-]+)==([^\s;]+)", line) for file in files for line in (ROOT / file).read_text().split("\n")
    )
    return {canonicalize_name(pin[1]): pin[2] for pin in found if pin}


def needs(lines):
    """Requirements of the core or of an extra, those of an extra that it takes in among them."""
    found = [Requirement(line) for line in lines]
    assert all(need.name != "labkit" or need.extras <= set(GROUPS) for need in found)
    taken = [line for need in found if need.name == "labkit" for extra in need.extras for line in GROUPS[extra]]
    return [need for need in found if need.name != "labkit"] + (needs(taken) if taken else [])


@pytest.mark.parametrize(
    ("group", "lock"),
    [("core", "requirements.txt"), ("course", "requirements.txt"), ("gpu", "requirements.txt"),
     ("dev", "tests/requirements.txt"), ("chi", "provisioning/requirements.in")],
)  # fmt: skip
def test_the_lock_satisfies_every_range(group, lock):
    pinned = pins(lock)
    wanted = needs(CORE if group == "core" else GROUPS[group])
    assert wanted
    for need in wanted:
        assert need.specifier.contains(pinned[canonicalize_name(need.name)]), need


def test_the_core_has_lower_bounds_and_no_upper_ones_and_no_address():
    for need in needs(CORE):
        assert [clause.operator for clause in need.specifier] == [">="], need
        assert need.url is None and need.marker is None, need


def test_the_lock_of_make_is_all_pins_and_holds_the_core_and_the_course():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) == len(pins("requirements.txt"))
    named = {canonicalize_name(need.name) for need in (*needs(CORE), *needs(GROUPS["course"]))}
    assert named <= set(pins("requirements.txt"))


@pytest.mark.slow
def test_what_labkit_imports_is_in_the_core_or_in_the_extra_that_a_missing_library_names():
    distributions = metadata.packages_distributions()
    core = {canonicalize_name(need.name) for need in needs(CORE)}
    for path in (ROOT / "labkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.partition(".")[0] for name in names} - {"labkit", *sys.stdlib_module_names}:
                brought = {canonicalize_name(name) for name in distributions.get(top, [top])}
                if top in EXTRAS:
                    assert brought & {canonicalize_name(need.name) for need in needs(GROUPS[EXTRAS[top]])}, top
                    assert not brought & core, f"{top} is in the core and in an extra"
                else:
                    assert top in OF_THE_SERVER or brought & core, f"{path}: {top}"


def test_make_installs_the_lock_and_resolves_nothing_for_the_package():
    make = (ROOT / "Makefile").read_text()
    assert "pip install --quiet -r requirements.txt -r tests/requirements.txt\n" in make
    assert "pip install --quiet --no-deps --editable .\n" in make
