"""The guide of a first hour on a GPU node: every command in it exists, and takes what it is given."""

import ast
import contextlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from command_lines import taken_by_labkit

from labkit.config.errors import ConfigError
from provisioning import cli, project, sites
from provisioning.errors import ProvisioningError

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-hour.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
SPOKEN = re.findall(r"`((?:labkit|provision|python) [^`]+)`", TEXT)
FOLDERS = {"/opt/labkit/source/tests/benchmarks", "tests/benchmarks"}
ELSEWHERE = {"nvidia-smi", "cd", "cp", "git", "grep"}
"""Programs that are not this project's."""


def known(words):
    """Whether what these words start is there and takes them; what it refuses raises or exits."""
    program, *rest = words
    if program.startswith("checks="):
        return program.removeprefix("checks=").removeprefix("$PWD/") in FOLDERS
    if program == "labkit":
        return taken_by_labkit(rest)
    if program == "provision":
        return provision(rest)
    if program == "python" and rest[0] == "-m":
        return len(rest) == 2 and importlib.util.find_spec(rest[1]) is not None
    if program == "python":
        return script(*rest)
    if program == "make":
        return re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE) is not None
    return program in ELSEWHERE


def provision(words):
    args = cli._parser().parse_args(words)
    return args.node is None or bool(sites.find_node(args.node))


def script(path, *arguments):
    """A check of the GPU: it is sent to a node, and its command line has these options."""
    name = path.replace("$checks", "tests/benchmarks")
    options = {
        node.args[0].value
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument" and node.args
        if isinstance(node.args[0], ast.Constant)
    }
    return name in project.CHECKS and {word for word in arguments if word.startswith("--")} <= options


@pytest.mark.parametrize("command", [*COMMANDS, *SPOKEN])
def test_a_command_of_the_guide_exists_and_takes_its_arguments(command):
    assert known(shlex.split(command)), command


@pytest.mark.parametrize(
    "command",
    ["labkit fetsh --data", "labkit run reduced_batch max_step=2", "labkit doctor --profile h300", "make labs",
     "labkit fetch Salesforce/blip3", "provision up ME --node g1.h101", "provision collect ME --nodes 2", "frobnicate",
     "python $checks/gpu_check.py --row", "python -m labkit.train.compiles",
     "python $checks/scaling.py", "checks=/opt/labkit/benchmarks"],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_seen(command):
    with contextlib.suppress(SystemExit, ConfigError, ProvisioningError, FileNotFoundError):  # as it is refused
        assert not known(shlex.split(command))


def test_the_guide_has_its_steps_in_order_and_is_linked():
    assert [int(n) for n in re.findall(r"^## (\d)\.", TEXT, re.MULTILINE)] == list(range(1, 9))
    for readme in ("README.md", "provisioning/README.md"):
        assert "docs/first-hour.md" in (ROOT / readme).read_text(encoding="utf-8")
    image = (ROOT / "docker" / "Dockerfile").read_text()
    assert all(f" {folder}" in image for folder in FOLDERS)
