"""A real Slurm with two nodes: the script that labkit writes, and the scripts that others have written wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_rig import GPUS, Cluster
from support.wait import wait_for

from labkit.cluster.examine import examine_script
from labkit.config.workspace import Workspace
from labkit.help.diagnosis.diagnose import diagnose_log
from labkit.ledger.ledger import Ledger
from labkit.ledger.records import Record
from labkit.ledger.run_folder import RunFolder
from labkit.runs.processes import processes_of

WAIT_S = 420
LABKIT = str(Path(sys.executable).with_name("labkit"))
STEPS_AN_EPOCH = 7
"""Of 128 samples 12 are for validation; 116 make 14 batches of two ranks with 4 each, and 7 steps of two."""
DDP = ("reduced_batch", "strategy=ddp", "batch_size=4")


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def site(cluster, tmp_path_factory):
    """The environment of a user of the cluster: a home, a workspace and a ledger of their own."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(Workspace.find().root, folder / "workspace", ignore=shutil.ignore_patterns("runs", "data", "slurm"))
    (folder / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST"))}
    path = f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | cluster.environment | {
        "HOME": str(folder / "home"), "LABKIT_WORKSPACE": str(folder / "workspace"), "PATH": path,
        "LABKIT_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip


def labkit(site, *argv: str, code: int = 0) -> str:
    done = subprocess.run([LABKIT, *argv], env=site, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def run_as_job(site, *argv: str) -> Record:
    return Record.from_dict(json.loads(labkit(site, "slurm", *argv, "--follow", "--json")))


def gpu_files(site, record: Record) -> list[str]:
    logs = Path(site["LABKIT_WORKSPACE"], "slurm", "logs")
    return sorted(path.name.rpartition("-")[2] for path in logs.glob(f"*-{record.job}-gpus-*.csv"))


def printed_by(site, record: Record) -> str:
    logs = Path(site["LABKIT_WORKSPACE"], "slurm", "logs")
    return "".join(path.read_text() for path in logs.glob(f"*-{record.job}.out"))


@pytest.fixture(scope="module")
def two_tasks(site):
    """One node with two tasks."""
    return run_as_job(site, *DDP, "max_steps=3", "--gpus", "2")


def test_two_tasks_of_one_node_are_one_run(site, two_tasks):
    assert (two_tasks.status, len(two_tasks.losses), two_tasks.samples) == ("ok", 3, 24)
    assert [rank.status for rank in two_tasks.ranks] == ["ok"]
    assert "MEMBER: 1/2" in printed_by(site, two_tasks)
    assert gpu_files(site, two_tasks) == []  # there is no nvidia-smi
    folder = Ledger(Path(site["LABKIT_RUNS"])).find(two_tasks.id).path
    # Lightning's own words, which has them from Slurm: no one has set RANK or WORLD_SIZE
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in (folder / "log.rank1.txt").read_text()
    caches = Path(site["LABKIT_WORKSPACE"], "slurm", "cache")
    assert (caches / "huggingface").is_dir()
    assert not list(Path(site["HOME"]).rglob("*"))


def test_tasks_of_two_nodes_train_as_those_of_one_and_their_gpus_are_watched(site, two_tasks, stand_in):
    stand_in("nvidia-smi", 'echo "$*"; for i in 1 2 3; do echo "2026/01/02, 0, 50 %, 1 MiB, 2 MiB"; done')
    record = run_as_job(site, *DDP, "max_steps=3", "--nodes", "2")
    assert (record.config["devices"], record.config["num_nodes"], record.status) == (1, 2, "ok")
    assert record.losses == two_tasks.losses
    assert gpu_files(site, record) == [f"{node}.csv" for node in sorted(GPUS)]
    logs = Path(site["LABKIT_WORKSPACE"], "slurm", "logs")
    lines = next(logs.glob(f"*-{record.job}-gpus-n2.csv")).read_text().splitlines()
    assert "--query-gpu=timestamp,index,utilization.gpu,memory.used,memory.total" in lines[0]
    assert "--loop=5" in lines[0] and len(lines) == 4


def test_two_tasks_on_each_of_two_nodes_are_one_run(site):
    record = run_as_job(site, *DDP, "max_steps=3", "--nodes", "2", "--gpus", "2")
    assert (record.status, record.samples) == ("ok", 48)
    assert [rank.status for rank in record.ranks] == ["ok"] * 3


def test_tasks_that_believe_they_are_alone_end_the_job_with_an_error(site, tmp_path):
    # the shell that submits was once a rank, and Slurm hands its environment on
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_PORT": "29500"}
    script = labkit(site, "slurm", *DDP, "max_steps=3", "seed=9", "--gpus", "2").splitlines()[0]
    (tmp_path / "elsewhere").mkdir()
    output = tmp_path / "job.out"
    done = subprocess.run(["sbatch", "--wait", f"--output={output}", script], env=site | alone, timeout=WAIT_S,
                          cwd=tmp_path / "elsewhere", check=False, capture_output=True)  # fmt: skip
    printed = output.read_text()
    assert done.returncode != 0
    assert printed.count("WORLD_SIZE=1 says that this process is alone, and it is one of 2 tasks") == 2
    assert printed.startswith("start: ") and f"script: {script}" in printed.splitlines()
    assert re.fullmatch(r"end: \S+, after 0:\d\d:\d\d, exit code [1-9]\d*", printed.splitlines()[-1])


@pytest.fixture
def stand_in(site):
    """Makes commands on the PATH of jobs, for the time of a test."""
    folder = Path(site["HOME"]).parent / "bin"
    folder.mkdir()

    def make(name: str, body: str) -> None:
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)

    yield make
    shutil.rmtree(folder)


def test_devices_are_those_that_slurm_gives_also_in_a_container(site, stand_in, tmp_path):
    calls = tmp_path / "calls"
    stand_in("module", f'echo "module $*" >> {calls}')
    stand_in("apptainer", f'echo "$1 $2 $3 $5 $6" >> {calls}; shift 5; exec "$@"')  # exec --nv --bind PATHS IMAGE ...
    record = run_as_job(
        site, *DDP, "dataset=fluent_emoji", "weights=random", "--profile", "a100-80gb", "--gpus", "2", "--constraint",
        "a100", "--container", "/images/image.sif", "--module", "cuda",
    )  # fmt: skip
    assert record.config["devices"] == 2
    assert (record.status, record.reason[:11]) == ("skipped", "device=cuda")  # the nodes have no GPU that computes
    assert calls.read_text().splitlines() == ["module load cuda", *["exec --nv --bind /images/image.sif labkit"] * 2]


def begun(site, values: list[str], *asked: str) -> tuple[str, RunFolder]:
    """Submit a run; the job, and the run's folder when it has made a step."""
    job = json.loads(labkit(site, "slurm", *values, *asked, "--submit", "--json"))["job"]
    ledger = Ledger(Path(site["LABKIT_RUNS"]))
    found: list[RunFolder] = []
    wait_for(lambda: found.extend(f for f in ledger.folders("tiny") if f.read().job == job) or found, WAIT_S)
    wait_for(lambda: found[0].read().losses, WAIT_S)
    return job, found[0]


def test_a_job_whose_time_is_over_saves_queues_again_and_resumes_as_if_nothing_had_been(site, cluster):
    values = [*DDP, "dropout=0.1", "num_train_samples=128", "val_fraction=0.1", "accumulate_grad_batches=2",
              "report_every=1000", "save_every=100000"]  # fmt: skip
    job, folder = begun(site, [*values, "max_epochs=10000"], "--gpus", "2", "--time", "0:02:30")
    wait_for(lambda: folder.read().attempts, WAIT_S)
    (attempt,) = folder.read().attempts
    saved = attempt.resumed_at_step
    assert attempt.status == "timeout"
    # nothing but the signal has had it saved
    assert (
        attempt.reason
        == f"stopped before the job's time was over; step-{saved:06} is saved, and the same command resumes there"
    )
    wait_for(lambda: len(folder.read().losses) > saved + 20, WAIT_S)
    assert "Restarts=1 " in cluster.command("scontrol", "--oneliner", "show", "job", job)
    cluster.command("scancel", job)
    wait_for(lambda: not folder.is_watched, WAIT_S)
    resumed = folder.read()
    epochs = -(-(saved + 20) // STEPS_AN_EPOCH)
    once = json.loads(labkit(site | {"LABKIT_RUNS": site["LABKIT_RUNS"] + "-once"}, "run", *values, "devices=2",
                             f"max_epochs={epochs}", "enable_checkpointing=true", "--json"))  # fmt: skip
    assert once["status"] == "ok"
    assert resumed.losses[: saved + 20] == once["losses"][: saved + 20]
    whole = saved // STEPS_AN_EPOCH
    assert resumed.validation_losses[:whole] == once["validation_losses"][:whole]


def test_a_cancelled_job_leaves_a_record_and_no_process(site, cluster):
    job, folder = begun(site, [*DDP, "seed=7", "max_epochs=100000"], "--gpus", "2")
    cluster.command("scancel", job)
    labkit(site, "slurm", "--job", job, code=1)
    record = folder.read()
    assert record.status == "killed"
    assert record.reason.startswith("interrupted by SIGTERM")
    wait_for(lambda: not processes_of(folder.path), WAIT_S)


# -- scripts of others

TRAINER = """\
import os, torch
if "CUDA_VISIBLE_DEVICES" in os.environ and "gpu" in os.environ["ACCELERATOR"]:
    # no GPU of this machine computes; how many Slurm shows to a task is real
    seen = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    torch.cuda.device_count, torch.cuda.is_available = lambda: len(seen), lambda: True
    torch.cuda.get_device_properties = lambda *a: None
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
trainer = Trainer(devices=2, accelerator=os.environ["ACCELERATOR"], strategy="ddp", max_steps=2, logger=False,
                  enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
if os.environ["ACCELERATOR"] == "cpu":
    trainer.fit(BoringModel())
print("trained", trainer.global_step)
"""
CACHES = "export HF_HOME=$PROJECT/hf TORCH_HOME=$PROJECT/torch TRITON_CACHE_DIR=$PROJECT/triton TMPDIR=$PROJECT/tmp"
OTHERS = {
    "ntasks": (["--nodes=1", "--ntasks=2", "--gpus-per-node=2"], "cpu", "You set `--ntasks=2`", "tasks",
               "#SBATCH --ntasks-per-node=2", "slurm_ntasks"),
    "gpus-per-task": (["--nodes=1", "--ntasks-per-node=2", "--gpus-per-task=1"], "gpu", "But your machine only has:",
                      "GPUs", "#SBATCH --gpus-per-node=2", "slurm_devices"),
    "devices": (["--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=2"], "cpu", "does not match", "devices",
                "#SBATCH --ntasks-per-node=2", "slurm_mismatch"),
}  # fmt: skip
"""Directives, what trains, what Lightning says, which check of the doctor is red, the right line, the diagnosis."""


def submit(site, folder: Path, name: str, text: str) -> Path:
    """Submit a script and wait for its end; what the job printed."""
    script = folder / f"{name}.sbatch"
    script.write_text(text)
    subprocess.run(["sbatch", "--wait", f"--output={folder}/{name}.out", str(script)], env=site, cwd=folder,
                   timeout=WAIT_S, check=False, capture_output=True)  # fmt: skip
    return folder / f"{name}.out"


def script_of(directives: list[str], body: str) -> str:
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in [*directives, "--time=5"]), CACHES, body, ""])


