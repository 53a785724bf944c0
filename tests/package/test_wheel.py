"""The wheel: what is in it, and that it predicts in an environment that has the core alone.

tests/system/test_installed.py has the whole course planned there.
"""

import json
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from linked import Linked

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PLANNED = "xxl_qlora"
DATA = ("configs/*.yaml", "profiles/*.yaml", "reference/*.json")


@pytest.fixture(scope="module")
def planned(installed):
    """A prediction with adapters and weights in 4 bits, made in a folder that cannot be written."""
    return installed.run("plan", PLANNED, "--gpu", "tiny", "--json", cwd=Path("/proc"))


@pytest.fixture(scope="module")
def skipped(installed):
    return installed.run("run", "xxl_cpu_offload", "--json")


def one_line(done, code):
    """The text of an error: one line, no trace, the exit code as it should be."""
    text = done.stderr.strip()
    assert (done.returncode, len(text.splitlines()), done.stdout) == (code, 1, ""), done.stderr
    return text


def test_the_wheel_has_all_of_labkit_and_the_courses_workspace(built):
    with zipfile.ZipFile(built) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    wanted = {str(path.relative_to(ROOT)) for path in (ROOT / "labkit").rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    workspace = [path for pattern in DATA for path in (ROOT / "workspace").glob(pattern)]
    assert len(workspace) > 30
    wanted |= {f"labkit/{path.relative_to(ROOT)}" for path in workspace} | {"labkit/workspace/finetune.py"}
    assert names == wanted


def test_the_environment_has_the_core_and_no_extra(installed):
    assert {"torch", "transformers", "lightning", "peft"} <= set(installed.libraries)
    others = {"deepspeed", "datasets", "matplotlib", "ipywidgets", "jupyterlab", "ipython", "pytest"}
    assert not others & set(installed.libraries)


def test_version_configs_and_profiles_are_those_of_the_checkout(installed):
    version = metadata.version("labkit")
    assert installed.run("--version").stdout == f"labkit {version}\n"
    workspace = Workspace(ROOT / "workspace")
    configs = json.loads(installed.run("configs", "--json").stdout)
    assert {row["experiment"] for row in configs} == {path.stem for path in workspace.configs.glob("*.yaml")}
    profiles = json.loads(installed.run("profiles", "--json").stdout)
    assert {row["profile"] for row in profiles} == {path.stem for path in workspace.profiles.glob("*.yaml")}


def test_a_prediction_is_that_of_the_checkout(planned, tmp_path):
    assert planned.returncode == 0, planned.stderr
    found = json.loads(planned.stdout)
    config = resolve(Workspace(ROOT / "workspace"), PLANNED).config
    here = predict(config, cache=TraceCache(tmp_path))
    assert (found["verdict"], found["peak_bytes"]) == (here.verdict, here.peak_bytes)
    assert found["peak_by_category"] == here.category_peaks


def test_a_run_that_needs_an_extra_says_which_on_one_line(skipped):
    record = json.loads(skipped.stdout)
    assert (skipped.returncode, record["status"], skipped.stderr) == (0, "skipped", "")
    assert record["reason"].endswith("deepspeed is not installed: pip install 'labkit[gpu]'")
    assert len(record["reason"].splitlines()) == 1


def test_nothing_is_written_but_in_the_folders_of_xdg(installed, planned, skipped):
    folders = {name.rpartition("labkit/")[0] + "labkit/" + name.rpartition("labkit/")[2].split("/")[0]
               for name in installed.written()}  # fmt: skip
    assert folders == {".cache/labkit/predictions", ".local/share/labkit/runs"}


def test_doctor_compares_with_the_ranges_of_the_package(installed):
    checks = json.loads(installed.run("doctor", "--json").stdout)["checks"]
    (versions,) = [check for check in checks if check["name"] == "versions"]
    assert versions["level"] == "green"
    assert versions["found"] == f"{len(metadata_names(installed))} packages in the ranges of labkit 0.2.0"


def metadata_names(installed):
    return {line.split(">=")[0] for line in installed.requires if "extra ==" not in line}


def test_the_packages_own_workspace_is_not_written_to(installed):
    text = one_line(installed.run("profiles", "make", "--gpu", "24GiB"), 2)
    assert text.endswith(f"cp -r {installed.site / 'labkit' / 'workspace'} workspace")


def test_without_its_data_the_wheel_says_so(built, tmp_path):
    damaged = tmp_path / built.name
    with zipfile.ZipFile(built) as whole, zipfile.ZipFile(damaged, "w") as part:
        for name in whole.namelist():
            if not name.startswith("labkit/workspace/configs/"):
                part.writestr(name, whole.read(name))
    text = one_line(Linked(tmp_path / "installed", damaged).run("configs"), 2)
    assert text.startswith("error: no workspace in ")
