"""The script that labkit writes: bash and shellcheck take it, and S2's rules hold in all of them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.cluster.batch_script import BatchScript
from labkit.cluster.examine import examine_script
from labkit.cluster.script import CACHES, EXIT_AGAIN, JobRequest, limit_s, name_of, write_script
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace

LABKIT = Path("/opt/venv/bin/labkit")


def written(folder: Path, values=(), profile="a100-80gb", typed=("xxl_lora",), **asked) -> str:
    config = resolve(Workspace.find(), "xxl_lora", dict(value.split("=") for value in values), profile).config
    request = JobRequest(project=folder / "project", **asked)
    return write_script(request, config, [*typed, *values], folder / "workspace", folder / "runs", LABKIT)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [
    {}, {"nodes": 2, "gpus": 4, "partition": "gpu", "constraint": "a100", "account": "me", "memory": "256G"},
    {"container": Path("/images/it's one.sif"), "modules": ("cuda/12", "apptainer"), "time": "2-12"},
])  # fmt: skip
@pytest.mark.parametrize("saves", ["true", "false"])
@pytest.mark.parametrize("profile", ["tiny", "a100-80gb"])
def test_bash_takes_it_and_the_doctor_finds_nothing(tmp_path, asked, saves, profile):
    (tmp_path / "workspace" / "slurm" / "logs").mkdir(parents=True)
    text = written(tmp_path, [f"enable_checkpointing={saves}"], profile, **asked)
    script = tmp_path / "it.sbatch"
    script.write_text(text)
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    found = examine_script(text, tmp_path, {}, "32-true")
    assert not [check for check in found if check.level == "red"]
    # only a GPU can be missing, and a simulated one needs none
    assert [check.name for check in found if check.level == "amber"] == (["GPUs"] if profile == "tiny" else [])


def test_tasks_and_gpus_are_told_by_node(tmp_path):
    options = BatchScript.read(written(tmp_path, nodes=2, gpus=4)).options
    assert (options["nodes"], options["ntasks-per-node"], options["gpus-per-node"]) == ("2", "4", "4")
    assert not {"ntasks", "gpus-per-task", "gpus"} & set(options)


@pytest.mark.slow
@pytest.mark.parametrize("env", [{"SLURM_GPUS_ON_NODE": "4"}, {"SLURM_NTASKS_PER_NODE": "4"}])
def test_devices_are_read_from_what_slurm_gives(tmp_path, env):
    line = next(line for line in written(tmp_path).splitlines() if line.startswith("DEVICES="))
    said = subprocess.run(["bash", "-euc", f'{line}; echo "$DEVICES"'], env=env, capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert said.stdout.strip() == "4"


@pytest.mark.slow
def test_every_cache_is_below_the_project_and_is_made(tmp_path):
    text = written(tmp_path)
    lines = [line for line in text.splitlines() if line.startswith(("export", "CACHE=", "LOGS=", "mkdir"))]
    names = " ".join(f"${name}" for name in CACHES)
    done = subprocess.run(["bash", "-euc", "\n".join([*lines, f"echo {names}"])], env={"SLURM_CPUS_PER_TASK": "1",
                          "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)  # fmt: skip
    folders = [Path(word) for word in done.stdout.split()]
    assert len(folders) == len(CACHES)
    for folder in folders:
        assert folder.is_relative_to(tmp_path / "project" / "cache") and folder.is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(("code", "queues"), [(EXIT_AGAIN, True), (0, False), (1, False)])
@pytest.mark.parametrize("saves", ["true", "false"])
def test_a_job_queues_again_only_for_a_run_that_was_saved(tmp_path, code, queues, saves):
    text = written(tmp_path, [f"enable_checkpointing={saves}"])
    calls = tmp_path / "calls"
    (tmp_path / "bin").mkdir()
    for name, body in (
        ("srun", f'[[ "$*" == *labkit* ]] && exit {code}; exit 0'),
        ("scontrol", f'echo "$@" > {calls}'),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS_PER_NODE": "1",
           "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NAME": "x", "SLURM_JOB_ID": "7"}  # fmt: skip
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert calls.exists() == (queues and saves == "true")
    assert not calls.exists() or calls.read_text() == "requeue 7\n"


def carried_out(folder, body, tasks="2", **values):
    """The script by bash, with a ``srun`` that says what two ranks say, and a ``squeue`` that knows the script."""
    (folder / "bin").mkdir()
    script = folder / "lies here" / "it.sbatch"
    script.parent.mkdir()
    script.write_text(written(folder, ["enable_checkpointing=true"]))
    commands = {"srun": f'[[ "$*" == *labkit* ]] || exit 0; {body}', "scontrol": f"touch {folder}/queued",
                "squeue": f"echo '{script}'"}  # fmt: skip
    for name, text in commands.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    env = {"PATH": f"{folder}/bin:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS_PER_NODE": "1",
           "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NAME": "x", "SLURM_JOB_ID": "7", "SLURM_NTASKS": tasks}  # fmt: skip
    spool = folder / "spool" / "slurm_script"
    spool.parent.mkdir()
    spool.write_text(script.read_text())
    return subprocess.run(["bash", str(spool)], env=env | values, cwd=spool.parent, capture_output=True, text=True,
                          check=False)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("says", "ends", "tasks", "code"), [
    ("MEMBER: 1/2", 0, "2", 0), ("MEMBER: 1/1", 0, "2", 1), ("nothing", 0, "2", 1), ("MEMBER: 1/1", 0, "1", 0),
    ("nothing", 0, "1", 0), ("MEMBER: 1/1", EXIT_AGAIN, "2", 1), ("MEMBER: 1/2", EXIT_AGAIN, "2", EXIT_AGAIN),
    ("nothing", 3, "2", 3), ("MEMBER: 1/20", 0, "2", 1),
])  # fmt: skip
def test_ranks_that_are_not_one_run_end_the_job_with_an_error(tmp_path, says, ends, tasks, code):
    done = carried_out(tmp_path, f"echo '{says}'; echo 'MEMBER: 2/2'; exit {ends}", tasks)
    assert done.returncode == code, done.stderr
    assert ("are not one run" in done.stderr) == (code == 1)
    assert (tmp_path / "queued").exists() == (code == EXIT_AGAIN)


@pytest.mark.slow
def test_a_job_prints_start_end_and_run_time_also_when_it_fails_and_works_where_its_script_lies(tmp_path):
    done = carried_out(tmp_path, "pwd; echo 'MEMBER: 1/2'; exit 9")
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("start: 2") and ", job 7 on " in first
    assert last.startswith("end: 2") and ", after 0:00:0" in last and last.endswith(", exit code 9")
    folder = tmp_path / "lies here"
    assert f"script: {folder}/it.sbatch" in done.stdout.splitlines()
    assert str(folder) in done.stdout.splitlines()  # what pwd has said


@pytest.mark.slow
def test_a_job_that_fails_before_its_run_prints_its_end_too(tmp_path):
    (tmp_path / "project").write_text("in the way of the caches")
    done = carried_out(tmp_path, "exit 0")
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1].endswith(f"exit code {done.returncode}")


def test_a_short_job_is_warned_later(tmp_path):
    def signal_of(time):
        return BatchScript.read(written(tmp_path, ["enable_checkpointing=true"], time=time)).options["signal"]

    assert (signal_of("1:00:00"), signal_of("4:00"), signal_of("4")) == ("USR1@180", "USR1@60", "USR1@60")


@pytest.mark.parametrize(("time", "seconds"), [
    ("90", 5400), ("2:30", 150), ("1:30:00", 5400), ("2-12", 216000), ("1-0:30", 88200), ("1-00:00:05", 86405),
])  # fmt: skip
def test_times_are_read_as_slurm_reads_them(time, seconds):
    assert limit_s(time) == seconds


@given(st.text(max_size=12))
def test_any_other_time_is_one_line(text):
    try:
        assert limit_s(text) > 0
    except ConfigError as error:
        assert "hours:minutes:seconds" in str(error)


@pytest.mark.parametrize(
    "asked", [{"nodes": 0}, {"gpus": -1}, {"cpus": 10**9}, {"time": "soon"}, {"partition": "a\nb"}]
)
def test_what_slurm_cannot_take_is_refused(tmp_path, asked):
    with pytest.raises(ConfigError, match="--|one word"):
        JobRequest(project=tmp_path, **asked)


@pytest.mark.parametrize(("experiment", "name"), [("xxl_lora", "xxl_lora"), ("/a/my run.yaml", "my_run")])
def test_a_job_is_called_as_its_experiment(experiment, name):
    assert name_of(experiment) == name


def test_a_place_with_blanks_and_percents_stays_one_word(tmp_path):
    folder = tmp_path / "50% mine"
    (folder / "workspace" / "slurm" / "logs").mkdir(parents=True)
    options = BatchScript.read(written(folder)).options
    assert options["output"] == f"{tmp_path}/50%% mine/workspace/slurm/logs/%x-%j.out"
