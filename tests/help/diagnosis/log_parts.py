"""Parts that logs of other people's programs are made of: what stands before an error, its trace, what follows it."""

from typing import NamedTuple


class Told(NamedTuple):
    """A log, the kind of its end, and words that the answer must and must not have."""

    kind: str
    log: str
    must: tuple[str, ...]
    must_not: tuple[str, ...] = ()


LOADING = (
    "Loading checkpoint shards: 100%|██████████| 4/4 [00:09<00:00,  2.31s/it]\n"
    "trainable params: 6,815,744 || all params: 7,248,547,840 || trainable%: 0.0940\n"
)
STEPS = LOADING + (
    "{'loss': 1.2104, 'grad_norm': 0.83, 'learning_rate': 0.00019, 'epoch': 0.02}\n"
    "  2%|▏         | 20/1000 [01:12<58:48,  3.60s/it]\n"
)
TORCHRUN = (
    "E0612 10:41:07.310000 8121 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1) "
    "local_rank: 0 (pid: 8140) of binary: /opt/env/bin/python\n"
    "============================================================\n"
    "train.py FAILED\n"
    "------------------------------------------------------------\n"
    "Root Cause (first observed failure):\n"
    "[0]:\n"
    "  rank      : 0 (local_rank: 0)\n"
    "  exitcode  : 1 (pid: 8140)\n"
    "  error_file: <N/A>\n"
    "  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html\n"
    "============================================================\n"
)
SRUN = (
    "srun: error: node07: task 0: Exited with exit code 1\n"
    "srun: Terminating StepId=812345.0\n"
)  # fmt: skip
DEEPSPEED = (
    "[2025-03-11 10:41:07,113] [INFO] [launch.py:319:sigkill_handler] Killing subprocess 4021\n"
    "[2025-03-11 10:41:08,120] [ERROR] [launch.py:325:sigkill_handler] ['/opt/env/bin/python', '-u', 'train.py', "
    "'--local_rank=0'] exits with return code = 1\n"
)
WANDB = (
    "wandb: \n"
    "wandb: You can sync this run to the cloud by running:\n"
    "wandb: wandb sync /scratch/wandb/offline-run-20250311_104107-8f2k1c0a\n"
    "wandb: Find logs at: wandb/offline-run-20250311_104107-8f2k1c0a/logs\n"
)


def trace(error: str, *frames: str, before: str = LOADING, after: str = "") -> str:
    """A log that ends in an exception; a frame is ``file:line:function:code``."""
    shown = "".join(
        f'  File "{file}", line {line}, in {function}\n    {code}\n'
        for file, line, function, code in (frame.split(":", 3) for frame in ("train.py:74:<module>:main()", *frames))
    )
    return f"{before}Traceback (most recent call last):\n{shown}{error}\n{after}"


def packages(path: str) -> str:
    """A file of an installed package, as a trace names it."""
    return f"/opt/env/lib/python3.11/site-packages/{path}"
