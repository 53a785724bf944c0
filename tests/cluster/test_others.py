"""Batch scripts in other people's habits: what works is never red, and one known mistake is named with its line.

The structure is that of public scripts (Slurm sites, launchers' documentation, threads about what went wrong); names
and words are ours.
"""

import pytest

from labkit.cluster.examine import examine_script

CACHES = "export HF_HOME=/p/hf TORCH_HOME=/p/torch TRITON_CACHE_DIR=/p/triton\n"
HEAD = 'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'


def script(directives, body):
    lines = [f"#SBATCH {line}" for line in [*directives.split("; "), "--time=1:00:00"] if line]
    return "\n".join(["#!/bin/bash", *lines, "", CACHES, body, ""])


WORKS = {
    "a launcher that gets a node's GPUs by its task": script(
        "--ntasks=2; --nodes=2; --gpus-per-task=8",
        'nodes=( $( scontrol show hostnames $SLURM_JOB_NODELIST ) )\nfirst=${nodes[0]}\n'
        'ip=$(srun --nodes=1 --ntasks=1 -w "$first" hostname --ip-address)\n'
        'srun torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint "$ip:29500" tune.py',
    ),
    "four GPUs for the whole job": script("--nodes=1; --gpus=4; --ntasks-per-node=4; --mem=64G",
        "module load Python/3.11\nsource $HOME/env/bin/activate\nsrun python demo.py\ndeactivate"),
    "a launcher in a variable in a command in a shell in a step": script(
        "--nodes=2; --ntasks-per-node=1   # one launcher a node; --gres=gpu:8",
        HEAD + 'PER_NODE=8\nLAUNCHER="python -u -m torch.distributed.run \\\n  --nproc_per_node $PER_NODE \\\n'
        '  --nnodes $SLURM_NNODES --rdzv_endpoint $head:6000 --rdzv_backend c10d"\nexport CMD="$LAUNCHER fit.py"\n'
        'srun --wait=60 --kill-on-bad-exit=1 bash -c "$CMD" 2>&1 | tee -a out.txt',
    ),
    "a rank of the node filled in too early, which c10d does not read": script(
        "--nodes=2; --ntasks-per-node=1; --gres=gpu:8",
        HEAD + "export PORT=$((RANDOM % 101 + 20000))\nsrun --jobid $SLURM_JOBID \\\n  torchrun \\\n"
        "  --nnodes=$SLURM_NNODES --nproc_per_node=8 --node_rank $SLURM_PROCID --rdzv_id=1 \\\n"
        '  --rdzv_backend=c10d --rdzv_endpoint="${head}:${PORT}" llava/mem.py --bf16 True',
    ),
    "one GPU and no srun": script("-N 1; -n 1; -c 8; -G 1", "uv run python qlora.py --config qlora.yaml"),
    "srun says it all itself": script("--nodes=2; --exclusive; --gres=gpu:8",
        "srun -N2 -n16 --ntasks-per-node=8 python -u train.py --launcher slurm"),
    "srun in front of a launcher variable": script("-N 2; --ntasks-per-node=1; --gpus-per-node=4",
        HEAD + 'LAUNCHER="accelerate launch --num_machines $SLURM_NNODES --num_processes $((4*SLURM_NNODES)) '
        '--rdzv_backend c10d --main_process_ip $head --main_process_port 29500"\n'
        'srun $LAUNCHER train.py --batch 4'),
    "accelerate whose rank each task fills in": script("--nodes=4; --ntasks-per-node=1; --gres=gpu:4",
        HEAD + "export GPUS=$((4 * SLURM_NNODES))\nsrun --label bash -c 'accelerate launch --multi_gpu "
        "--num_machines $SLURM_NNODES --num_processes $GPUS --machine_rank $SLURM_NODEID "
        "--main_process_ip '$head' --main_process_port 6000 train.py'"),
    "an escaped rank in a double-quoted command": script("--nodes=2; --ntasks-per-node=1; --gres=gpu:4",
        HEAD + 'CMD="torchrun --nnodes 2 --nproc_per_node 4 --node_rank \\$SLURM_NODEID --master_addr $head t.py"\n'
        'srun bash -c "$CMD"'),
    "deepspeed with a hostfile, over ssh": script("-N 2; --ntasks-per-node=4; --gres=gpu:4",
        "srun hostname -s > hosts.txt\npython edit_hosts.py\n"
        "deepspeed --hostfile hosts.txt train.py --deepspeed --deepspeed_config ds.json"),
    "a launcher of one node, and tasks that no one starts": script("--nodes=1; --ntasks-per-node=4; --gpus-per-node=4",
        "torchrun --standalone --nproc_per_node=4 train.py"),
    "submitit": script("--nodes=2; --ntasks-per-node=8; --gpus-per-node=8; --signal=USR2@90; --open-mode=append",
        "export SUBMITIT_EXECUTOR=slurm\nsrun --unbuffered --output /tmp/%j_%t.out "
        "/home/me/env/bin/python -u -m submitit.core._submit /home/me/jobs"),
    "a container that sets ranks from Slurm": script("-C gpu; -N 2; --ntasks-per-node=4; --gpus-per-node=4",
        'args="${@}"\nsrun -u --mpi=pmi2 shifter --module gpu --image=org/pytorch:24.01 --env BASE=/x \\\n  bash -c "\n'
        '    source ranks_from_slurm.sh\n    python train.py ${args}\n  "'),
    "one GPU bound to each task, all seen": script(
        "-C gpu; -n 8; --ntasks-per-node 4; --gpus-per-task 1; --gpu-bind=none", "srun python ddp.py --from-slurm"),
    "an array of single runs": script("--array=0-9; --gres=gpu:1; --mem-per-gpu=40G; --cpus-per-gpu=6",
        'LR=(1e-3 1e-4)\nconda run -n work python sweep.py --lr "${LR[$SLURM_ARRAY_TASK_ID % 2]}"'),
    "launchers in a loop, one a node, in the background": script("-N 2; --ntasks-per-node=1; --gres=gpu:4",
        HEAD + "rank=0\nfor node in $(scontrol show hostnames); do\n"
        '  srun -N 1 -n 1 -w "$node" torchrun --nnodes=2 --nproc_per_node=4 --node_rank=$rank \\\n'
        "    --master_addr=$head train.py &\n  rank=$((rank+1))\ndone\nwait"),
    "processes that the program starts, told by node": script("-N 2; --ntasks-per-node=1; --gres=gpu:4",
        HEAD + 'srun python main.py --multiprocessing-distributed --world-size 2 --dist-url tcp://$head:2222'),
    "mpirun": script("-N 2; --ntasks-per-node=4; --gpus-per-node=4", "mpirun -np 8 --bind-to none python train.py"),
    "a trap in the batch shell that is waited for": script("--signal=B:USR1@120; -n 1; --gres=gpu:1; --requeue",
        'again() { scontrol requeue "$SLURM_JOB_ID"; }\ntrap again USR1\nsrun python train.py &\nwait'),
    "exec hands the signal on": script("--signal=B:TERM@60; -n 1; -G 1", "exec python train.py"),
    "a function that starts the step": script("--nodes=2; --ntasks-per-node=4; --gpus-per-node=a100:4",
        'launch() { local name=$1; shift; srun --job-name="$name" "$@"; }\nlaunch a python train.py --nodes 2'),
    "both ways of an if": script("--nodes=1; --gres=gpu:4; --ntasks-per-node=1",
        'if [ "$SLURM_NNODES" -gt 1 ]; then RUN="srun torchrun"; else RUN="torchrun --standalone"; fi\n'
        '$RUN --nproc_per_node=4 train.py'),
    "one process that spreads a model over GPUs": script("--gres=gpu:4; --nodes=1; --ntasks=1",
        "srun apptainer exec --nv image.sif python chat.py --device_map auto"),
    "a job that starts two components": script("-N 1; -n 1; hetjob; -N 2; --gres=gpu:4",
        "srun --het-group=0 ./serve : --het-group=1 ./learn"),
    "a script in a here-document": script("-N 1; --ntasks-per-node=2; --gres=gpu:2",
        "cat > later.sbatch <<'EOF'\n#!/bin/bash\n#SBATCH --ntasks=99\npython other.py\nEOF\nsrun bash <<'EOF'\n"
        "python train.py\nEOF"),
    "GPUs of a socket, resources by another name": script(
        "-N 1; --ntasks-per-node=4; --sockets-per-node=2; --gpus-per-socket=2", "srun python train.py"),
    "more tasks than the launcher, one for each node": script("-N 2; --ntasks-per-node=8; --gres=gpu:8",
        HEAD + "srun --ntasks=2 --ntasks-per-node=1 torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d "
        "--rdzv-endpoint=$head:29500 train.py"),
    "poetry, time and a step": script("-N 1; --tasks-per-node=2; --gres=gpu:v100:2",
        "module load cuda/11.8\ntime srun --cpu-bind=verbose poetry run python train.py"),
    "a launcher behind a variable for one command": script("--nodes=2; --ntasks-per-node=1; --gres=gpu:8; --exclusive",
        HEAD + 'RUN="torchrun --nproc_per_node=8 --nnodes=$SLURM_NNODES --rdzv_backend=c10d --rdzv_endpoint=$head:12"\n'
        'srun -u bash -c "CUDA_DEVICE_MAX_CONNECTIONS=1 $RUN train.py --config x.yaml"'),
    "values that each task fills in, escaped": script("--nodes=4; --ntasks-per-node=1; --gpus-per-node=4",
        'srun -ul --environment=./image.toml bash -c "\n  torchrun --nproc_per_node=\\${SLURM_GPUS_PER_NODE} '
        '--nnodes=\\$SLURM_NNODES --node_rank=\\$SLURM_PROCID --master_addr=\\$(scontrol show hostnames '
        '\\$SLURM_JOB_NODELIST | head -n 1) train.py"'),
    "a site's own mpirun, and nodes that have their GPUs anyway": script("-p gpu-a100; -N 4; -n 12",
        "ibrun python t.py"),
    "an older GPU with an older torch": script("-C v100-32g; --nodes=2; --ntasks-per-node=4; --gres=gpu:4",
        "module purge\nmodule load pytorch-gpu/2.0.1\nset -x\nsrun python -u train.py"),
    "tasks for nodes, without a number a node": script("--nodes=2; --ntasks=4; --gres=gpu:2",
        "srun --label python d.py"),
    "tasks as cores": script("--ntasks=8; --gres=gpu:1", "python train.py"),
    "torchrun through python and which": script("-N 1; -n 1; --gres=gpu:2",
        'srun python $(which torchrun) --nproc_per_node=$SLURM_GPUS_ON_NODE "${EXTRA[@]}" train.py'),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_a_script_that_works_has_nothing_red(tmp_path, name):
    found = [check for check in examine_script(WORKS[name], tmp_path, {"HOME": "/home/me"}) if check.level == "red"]
    assert not found


MISTAKES = {
    "ntasks takes tasks away": (
        script("--ntasks=1; --nodes=1; --gres=gpu:2; --ntasks-per-node=2", "srun python lit.py"),
        "tasks", "wins over --ntasks-per-node=2", "#SBATCH --ntasks=2  # in place of --ntasks=1",
    ),
    "two nodes without srun": (
        script("--ntasks-per-node=4; --gpus=8; --nodes=2; -C pascal", "module load python\ncd ~/x/\npython test.py"),
        "srun", "first of 2 nodes", "srun python test.py",
    ),
    "one task a node for two GPUs": (
        script("-N 2; -c 40; --gres=gpu:2; --mem 60G", "srun python toy.py"),
        "tasks", "one task a node, for 2", "#SBATCH --ntasks-per-node=2",
    ),
    "a launcher in pieces, on two nodes, without srun": (
        script("--gpus-per-node=4; --nodes=2", HEAD + 'header="torchrun \\\n--rdzv-backend=c10d \\\n'
               '--rdzv-endpoint=$head:56321 --nnodes=2 --nproc-per-node=4 -m training.train"\n'
               'args=(--model /m/llama --bf16)\n${header} "${args[@]}"'),
        "srun", "torchrun starts on the first", 'srun ${header} "${args[@]}"',
    ),
    "one task for two GPUs": (
        script("--nodes=1; --ntasks-per-node=1; --gres=gpu:2", "conda activate pl-env\nsrun python mine.py"),
        "devices", "1 task on a node with 2 GPUs", "#SBATCH --ntasks-per-node=2",
    ),
    "a launcher for each GPU": (
        script("-N 3; --ntasks-per-node=8; --gpus-per-node=8", HEAD + "srun torchrun --nnodes=3 --nproc_per_node=8 "
               "--rdzv_backend=c10d --rdzv_endpoint=$head:1 train.py"),
        "tasks", "8 tasks a node, and each starts torchrun", "#SBATCH --ntasks-per-node=1",
    ),
    "a launcher for each GPU, told by srun": (
        script("-N 2; --exclusive; --gpus-per-node=4", HEAD + "srun -n 8 --ntasks-per-node=4 torchrun --nnodes=2 "
               "--nproc_per_node=4 --rdzv_backend=c10d --rdzv_endpoint=$head:1 train.py"),
        "tasks", "4 tasks a node", "srun --ntasks=2 --ntasks-per-node=1 torchrun",
    ),
    "every node says that it is the first": (
        script("-N 2; --ntasks-per-node=1; --gres=gpu:4", HEAD + "export NODE_RANK=$SLURM_NODEID\nsrun torchrun "
               "--nnodes=2 --nproc_per_node=4 --node_rank=$NODE_RANK --master_addr=$head --master_port=29500 train.py"),
        "rendezvous", "node 0", "srun torchrun --rdzv-backend=c10d",
    ),
    "accelerate, whose rank is filled in too early": (
        script("-N 2; --ntasks-per-node=1; --gres=gpu:4", HEAD + "srun accelerate launch --num_machines 2 "
               "--num_processes 8 --machine_rank $SLURM_PROCID --main_process_ip $head train.py"),
        "rendezvous", "node 0", "--machine_rank=$SLURM_NODEID",
    ),
    "every node trains by itself": (
        script("-N 2; --ntasks-per-node=1; --gres=gpu:4", "srun torchrun --standalone --nproc_per_node=4 train.py"),
        "rendezvous", "trains by itself, silently", "srun torchrun --nnodes=2 --rdzv-backend=c10d",
    ),
    "a launcher that waits for a third node": (
        script("-N 2; --ntasks-per-node=1; --gres=gpu:4", HEAD + "srun torchrun --nnodes=3 --nproc_per_node=4 "
               "--rdzv_backend=c10d --rdzv_endpoint=$head:1 train.py"),
        "rendezvous", "3 nodes of 2", "#SBATCH --nodes=3",
    ),
    "more ranks than GPUs": (
        script("-N 1; --ntasks-per-node=1; --gres=gpu:a100:2", "torchrun --nproc_per_node=4 train.py"),
        "GPUs", "starts 4 ranks on a node, and sees 2",
        "#SBATCH --gpus-per-node=a100:4  # in place of --gres=gpu:a100:2",
    ),
    "a launcher that sees the GPU of its task": (
        script("-N 2; --ntasks-per-node=1; --gpus-per-task=1", HEAD + "srun torchrun --nnodes=2 --nproc_per_node=8 "
               "--rdzv_backend=c10d --rdzv_endpoint=$head:1 train.py"),
        "GPUs", "sees 1 GPU", "#SBATCH --gpus-per-node=8  # in place of --gpus-per-task=1",
    ),
    "deepspeed on two nodes without hosts": (
        script("-N 2; --gres=gpu:4", "FOO=1 deepspeed --num_gpus=4 train.py --deepspeed ds.json"),
        "srun", "deepspeed starts on the first", "FOO=1 srun deepspeed",
    ),
    "more tasks than GPUs": (
        script("-N 1; --ntasks-per-node=8; --gres=gpu:4", "srun python train.py"),
        "devices", "8 tasks on a node with 4 GPUs", "#SBATCH --ntasks-per-node=4",
    ),
    "a variable in a directive": (
        script("--nodes=$NODES; --gres=gpu:1", "python train.py"), "file", "fills in no variables", "sbatch --nodes=",
    ),
    "a GPU that this torch has no code for": (
        script("-N 1; -n 1; --gres=gpu:p100:1", "srun python train.py --precision 16-mixed"),
        "GPU type", "compute capability 6.0", "#SBATCH --gres=gpu:a100:1  # in place of --gres=gpu:p100:1",
    ),
    "an older GPU by its constraint": (
        script("-N 1; -n 1; -G 1; -C v100-32g", "srun labkit run baseline precision=32-true"),
        "GPU type", "7.0", "#SBATCH --constraint=a100",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_line_and_nothing_else_is_red(tmp_path, name):
    text, check, found, fix = MISTAKES[name]
    red = [check for check in examine_script(text, tmp_path, {"HOME": "/home/me"}, cuda="13.0") if check.level == "red"]
    assert [check.name for check in red] == [check]
    assert found in red[0].found
    assert fix in red[0].fix


@pytest.mark.parametrize(("name", "not_said"), [
    ("a launcher in a variable in a command in a shell in a step", "--ntasks-per-node=8"),
    ("a launcher that gets a node's GPUs by its task", "--gpus-per-node"),
])  # fmt: skip
def test_no_line_is_proposed_that_would_start_a_launcher_for_each_gpu(tmp_path, name, not_said):
    found = examine_script(WORKS[name], tmp_path, {"HOME": "/home/me"})
    assert not [check for check in found if check.level != "green" and not_said in check.fix]


@pytest.mark.parametrize(("directives", "body", "name", "found", "fix"), [
    ("--ntasks=1; --gres=gpu:1; --signal=SIGUSR1@90", "python3 mnist.py", "signal", "never hears it",
     "srun python3 mnist.py"),
    ("--ntasks=1; --gres=gpu:1; --signal=B:USR1@90", "srun python m.py", "signal", "no trap",
     "#SBATCH --signal=USR1@90"),
    ("-n 1; -G 1; --signal=B:USR1@90", "trap 'touch x' USR1\nsrun python m.py", "signal", "only when", "& wait"),
    ("-N 2; --ntasks-per-node=1; --gres=gpu:8", "srun ./train.sh", "tasks",
     "cannot tell: what trains is started by ./train.sh", "grep -nE"),
    ("-N 2; --gres=gpu:8", "bash scripts/run.sh big", "tasks", "cannot tell", "scripts/run.sh"),
    ("-N 2; --gres=gpu:8", "$START train.py", "tasks", "cannot tell", "$START"),
    ("-N 1; --gres=gpu:4", "hostname", "tasks", "nothing in this script is known to train", "srun python"),
    ("-N 1; hetjob; -N 2; --gres=gpu:4", "srun --het-group=1 python train.py", "tasks", "2 components", "--het-group"),
    ("-N 1; --gres=gpu:4", "python train.py", "tasks", "one process for 4 GPUs", "--ntasks-per-node=4"),
    ("-N 2; --ntasks=8; --gres=gpu:4", "srun python train.py", "tasks", "Lightning refuses it",
     "--ntasks-per-node=4  # in place"),
    ("-n 1; -G 1", "python train.py\n#SBATCH --mem=4G", "file", "is not read by sbatch", "#SBATCH --mem=4G"),
    ("-n 1; -G v100:1", "module load torch/2.3\nsrun python train.py", "GPU type", "12.6 has", "get_arch_list"),
])  # fmt: skip
def test_what_may_be_right_is_amber_with_what_to_look_at(tmp_path, directives, body, name, found, fix):
    checks = examine_script(script(directives, body), tmp_path, {"HOME": "/home/me"}, cuda="13.0")
    assert not [check for check in checks if check.level == "red"]
    (amber,) = [check for check in checks if check.level == "amber"]
    assert amber.name == name
    assert found in amber.found
    assert fix in amber.fix


def test_srun_is_used_only_where_it_is(tmp_path):
    starts = {"python t.py": "not used", "srun python t.py": "used", "ssh n2 python t.py": "ssh is used"}
    for body, said in starts.items():
        (check,) = [check for check in examine_script(script("-n 1; -G 1", body), tmp_path, {}) if check.name == "srun"]
        assert check.found.startswith(said)


@pytest.mark.parametrize(("text", "found", "fix"), [
    ("#!/bin/bash\r\n#SBATCH -n 1\r\nsrun python t.py\r\n", "DOS line breaks", "sed -i"),
    ("\ufeff#!/bin/bash\nsrun python t.py\n", "byte order mark", "sed -i"),
    ("#SBATCH -n 1\nsrun python t.py\n", "#!", "sed -i"),
    ("#!/bin/bash\nsrun python t.py\0\n", "NUL", "tr -d"),
])  # fmt: skip
def test_a_file_that_sbatch_refuses_is_red(tmp_path, text, found, fix):
    (red,) = [check for check in examine_script(text, tmp_path, {}) if check.level == "red"]
    assert red.name == "file" and found in red.found and red.fix.startswith(fix)
