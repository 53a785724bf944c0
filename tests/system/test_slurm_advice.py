"""Every line that the doctor proposes for a batch script, put into the script and given to a real Slurm.

Programs are stand-ins that print which task of how many they are; jobs wait in the queue together.
"""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from slurm_rig import Cluster

from labkit.cluster.examine import examine_script
from labkit.help.doctor.machine import Check

WAIT_S = 240
HEAD = 'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
MEET = "--rdzv-backend=c10d --rdzv-endpoint=$head:1"
ADVICE = {
    "ntasks wins": ("--nodes=1; --ntasks=1; --gres=gpu:2; --ntasks-per-node=2", "srun python lit.py", "tasks", 2),
    "tasks missing": ("-N 2; --gres=gpu:2", "srun python toy.py", "tasks", 4),
    "one task for two GPUs": ("-N 1; --ntasks-per-node=1; --gres=gpu:2", "srun python mine.py", "devices", 2),
    "ntasks for Lightning": ("-N 1; --ntasks=2; --gres=gpu:2", "srun python t.py trainer.devices=2", "tasks", 2),
    "a task's GPU for Lightning": ("-N 1; --ntasks-per-node=2; --gpus-per-task=1", "srun python t.py --devices 2",
                                   "GPUs", 2),
    "devices": ("-N 1; --ntasks-per-node=1; --gpus-per-node=2", "srun python t.py --devices 2", "devices", 2),
    "more tasks than GPUs": ("-N 1; --ntasks-per-node=4; --gres=gpu:2", "srun python t.py", "devices", 2),
    "tasks for a GPU": ("-N 1; --gpus-per-node=2; --ntasks-per-gpu=2", "srun python t.py", "devices", 2),
    "nodes": ("-N 1; --ntasks-per-node=2; --gres=gpu:2", "srun python t.py trainer.devices=2 trainer.num_nodes=2",
              "nodes", 4),
    "no srun": ("-N 2; --ntasks-per-node=2; --gpus=4", "python test.py", "srun", 4),
    "no srun for a launcher": ("-N 2; --gpus-per-node=2", f"FOO=1 torchrun --nnodes=2 --nproc-per-node=2 {MEET} t.py",
                               "srun", 2),
    "no srun for what exec starts": ("-N 2; --gpus-per-node=2", "exec torchrun --nnodes=2 "
                                     f"--nproc-per-node=2 {MEET} t.py", "srun", 2),
    "a launcher for each GPU": ("-N 2; --ntasks-per-node=2; --gpus-per-node=2",
                                f"srun torchrun --nnodes=2 --nproc_per_node=2 {MEET} t.py", "tasks", 2),
    "a launcher for each GPU, by number": ("-N 2; --ntasks=4; --gpus-per-node=2",
                                           f"srun torchrun --nnodes=2 --nproc_per_node=2 {MEET} t.py", "tasks", 2),
    "a launcher for each GPU, by srun": ("-N 2; --ntasks-per-node=2; --gpus-per-node=2",
                                         "srun -n 4 --ntasks-per-node=2 torchrun --nnodes=2 "
                                         f"--nproc_per_node=2 {MEET} t.py", "tasks", 2),
    "more ranks than GPUs": ("-N 1; -n 1; --gres=gpu:a100:1", "srun torchrun --nproc_per_node=2 t.py", "GPUs", 1),
    "the GPU of a task": ("-N 2; --ntasks-per-node=1; --gpus-per-task=1",
                          f"srun torchrun --nnodes=2 --nproc_per_node=2 {MEET} t.py", "GPUs", 2),
    "each node by itself": ("-N 2; --ntasks-per-node=1; --gres=gpu:2", "srun torchrun --nproc_per_node=2 t.py",
                            "rendezvous", 2),
    "each node the first": ("-N 2; --ntasks-per-node=1; --gres=gpu:2",
                            "srun torchrun --nnodes 2 --nproc_per_node=2 "
                            "--node_rank $SLURM_NODEID --master_addr $head t.py", "rendezvous", 2),
    "a node that never comes": ("-N 1; --ntasks-per-node=1; --gres=gpu:2",
                                f"srun torchrun --nnodes=2 --nproc_per_node=2 {MEET} t.py", "rendezvous", 2),
    "an old GPU": ("-N 1; -n 1; --gres=gpu:v100:1", "srun python t.py --precision 16-mixed", "GPU type", 1),
    "bf16 on an old GPU": ("-N 1; -n 1; --gres=gpu:v100:1", "srun python t.py --precision bf16-true", "bf16", 1),
    "an old GPU by its feature": ("-N 1; -n 1; -G 1; --constraint=v100", "srun python t.py", "GPU type", 1),
    "a signal that no one hears": ("-n 1; -G 1; --signal=USR1@60", "python t.py", "signal", 1),
    "a signal that ends the script": ("-n 1; -G 1; --signal=B:USR1@60", "srun python t.py", "signal", 1),
    "no limit": ("-n 1; -G 1", "srun python t.py", "time", 1),
    "no GPU": ("-n 1", "srun python t.py", "GPUs", 1),
    "no caches": ("-n 1; -G 1", "srun python t.py", "caches", 1),
    "no folder": ("-n 1; -G 1; --error=err/%j", "srun python t.py", "output", 1),
    "a directive too late": ("-n 1", "#SBATCH --gpus=1\nsrun python t.py", "file", 1),
    "DOS line breaks": ("-n 1; -G 1", "srun python t.py\r", "file", 1),
    "a byte order mark": ("-n 1; -G 1", "srun python t.py\ufeff", "file", 1),
    "no interpreter": ("-n 1; -G 1", "srun python t.py #!", "file", 1),
}  # fmt: skip
"""Directives, what trains, the check that has a line for it, and how many tasks there are with that line."""