@pytest.mark.parametrize("mistake", OTHERS)
def test_a_mistake_is_explained_beforehand_and_comes_true(site, tmp_path, mistake):
    directives, accelerator, said, check, fix, kind = OTHERS[mistake]
    (tmp_path / "train.py").write_text(TRAINER)
    body = f"export ACCELERATOR={accelerator}\nsrun {sys.executable} {tmp_path}/train.py trainer.devices=2"
    text = script_of(directives, body)
    red = [found for found in examine_script(text, tmp_path, site) if found.level == "red"]
    assert [found.name for found in red] == [check]
    assert red[0].fix.startswith(fix)
    output = submit(site, tmp_path, mistake, text)
    assert said in " ".join(output.read_text().split())
    assert diagnose_log(output.read_text()).kind == kind
    # what the doctor said in the place of the line that was wrong
    wrong = {"ntasks": "--ntasks=2", "gpus-per-task": "--gpus-per-task=1", "devices": "--ntasks-per-node=1"}[mistake]
    fixed = text.replace(f"#SBATCH {wrong}", fix)
    assert not [found for found in examine_script(fixed, tmp_path, site) if found.level == "red"]
    assert submit(site, tmp_path, f"{mistake}-fixed", fixed).read_text().count("trained") == 2


def test_caches_that_no_one_moves_are_in_the_home_folder(site, tmp_path):
    where = f'srun {sys.executable} -c "import huggingface_hub.constants as c; print(c.HF_HOME)"'
    text = script_of(["--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1"], where).replace(CACHES, "")
    (found,) = [check for check in examine_script(text, tmp_path, site) if check.name == "caches"]
    assert (found.level, found.fix.partition("=")[0]) == ("amber", "export HF_HOME")
    assert submit(site, tmp_path, "caches", text).read_text().startswith(site["HOME"])
    fixed = text.replace("srun", f"{found.fix.replace('/PROJECT', str(tmp_path))}\nsrun", 1)
    assert submit(site, tmp_path, "fixed", fixed).read_text().strip() == str(tmp_path / "cache" / "huggingface")


