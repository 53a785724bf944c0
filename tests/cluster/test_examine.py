"""Batch scripts from elsewhere: each mistake is found, with the right line, and what is right is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.cluster.batch_script import BatchScript
from labkit.cluster.examine import examine_script

GOOD = """\
#!/bin/bash
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --gpus-per-node=2
#SBATCH --cpus-per-task=4 --mem=256G
#SBATCH -C a100
#SBATCH -t 1:00:00
#SBATCH --output=%x-%j.out
export HF_HOME=/project/me/hf TORCH_HOME=/project/me/torch
export TRITON_CACHE_DIR=/project/me/triton
export TMPDIR="/project/me/tmp"
srun apptainer exec --nv image.sif python train.py \\
  trainer.devices=2 trainer.precision=bf16-true trainer.max_steps=250
"""


def reds(text, tmp_path, environment=None, **known):
    found = examine_script(text, tmp_path, environment or {"HOME": "/home/me"}, **known)
    return {check.name: check for check in found if check.level == "red"}


def test_a_good_script_is_green(tmp_path):
    assert {check.level for check in examine_script(GOOD, tmp_path, {})} == {"green"}


@pytest.mark.parametrize(("line", "wrong", "name", "fix"), [
    ("#SBATCH --ntasks-per-node=2", "#SBATCH --ntasks=2", "tasks", "#SBATCH --ntasks-per-node=2"),
    ("#SBATCH --ntasks-per-node=2", "#SBATCH -n 2", "tasks", "#SBATCH --ntasks-per-node=2"),
    ("#SBATCH --ntasks-per-node=2", "", "tasks", "#SBATCH --ntasks-per-node=2"),
    ("#SBATCH --gpus-per-node=2", "#SBATCH --gpus-per-task=1", "GPUs", "#SBATCH --gpus-per-node=2"),
    ("trainer.devices=2", "trainer.devices=4", "devices", "#SBATCH --ntasks-per-node=4"),
    ("trainer.devices=2", "--devices 4", "devices", "#SBATCH --ntasks-per-node=4"),
    ("trainer.devices=2", "trainer.devices=2 trainer.num_nodes=2", "nodes", "#SBATCH --nodes=2"),
    ("srun apptainer", "apptainer", "srun", "srun apptainer exec"),
    ("-C a100", "-C v100", "bf16", "#SBATCH --constraint=a100"),
    ("#SBATCH --gpus-per-node=2", "#SBATCH --gpus-per-node=v100:2", "bf16", "#SBATCH --gpus-per-node=a100:2  # in"),
    ("--output=%x-%j.out", "--output=logs/%x-%j.out", "output", "mkdir -p"),
])  # fmt: skip
def test_each_mistake_is_found_with_the_right_line(tmp_path, line, wrong, name, fix):
    assert line in GOOD
    found = reds(GOOD.replace(line, wrong), tmp_path)
    assert name in found
    assert set(found) <= {name, "devices"}  # a number that differs differs from two others
    assert fix in found[name].fix


@pytest.mark.parametrize(("line", "wrong"), [
    ("HF_HOME=/project/me/hf", "HF_HOME=$HOME/hf"),
    ("HF_HOME=/project/me/hf", 'HF_HOME="${HOME}/hf"'),
    ("HF_HOME=/project/me/hf", "HF_HOME=~/hf"),
    ("export HF_HOME=/project/me/hf TORCH_HOME=/project/me/torch\n", ""),
])  # fmt: skip
def test_caches_in_the_home_folder_are_amber_for_the_job_works_until_the_quota_is_full(tmp_path, line, wrong):
    text = GOOD.replace(line, wrong)
    assert not reds(text, tmp_path)
    (found,) = [check for check in examine_script(text, tmp_path, {"HOME": "/home/me"}) if check.level == "amber"]
    assert found.name == "caches" and found.fix.startswith("export HF_HOME=/PROJECT")


def test_gpus_that_idle_are_amber(tmp_path):
    text = GOOD.replace("#SBATCH --gpus-per-node=2", "#SBATCH --gres=gpu:a100:4")
    assert [(check.name, check.level) for check in examine_script(text, tmp_path, {}) if check.level != "green"] == [
        ("devices", "amber")
    ]


def test_a_folder_for_the_output_that_is_there_is_no_mistake(tmp_path):
    (tmp_path / "logs").mkdir()
    assert not reds(GOOD.replace("--output=%x", "--output=logs/%x"), tmp_path)


@pytest.mark.parametrize(("line", "other"), [
    ("#SBATCH --gpus-per-node=2", "#SBATCH --gres=gpu:a100:2"),
    ("#SBATCH --gpus-per-node=2", "#SBATCH --gres gpu:2"),
    ("#SBATCH --gpus-per-node=2", "#SBATCH -G 2"),
    ("trainer.devices=2", "trainer.devices=$SLURM_GPUS_ON_NODE"),
    ("#SBATCH -C a100", "#SBATCH --constraint='a100|h100'"),
    ("precision=bf16-true", "precision=16-mixed"),
])  # fmt: skip
def test_other_ways_to_say_the_same_are_right_too(tmp_path, line, other):
    assert line in GOOD
    assert not reds(GOOD.replace(line, other), tmp_path)


RIGHT = {
    "a launcher on each of two nodes": """\