def written(name: str) -> str:
    directives, body, _, _ = ADVICE[name]
    limit = [] if name == "no limit" else ["--time=1"]
    lines = ["#!/bin/bash", *(f"#SBATCH {line}" for line in [*directives.split("; "), *limit])]
    text = "\n".join([*lines, HEAD + body, ""])
    if body.endswith("\r"):
        return text.replace("\r", "").replace("\n", "\r\n")
    if body.endswith("\ufeff"):
        return "\ufeff" + text.replace("\ufeff", "")
    return text.partition("\n")[2] if body.endswith(" #!") else text


def corrected(text: str, fix: str, folder: Path) -> str:
    """The script as somebody would correct it by that line."""
    if fix.startswith(("sed", "mkdir")):
        file = folder / "FILE"
        file.write_bytes(text.encode())
        subprocess.run(["bash", "-c", fix.replace("FILE", str(file))], check=True)
        return file.read_text(encoding="utf-8")
    if fix.startswith("#SBATCH"):
        gone = re.findall(r"--[\w-]+", fix)
        kept = [line for line in text.splitlines() if not (line.startswith("#SBATCH") and _names(line) & set(gone))]
        return "\n".join([kept[0], fix, *kept[1:], ""])
    first, *_, last = text.splitlines()
    before = text.splitlines()[1:-1]
    if fix.startswith("export"):
        return "\n".join([first, *before, fix.replace("/PROJECT", str(folder)), last, ""])
    return "\n".join([first, *before, fix, ""])


def _names(line: str) -> set[str]:
    short = {"-N": "--nodes", "-n": "--ntasks", "-G": "--gpus"}
    return {short.get(word, word) for word in re.findall(r"--[\w-]+|-[A-Z]\b|-n\b", line)}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """All corrected scripts, submitted together; each job's state, or why there is none, and what it has printed."""
    folder = tmp_path_factory.mktemp("advice")
    (folder / "bin").mkdir()
    for program in ("python", "torchrun"):
        stand_in = folder / "bin" / program
        stand_in.write_text('#!/bin/bash\necho "task ${SLURM_PROCID} of ${SLURM_STEP_NUM_TASKS:-1}: $*"\n')
        stand_in.chmod(0o755)
    path = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder)}
    with Cluster() as cluster:
        env, submitted = os.environ | cluster.environment | path, {}
        for name in ADVICE:
            fix = advice(name, folder).fix
            (folder / "it.sbatch").write_text(corrected(written(name), fix, folder))
            output = folder / f"{len(submitted)}.out"
            # one task is what there is anyway: whether Slurm takes the script is all there is to see
            how = ["--parsable", f"--output={output}", f"--error={output}"] if ADVICE[name][3] > 1 else ["--test-only"]
            done = subprocess.run(["sbatch", *how, "it.sbatch"], env=env, cwd=folder, capture_output=True, text=True,
                                  check=False)  # fmt: skip
            submitted[name] = (done.stdout.strip(), done.stderr, output)
        deadline = time.monotonic() + WAIT_S
        while cluster.command("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.5)
        states = {}
        for name, (job, said, output) in submitted.items():
            shown = cluster.command("scontrol", "show", "job", job) if job else ""
            state = re.search(r"JobState=(\w+)", shown)
            printed = output.read_text() if output.exists() else ""
            states[name] = (state[1] if state else said, printed)
        return states


def advice(name: str, folder: Path) -> Check:
    text, check = written(name), ADVICE[name][2]
    found = examine_script(text, folder, {"HOME": "/home/me"}, cuda="13.0")
    (wrong,) = [one for one in found if one.name == check and one.level != "green"]
    return wrong


@pytest.mark.parametrize("name", ADVICE)
def test_slurm_takes_the_line_and_starts_as_many_tasks_as_it_says(jobs, name):
    state, printed = jobs[name]
    tasks = ADVICE[name][3]
    if tasks == 1:
        assert re.match(r"sbatch: Job \d+ to start at", state), state
        return
    assert state == "COMPLETED", printed
    assert sorted(re.findall(r"^task (\d+) of (\d+)", printed, re.MULTILINE)) == [
        (str(n), str(tasks)) for n in range(tasks)
    ]


@pytest.mark.parametrize("name", ADVICE)
def test_what_the_line_corrects_is_not_found_again(tmp_path, name):
    wrong = advice(name, tmp_path)
    text = corrected(written(name), wrong.fix, tmp_path)
    after = examine_script(text, tmp_path, {"HOME": "/home/me"}, cuda="13.0")
    assert not [check for check in after if check.level == "red"]
    assert [check.level for check in after if check.name == wrong.name] in (["green"], ["amber"], [])