def test_bf16_on_a_v100_is_refused_before_the_run(site, tmp_path):
    run = f"srun {LABKIT} run reduced_batch precision=bf16-true dataset=fluent_emoji --profile v100-32gb"
    text = script_of(["--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1", "--constraint=v100"], run)
    text += 'echo "on $SLURM_JOB_NODELIST with $SLURM_JOB_GPUS"\n'
    (found,) = [check for check in examine_script(text, tmp_path, site) if check.level == "red"]
    assert (found.name, found.fix) == ("bf16", "#SBATCH --constraint=a100  # or precision=16-mixed")
    output = submit(site, tmp_path, "v100", text).read_text()
    assert "error: precision=bf16-true needs bf16, which v100-32gb does not have" in output
    assert "on n2 with" in output


def test_a_script_that_sbatch_refuses_is_told_in_a_line(site):
    done = subprocess.run([LABKIT, "slurm", "reduced_batch", "--partition", "nowhere", "--submit"], env=site,
                          capture_output=True, text=True, timeout=WAIT_S, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: sbatch: ") and "Invalid partition" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_that_slurm_does_not_know_is_told_in_a_line(site):
    done = subprocess.run([LABKIT, "slurm", "--job", "99999"], env=site, capture_output=True, text=True,
                          timeout=WAIT_S, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "error: Slurm knows no job 99999; 'squeue --me' lists yours.\n")


def test_nothing_of_the_cluster_is_left():
    with Cluster() as cluster:
        folder = cluster.folder
        assert processes_of(folder)
    assert not folder.exists()
    assert not processes_of(folder)