#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=4
srun torchrun --nnodes 2 --nproc-per-node 4 train.py trainer.devices=4 trainer.num_nodes=2
""",
    "resources beside GPUs": """\
#!/bin/bash
#SBATCH --ntasks-per-node=1 --gres=gpu:1,lscratch:10
python train.py devices=1
""",
    "tasks by GPU, said otherwise": """\
#!/bin/bash
#SBATCH --gpus-per-node=a100:4 --ntasks-per-gpu=1 --partition=v100-and-a100
srun python train.py --trainer.devices=4 --precision bf16-mixed
""",
    "an environment, a step of one task, and srun in a variable": """\
#!/bin/bash
#SBATCH --tasks-per-node=2
#SBATCH --gres=gpu:a100:2
source /sw/python/3.11/venv/bin/activate
srun --ntasks=1 python evaluate.py devices=1
RUN="srun --kill-on-bad-exit=1"
$RUN python train.py devices=2  # devices=4 was slower
""",
    "a script that trains": """\
#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-node=4
. /sw/python/env.sh
srun ./train.sh
""",
    "one of two kinds of GPU": """\
#!/bin/bash
#SBATCH --constraint=v100|a100 --gpus=1
python train.py precision=bf16
""",
}


@pytest.mark.parametrize("name", RIGHT)
def test_scripts_that_are_right_have_nothing_red(tmp_path, name):
    elsewhere = {"HOME": "/home/me", "HF_HOME": "/home/shared/hf"}
    assert not reds(RIGHT[name], tmp_path, elsewhere)


@pytest.mark.parametrize(("environment", "level"), [
    ({}, "amber"), ({"HF_HOME": "/project/hf"}, "amber"), ({"HF_HOME": "/home/me/hf", "HOME": "/home/me"}, "amber"),
    ({"HF_HUB_CACHE": "/p", "TORCH_HOME": "/p", "TRITON_CACHE_DIR": "/p"}, "green"),
    ({"XDG_CACHE_HOME": "/p", "TRITON_CACHE_DIR": "/p"}, "green"),
])  # fmt: skip
def test_caches_may_be_set_where_the_script_is_submitted(tmp_path, environment, level):
    text = "#!/bin/bash\nsrun python train.py\n"
    (found,) = [check for check in examine_script(text, tmp_path, environment) if check.name == "caches"]
    assert found.level == level
    alone = text.replace("srun", "#SBATCH --export=NONE\nsrun")
    (found,) = [check for check in examine_script(alone, tmp_path, environment) if check.name == "caches"]
    assert found.level == "amber"


def test_a_launcher_is_started_once_a_node(tmp_path):
    text = RIGHT["a launcher on each of two nodes"].replace("--ntasks-per-node=1", "--ntasks-per-node=4")
    found = reds(text, tmp_path, {"HF_HOME": "/p"})
    assert list(found) == ["tasks"]
    assert found["tasks"].fix == "#SBATCH --ntasks-per-node=1"


def test_one_of_everything_needs_no_task_told(tmp_path):
    text = (
        GOOD.replace("#SBATCH --ntasks-per-node=2\n", "").replace("node=2", "node=1").replace("devices=2", "devices=1")
    )
    assert not reds(text, tmp_path)


def test_a_precision_that_is_known_counts_more_than_words(tmp_path):
    old = GOOD.replace("-C a100", "-C v100")
    assert not reds(old, tmp_path, precision="16-mixed")
    assert "bf16" in reds(old.replace("bf16-true", "$P"), tmp_path, precision="bf16-mixed")


def test_a_script_without_limit_or_gpu_is_amber(tmp_path):
    text = GOOD.replace("#SBATCH -t 1:00:00\n", "").replace("#SBATCH --gpus-per-node=2\n", "")
    assert [check.name for check in examine_script(text, tmp_path, {}) if check.level == "amber"] == ["GPUs", "time"]


def test_directives_after_the_first_command_do_not_count():
    assert BatchScript.read("#!/bin/bash\n#SBATCH --nodes=2\nhostname\n#SBATCH --nodes=4\n").nodes == 2


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_examined(text):
    from pathlib import Path

    assert examine_script(text, Path("/nonexistent"), {})
    assert examine_script("#SBATCH " + text.replace("\n", "\n#SBATCH "), Path("/nonexistent"), {})
