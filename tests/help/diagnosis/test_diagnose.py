"""Dead runs are distinguished. Texts are provoked here where a CPU can; those of CUDA, NCCL and Slurm are quoted."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.config.layers import resolve
from labkit.config.precision import DTYPES
from labkit.config.workspace import Workspace
from labkit.help.diagnosis.cuda_message import read_cuda_message
from labkit.help.diagnosis.diagnose import diagnose, diagnose_log, with_cause
from labkit.help.diagnosis.log_file import read_log
from labkit.help.diagnosis.log_text import clean, read_tail
from labkit.help.diagnosis.next_steps import NextSteps
from labkit.help.diagnosis.symptoms import SYMPTOMS, gpu, host, jobs, libraries, training
from labkit.ledger.parts import Diagnosis
from labkit.ledger.records import Record
from labkit.ledger.shape import plain, shaped
from labkit.memory.host import HostMemory, OomKills
from labkit.runs.runner import run

GIB = 2**30


def a_record(status="failed", profile="tiny", experiment="reduced_batch", overrides=None, **values) -> Record:
    resolved = resolve(Workspace.find(), experiment, overrides, profile)
    return Record(
        id="20260102-150405-abcd", experiment=experiment, profile=profile, status=status, overrides=overrides or {},
        config=resolved.config.to_dict(), config_hash=resolved.config.hash, created="2026-01-02T15:04+00:00", **values,
    )  # fmt: skip


def provoke(code: str, *, shell: str = "{python}", environment: dict[str, str] | None = None) -> str:
    """What a Python program printed that died."""
    command = shell.format(python=f'{sys.executable} -c "$CODE"')
    done = subprocess.run(
        ["sh", "-c", command], env=os.environ | {"CODE": code} | (environment or {}), text=True, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stdout


def on_a_small_disk(folder: Path) -> str:
    """A shell in which ``folder`` is a disk of 1 MiB, and only there."""
    can = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True)
    if can.returncode:
        pytest.skip("needs the right to mount")
    return f"unshare -m sh -c 'mount -t tmpfs -o size=1m tmpfs {folder} && exec \"$@\"' sh {{python}}"


# -- CUDA's message

# torch 2.1 to 2.12: c10/cuda/CUDACachingAllocator.cpp; numbers of public reports
NEW = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {tried}. GPU 0 has a total capacity of {capacity} "
    "of which {free} is free. {processes}{allowed}Of the allocated memory {allocated} is allocated by PyTorch, {pools}"
    "and {holes} is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation for Memory "
    "Management  (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)
# torch 1.5 to 2.0
OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 11.74 GiB total capacity; {allocated} "
    "already allocated; 213.69 MiB free; {reserved} reserved in total by PyTorch) If reserved memory is >> "
    "allocated memory try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management "
    "and PYTORCH_CUDA_ALLOC_CONF"
)


def message(tried, capacity, free, allocated, holes, *, own=None, others=(), allowed="", pools="") -> str:
    processes = "".join(f"Process {pid} has {held} memory in use. " for pid, held in others)
    processes += f"Including non-PyTorch memory, this process has {own} memory in use. " if own else ""
    return NEW.format(
        tried=tried, capacity=capacity, free=free, processes=processes, allocated=allocated, holes=holes,
        allowed=f"{allowed} allowed; " if allowed else "",
        pools=f"with {pools} allocated in private pools (e.g., CUDA Graphs), " if pools else "",
    )  # fmt: skip


FULL = message("1.25 GiB", "93.02 GiB", "1.18 GiB", "90.63 GiB", "120.54 MiB", own="91.82 GiB")
OTHER = message("7.49 GiB", "15.47 GiB", "6.71 GiB", "0 bytes", "0 bytes", own="222.00 MiB",
                others=[(28800, "15.53 MiB"), (54776, "7.75 GiB")])  # fmt: skip
HOLES = message("2.00 GiB", "79.15 GiB", "1.23 GiB", "70.00 GiB", "3.50 GiB", own="74.90 GiB",
                others=[(1234, "3.00 GiB")])  # fmt: skip

MESSAGES = {
    "full": (FULL, "full", 0),
    "another process": (OTHER, "other_process", 7.77),
    "holes, and one that holds a little": (HOLES, "fragmented", 3.00),
    # inside a container a process is listed under a number that it does not know
    "itself under another number": (
        message("256.00 MiB", "47.53 GiB", "16.88 MiB", "47.14 GiB", "57.79 MiB", others=[(3652628, "47.51 GiB")]),
        "full", 0,
    ),
    "no one is named, but half of the GPU is gone": (
        message("768.00 MiB", "83.05 GiB", "140.38 MiB", "21.92 GiB", "797.79 MiB", own="23.33 GiB",
                pools="104.00 MiB"),
        "other_process", 59.58,
    ),
    "private pools": (
        message("60.00 MiB", "79.19 GiB", "39.06 MiB", "72.36 GiB", "71.59 MiB", own="79.14 GiB", pools="436.00 MiB"),
        "full", 0,
    ),
    "a driver that may not say, and a share": (
        message("18.63 GiB", "45.00 GiB", "43.66 GiB", "0 bytes", "0 bytes", others=[(1459, "17179869184.00 GiB")],
                allowed="2.25 GiB"),
        "full", 0,
    ),
    "a share that is used up while others hold much": (
        message("1.00 GiB", "80.00 GiB", "20.00 GiB", "39.80 GiB", "0 bytes", own="40.30 GiB",
                others=[(7, "19.70 GiB")], allowed="40.00 GiB"),
        "full", 19.70,
    ),
    "larger than the GPU": (
        message("32.00 GiB", "23.52 GiB", "23.05 GiB", "0 bytes", "0 bytes", own="386.00 MiB"), "larger_than_gpu", 0,
    ),
    "a size that cannot be": (
        message("8589934591.99 GiB", "23.52 GiB", "3.05 GiB", "19.00 GiB", "0 bytes", own="20.38 GiB"),
        "larger_than_gpu", 0,
    ),
    "more is free than was asked for": (
        message("12.00 MiB", "10.92 GiB", "9.28 GiB", "8.57 MiB", "3.43 MiB", own="386.00 MiB"), "blocked", 0,
    ),
    "a context and NCCL are no one else": (
        OLD.format(allocated="9.00 GiB", reserved="9.60 GiB"), "full", 0,
    ),
    "old, full": (OLD.format(allocated="10.30 GiB", reserved="10.60 GiB"), "full", 0),
    "old, 2 GiB are no one's": (OLD.format(allocated="7.01 GiB", reserved="8.71 GiB"), "other_process", 2.27),
    "old, holes": (OLD.format(allocated="7.01 GiB", reserved="10.90 GiB"), "fragmented", 0),
    # torch 1.2
    "oldest": (
        "RuntimeError: CUDA out of memory. Tried to allocate 2.74 GiB (GPU 0; 11.17 GiB total capacity; 8.22 GiB "
        "already allocated; 2.62 GiB free; 5.05 MiB cached)", "full", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "finding", "others_gib"), MESSAGES.values(), ids=MESSAGES)
def test_the_numbers_say_who_holds_the_gpu(text, finding, others_gib):
    found = read_cuda_message(f"Traceback\n  File x\n{text}\n")
    assert found.finding == finding
    assert found.others_bytes / GIB == pytest.approx(others_gib, abs=0.02)


def test_all_seven_numbers_are_read_and_shown():
    found = read_cuda_message(HOLES)
    numbers = (found.tried_bytes, found.capacity_bytes, found.free_bytes, found.others[1234], found.own_bytes,
               found.allocated_bytes, found.unallocated_bytes)  # fmt: skip
    assert [round(n / GIB, 2) for n in numbers] == [2.00, 79.15, 1.23, 3.00, 74.90, 70.00, 3.50]
    shown = found.lines()
    assert len(shown) == 7
    assert all(f"{n / GIB:.2f} GiB" in line for n, line in zip(numbers, shown, strict=True))


def test_the_last_message_of_a_log_counts_and_one_that_is_cut_does_not():
    assert read_cuda_message(f"{OTHER}\nretrying\n{FULL}").finding == "full"
    assert read_cuda_message(f"{OTHER}\nretrying\n{FULL[:100]}").finding == "other_process"
    assert read_cuda_message("CUDA out of memory. Tried to allocate 2.0.0 GiB") is None


def test_torch_has_kept_its_words_for_what_the_allocator_is_told_by():
    """The setting is named in the message; should torch rename it again, the message says so itself."""
    assert (
        read_cuda_message(FULL.replace("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")).setting == "PYTORCH_ALLOC_CONF"
    )


def test_what_to_do_follows_from_who_holds_the_gpu():
    def steps(text):
        found = diagnose(a_record("oom", "h100-94gb", overrides={"batch_size": 24}, reason=text), "")
        return found.kind, "\n".join(found.next_steps)

    kind, text = steps(FULL)
    assert kind == "gpu_full"
    assert "labkit advise reduced_batch batch_size=24 --gpu h100-94gb" in text
    assert "labkit run reduced_batch batch_size=24 --profile h100-94gb --fit" in text
    kind, text = steps(OTHER)
    assert kind == "gpu_other_process"
    assert "ps -o pid,user,etime,cmd -p 54776 " in text  # the other holds next to nothing
    kind, text = steps(HOLES)
    assert kind == "gpu_fragmented"
    assert text.startswith("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True labkit run reduced_batch batch_size=24")


# -- records


@pytest.mark.slow
def test_a_simulated_out_of_memory_says_what_held_the_memory(ledger):
    record = run("baseline", {"max_steps": 2})
    found = diagnose(record, "")
    assert (record.status, found.kind) == ("oom", "simulated_gpu_full")
    assert f"{record.died_in.phase} of step {record.died_in.step}" in found.happened
    largest = max((n, c) for c, n in record.out_of_memory.held.items())[1]
    assert f"held by {largest.removesuffix('_gpu')}" in found.evidence[1]
    assert "act_ckpt=true" in found.evidence[-1]
    assert found.next_steps[0].startswith("labkit advise baseline max_steps=2 --gpu tiny")
    assert shaped(Diagnosis, json.loads(json.dumps(plain(found)))) == found


def test_a_run_that_ended_well_has_nothing_to_say_unless_its_loss_is_no_number():
    assert diagnose(a_record("ok", losses=[2.0, 1.0]), "Killed\nNo space left on device") is None
    assert diagnose(a_record("skipped", reason="no GPU"), "") is None
    found = diagnose(a_record("ok", losses=[2.0, 1.5, None, None]), "")
    assert found.kind == "nan_loss"
    assert "first at optimizer step 2 of 4 (counted from 0); the step before it had 1.500" in found.evidence
    assert "lr=5e-05" in found.next_steps[0]


@pytest.mark.slow
def test_a_loss_that_turns_nan_in_a_real_run_is_found(ledger):
    record = run("reduced_batch", {"lr": 1e6, "max_steps": 4})
    assert record.status == "ok"
    assert diagnose(record, "").kind == "nan_loss"


ENDS = {
    "its time": (dict(status="timeout", reason="stopped after the 5 s it was given", wall_seconds=5.0), "timeout",
                 "--timeout-s 60"),
    "Ctrl-C": (dict(status="killed", reason="interrupted by Ctrl-C", exit_code=-2), "interrupted", "labkit run"),
    "its watcher": (dict(status="killed", reason="its watcher stopped: MemoryError"), "watcher_killed", "labkit run"),
    "no one watched": (
        dict(status="killed", reason="the process that watched it was killed; no record was written"), "watcher_killed",
        "labkit run",
    ),
    "a crash": (dict(exit_code=-11), "crashed", "PYTHONFAULTHANDLER=1"),
    "a scheduler": (dict(exit_code=-15), "killed", "labkit run"),
    "exit code 124": (dict(exit_code=124), "distributed_timeout", "grep -il"),
    "a refusal": (dict(reason="photo.png is damaged; take it out", exit_code=0), "refused", "labkit run"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "kind", "step"), ENDS.values(), ids=ENDS)
def test_the_record_tells_how_a_run_ended(values, kind, step):
    found = diagnose(a_record(**values), "epoch 1\n")
    assert found.kind == kind
    assert step in "\n".join(found.next_steps)


def test_a_run_with_checkpoints_resumes_and_one_without_starts_again():
    stopped = dict(status="killed", reason="interrupted by Ctrl-C")
    kept = diagnose(a_record(overrides={"enable_checkpointing": True}, **stopped), "")
    assert kept.next_steps == ["labkit run --resume 20260102-150405-abcd  # resumes from the last checkpoint"]
    assert diagnose(a_record(**stopped), "").next_steps[0].startswith("labkit run reduced_batch --profile tiny")


@pytest.mark.parametrize(
    ("host", "kind", "words"),
    [
        (None, "host_out_of_memory", "likely"),
        (OomKills(group=None, machine=None), "host_out_of_memory", "likely"),
        (OomKills(group=0, machine=None), "host_out_of_memory", "likely"),
        (OomKills(group=1, machine=1), "host_out_of_memory", "confirms"),
        (OomKills(group=0, machine=1), "host_out_of_memory", "confirms"),
        (OomKills(group=0, machine=0), "killed", "has not moved"),
        (OomKills(group=None, machine=0), "killed", "has not moved"),
    ],
)
def test_a_kill_is_said_to_be_the_kernels_only_as_far_as_it_is_known(host, kind, words):
    found = diagnose(a_record("killed", reason="killed by signal 9 (SIGKILL)", exit_code=-9), "", host)
    assert found.kind == kind
    assert words in found.happened
    steps = "\n".join(found.next_steps)
    assert ("labkit doctor reduced_batch --profile tiny" in steps) == (kind == "host_out_of_memory")
    assert ("num_workers=0" in steps) == (kind == "host_out_of_memory")


@pytest.fixture
def small_group():
    """A control group with 64 MiB of memory (version 1 or 2)."""
    for top, limit in (("memory", "memory.limit_in_bytes"), (".", "memory.max")):
        folder = Path("/sys/fs/cgroup") / top / f"labkit-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            if (folder / limit).exists():
                (folder / limit).write_text(str(64 * 2**20))
                yield folder
                (folder / "cgroup.procs").read_text()
                folder.rmdir()
                return
            folder.rmdir()
    pytest.skip("needs the right to make a control group")


@pytest.mark.slow
def test_the_kernels_own_kill_is_confirmed_from_its_counters(small_group):
    before = HostMemory.read()
    child = f"echo $$ > {small_group}/cgroup.procs; exec {sys.executable} -c 'x = bytearray(2**28)'"
    done = subprocess.run(["sh", "-c", child], timeout=60)
    kills = before.kills_until(HostMemory.read())
    assert done.returncode == -signal.SIGKILL
    assert kills.machine >= 1
    found = diagnose(a_record("killed", exit_code=done.returncode), "", kills)
    assert found.kind == "host_out_of_memory"
    assert any("rose by" in line for line in found.evidence)


@pytest.mark.slow
def test_a_kill_by_somebody_is_not_called_the_kernels():
    before = HostMemory.read()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child.kill()
    found = diagnose(a_record("killed", exit_code=child.wait()), "", before.kills_until(HostMemory.read()))
    child.stdin.close()
    assert (found.kind, before.machine_kills is not None) == ("killed", True)


# -- what was printed, provoked


@pytest.mark.slow
def test_a_full_disk_is_found_however_it_is_said(tmp_path):
    disk = on_a_small_disk(tmp_path)
    texts = [
        f"open('{tmp_path}/x', 'wb').write(bytes(2 * 10**6))",
        f"import torch; torch.save(torch.ones(10**6), '{tmp_path}/x.pt')",
        f"import torch, safetensors.torch as s; s.save_file({{'a': torch.ones(10**6)}}, '{tmp_path}/x.safetensors')",
    ]
    for code in texts:
        found = diagnose_log(provoke(code, shell=disk))
        assert found.kind == "disk_full", code
    assert "another/disk" in found.next_steps[-1]
    ours = diagnose(a_record(reason="OSError: [Errno 28] No space left on device", exit_code=1), "")
    assert "LABKIT_RUNS=/another/disk/runs" in ours.next_steps[-1]


@pytest.mark.slow
def test_a_refusal_of_memory_is_the_hosts():
    code = "import resource, torch; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); torch.ones(2**34)"
    found = diagnose_log(provoke(code))
    assert found.kind == "host_out_of_memory"
    assert "refused" in found.happened
    assert any("can't allocate memory" in line for line in found.evidence)


WORKER = """
import os, signal, torch
from torch.utils.data import DataLoader, Dataset
class Photos(Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): {item}
list(DataLoader(Photos(), num_workers=1))
"""


@pytest.mark.slow
def test_a_lost_loader_worker_is_found():
    found = diagnose_log(provoke(WORKER.format(item="os.kill(os.getpid(), signal.SIGKILL)")))
    assert found.kind == "loader_worker"
    assert "num_workers=0" in found.next_steps[0]


@pytest.mark.slow
def test_full_shared_memory_is_not_taken_for_a_full_disk():
    disk = on_a_small_disk(Path("/dev/shm"))
    text = provoke(WORKER.format(item="return torch.ones(8 * 2**20)"), shell=disk)
    assert "No space left on device" in text
    assert diagnose_log(text).kind == "shared_memory"


JOIN = """
import datetime, os, time, torch, torch.distributed as d
d.init_process_group("gloo", init_method="tcp://127.0.0.1:{port}", rank={rank}, world_size={size},
                     timeout=datetime.timedelta(seconds=2))
"""


@pytest.fixture
def port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_a_port_that_is_taken_is_found():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = diagnose_log(provoke(JOIN.format(port=taken.getsockname()[1], rank=0, size=1)))
    assert found.kind == "port_in_use"
    assert "MASTER_PORT" in found.next_steps[-1]


@pytest.mark.slow
def test_processes_that_do_not_find_each_other_are_found(port):
    assert diagnose_log(provoke(JOIN.format(port=port, rank=1, size=2))).kind == "distributed_connection"


@pytest.mark.slow
@pytest.mark.parametrize(("other", "kind"), [("time.sleep(5)", "distributed_timeout"), ("os._exit(1)", "gloo")])
def test_a_rank_that_hangs_is_told_from_one_that_died(port, other, kind):
    code = JOIN.format(port=port, rank=1, size=2) + other
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as peer:
        text = provoke(JOIN.format(port=port, rank=0, size=2) + "d.all_reduce(torch.ones(1))")
        peer.kill()
    assert diagnose_log(text).kind == kind


FILE = "from huggingface_hub import hf_hub_download; hf_hub_download('nobody/nothing', 'config.json')"
MODEL = "from huggingface_hub import HfApi; HfApi().model_info('nobody/nothing')"  # does not try again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "offline", "kind"),
    [(FILE, "1", "hub_offline"), (MODEL, "1", "hub_offline"), (MODEL, "0", "hub_unreachable")],
)
def test_a_hub_that_is_switched_off_is_told_from_one_out_of_reach(code, offline, kind, port, tmp_path):
    text = provoke(code, environment={
        "HF_HUB_OFFLINE": offline, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path),
    })  # fmt: skip
    assert diagnose_log(text).kind == kind


SERVE_401 = """
import http.server, threading
class Refuse(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response({status}); self.send_header("X-Error-Code", "GatedRepo"); self.end_headers()
    def log_message(self, *a): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Refuse)
threading.Thread(target=server.serve_forever, daemon=True).start()
import os; os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{{server.server_port}}"
"""


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_is_found(status, tmp_path):
    text = provoke(SERVE_401.format(status=status) + FILE,
                   environment={"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)})  # fmt: skip
    assert diagnose_log(text).kind == "token"


@pytest.mark.slow
def test_ctrl_c_is_found_in_a_log():
    # a shell that starts the tests in the background lets them ignore Ctrl-C, and children inherit that
    listen = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    assert diagnose_log(provoke(listen + "os.kill(os.getpid(), signal.SIGINT)")).kind == "interrupted"


def test_the_two_errors_of_slurm_scripts_are_found_as_lightning_prints_them(monkeypatch):
    from lightning.fabric.plugins.environments import SLURMEnvironment
    from lightning.fabric.utilities import device_parser

    for name, value in (("SLURM_NTASKS", "2"), ("SLURM_JOB_NAME", "train"), ("SLURM_JOB_ID", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError) as error:
        SLURMEnvironment()
    found = diagnose_log(str(error.value))
    assert found.kind == "slurm_ntasks"
    assert found.next_steps[0].startswith("#SBATCH --ntasks-per-node=2 ")
    monkeypatch.setattr(device_parser, "_get_all_available_gpus", lambda **kinds: [0])  # one GPU, where there is none
    with pytest.raises(device_parser.MisconfigurationException) as error:
        device_parser._sanitize_gpu_ids([0, 1], include_cuda=True)
    found = diagnose_log(str(error.value))
    assert found.kind == "slurm_devices"
    assert any("machine only has: [0]" in line for line in found.evidence)
    assert "--gpus-per-node" in found.next_steps[0]


# -- what was printed, quoted

QUOTED = {
    # torch 2.6, ProcessGroupNCCL.cpp
    "[rank1]:[E1003 18:37:01.832146912 ProcessGroupNCCL.cpp:607] [Rank 1] Watchdog caught collective operation "
    "timeout: WorkNCCL(SeqNum=6463, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=1800000) ran for 1800017 "
    "milliseconds before timing out.": "distributed_timeout",
    # torch 2.5, NCCLUtils.hpp
    "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, "
    "unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclUnhandledCudaError: Call to "
    "CUDA function failed.\nLast error:\nCuda failure 'uncorrectable ECC error encountered'": "gpu_memory_faulty",
    "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, "
    "unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclUnhandledCudaError: Call to "
    "CUDA function failed.": "nccl",
    # NCCL 2.29
    "NCCL WARN Failed to CUDA calloc 536870912 bytes\nncclUnhandledCudaError: Call to CUDA function failed.":
        "gpu_full",
    # torch 2.x, torch/cuda/__init__.py
    "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver by "
    "downloading and installing a new version": "driver_mismatch",
    "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version": "driver_mismatch",
    "Failed to initialize NVML: Driver/library version mismatch": "driver_mismatch",
    # CUDA 12, and torch 2.13, torch/cuda/__init__.py: _check_cubins and _warn_unsupported_code
    "RuntimeError: CUDA error: no kernel image is available for execution on the device": "unsupported_gpu",
    "Tesla V100-SXM2-32GB with CUDA capability sm_70 is not compatible with the current PyTorch installation.\n"
    "The current PyTorch install supports CUDA capabilities sm_75 sm_80 sm_86 sm_90 sm_100 sm_120.": "unsupported_gpu",
    "Your installed torch==2.13.0 does not include kernels for this GPU. Reinstall the same version against a CUDA "
    "build that does, e.g.:": "unsupported_gpu",
    # the workshop's, S2
    "You set `--ntasks=2` in your SLURM bash script, but this variable is not supported. HINT: Use "
    "`--ntasks-per-node=2` instead.": "slurm_ntasks",
    "You requested gpu: [0, 1]\n But your machine only has: [0]": "slurm_devices",
    "You requested gpu: [0, 1] But your machine only has: [0]": "slurm_devices",
    "You set `devices=2` in Lightning, but the number of tasks per node configured in SLURM `--ntasks-per-node=1` "
    "does not match. HINT: Set `devices=1`.": "slurm_mismatch",
    # Slurm 23
    "slurmstepd: error: Detected 1 oom_kill event in StepId=123.0. Some of the step tasks have been OOM Killed.":
        "host_out_of_memory",
    "slurmstepd: error: *** JOB 123 ON c1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***": "job_time_limit",
    # torchrun of torch 2.13, DeepSpeed 0.19, bash
    "  exitcode  : -9 (pid: 4242)\n  error_file: <N/A>\n  traceback : Signal 9 (SIGKILL) received by PID 4242":
        "host_out_of_memory",
    "  exitcode  : 124 (pid: 4242)": "distributed_timeout",
    "[ERROR] [launch.py:325:sigkill_handler] ['python', 'train.py'] exits with return code = -9": "host_out_of_memory",
    "run.sh: line 3:  4242 Killed                  python train.py": "host_out_of_memory",
    # torch 2.13, signal_handling.py
    "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed. ": "loader_worker",
    "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).":
        "shared_memory",
    "OSError: [Errno 122] Disk quota exceeded: '/home/student/.cache/huggingface'": "quota",
    # torch.distributed.elastic, torch 2.13; and the shell
    "  exitcode  : -4 (pid: 4242)\n  traceback : Signal 4 (SIGILL) received by PID 4242": "illegal_instruction",
    "  exitcode  : -6 (pid: 4242)\n  traceback : Signal 6 (SIGABRT) received by PID 4242": "aborted",
    "E0102 api.py:869] failed (exitcode: 1) local_rank: 1 (pid: 4242) of binary: /env/bin/python": "rank_failed",
    "srun: error: n1: task 0: Exited with exit code 1": "rank_failed",
    "W0102 api.py:897] received SIGTERM death signal, shutting down workers": "killed",
    "RuntimeError: Expected to have finished reduction in the prior iteration before starting a new one.":
        "ddp_unused",
    # cuBLAS
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": "gpu_full",
}  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), QUOTED.items(), ids=[f"{k} {i}" for i, k in enumerate(QUOTED.values())])
def test_a_text_of_another_machine_is_found_and_quoted(text, kind):
    found = diagnose_log(f"loading\n{text}\n")
    assert found.kind == kind
    assert set(found.evidence) & {line.rstrip() for line in text.splitlines()}


def test_what_makes_other_things_fail_comes_before_what_follows_from_it():
    timeout = next(text for text, kind in QUOTED.items() if kind == "distributed_timeout")
    assert diagnose_log(f"{FULL}\n{timeout}").kind == "gpu_full"
    assert diagnose_log(f"{timeout}\nOSError: [Errno 28] No space left on device").kind == "disk_full"


def test_every_symptom_is_seen_in_a_test():
    source = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))
    # "gpu_memory" is PyTorch's own message, whose numbers choose the kind that is answered
    assert [s.kind for s in SYMPTOMS if f'"{s.kind}"' not in source] == []


OWN = [s for module in (host, gpu, jobs, libraries, training) for s in module.SYMPTOMS]
"""Symptoms of labkit's own runs; those of other programs are in test_ends.py."""


@pytest.mark.parametrize("record", [None, a_record(overrides={"num_workers": 2})], ids=["a log", "a record"])
@pytest.mark.parametrize("symptom", OWN, ids=lambda s: s.kind)
def test_what_to_do_is_a_command_with_its_reason(symptom, record):
    templates = [template for template in symptom.next_steps if not template.startswith("{fit")]
    for step in NextSteps(record).fill(templates, {"tasks": "2"}):
        command, _, why = step.partition("  # ")
        assert re.match(r"#SBATCH |@?[A-Za-z_][\w.]*[=(]|@?[a-z]", command)
        assert not re.search(r"(?<!\$)\{[a-z_]+[:}]", command)
        assert why or command.startswith("labkit doctor")


@pytest.mark.parametrize("precision", [*DTYPES, None, "8-true"])
def test_a_loss_that_is_nan_in_half_precision_is_told_the_range_of_32_bits(precision):
    record = a_record()
    record.config |= {"precision": precision}
    if precision is None:  # of an old version, which had no such key
        del record.config["precision"]
    said = any("range of 32 bits" in step for step in NextSteps(record).nan())
    assert said == (precision in (None, "16-mixed", "16-true"))


def test_the_reason_of_a_record_begins_with_the_cause_in_its_log():
    log = (
        "Traceback (most recent call last):\nRuntimeError: unable to allocate shared memory(shm) for file "
        "</torch_1>: No "
        "space left on device (28)\n"
    )
    last = "RuntimeError: DataLoader worker (pid(s) 77) exited unexpectedly"
    record = a_record(reason=last, exit_code=1)
    assert with_cause(diagnose(record, log + last), last).startswith("RuntimeError: unable to allocate shared memory")
    assert last in with_cause(diagnose(record, log + last), last)
    assert with_cause(diagnose(record, last), last) == last
    long = f"checkpoint is damaged (PytorchStreamReader failed reading zip archive: {'x' * 900}); delete it"
    assert with_cause(diagnose(a_record(reason=long, exit_code=0), ""), long) == long
    unknown = a_record(reason="KeyError: 'x'", exit_code=1)
    assert (
        with_cause(diagnose(unknown, "Traceback (most recent call last):\nKeyError: 'x'"), "KeyError: 'x'")
        == "KeyError: 'x'"
    )


# -- what no symptom names


def test_an_unknown_end_says_so_and_shows_the_last_lines():
    log = "\n".join(f"line {i}" for i in range(30)) + "\nZeroDivisionError: division by zero\n"
    found = diagnose(a_record(reason="ZeroDivisionError: division by zero", exit_code=1), f"Traceback\n{log}")
    assert found.kind == "unknown"
    assert "Unknown" in found.happened
    assert found.evidence[-1] == "ZeroDivisionError: division by zero"
    assert "line 29" in found.evidence
    assert "line 9" not in found.evidence
    assert diagnose_log("").evidence == ["nothing was printed"]


@pytest.mark.slow
def test_a_log_is_read_from_its_end_without_what_a_terminal_would_obey(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"step 1\n" + b"x" * 2**20 + b"\n\xff\n\x00\x1b[31mKilled\x1b[0m\r\n")
    assert len(read_tail(path)) <= 2**20
    text = read_log(path)
    assert len(text) <= 2**20
    found = diagnose_log(text)
    assert (found.kind, found.evidence) == ("host_out_of_memory", ["Killed"])
    assert read_tail(tmp_path / "nothing") == read_log(tmp_path / "nothing") == ""


NOISE = "".join(f"epoch 1: {n % 100}%|##| {n}/99999 [00:01<00:02, 9.1it/s, loss={n}.0]\n" for n in range(60_000))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [
    "".join(f"[rank{n % 8}]: W0102 ProcessGroup.cpp:1496] Warning: process group has NOT been destroyed {n}\n"
            for n in range(60_000)),
    "".join(f"../Indexing.cu:1146: block: [{n},0,0], thread: [{n % 64},0,0] warning repeated\n" for n in range(60_000)),
], ids=["ranks", "threads"])  # fmt: skip
def test_a_cause_that_megabytes_of_noise_follow_is_found(tmp_path, noise):
    """The whole file is read, in little memory: what is kept of it is small, however long it is."""
    path = tmp_path / "log.txt"
    path.write_text(f"{NOISE}Traceback (most recent call last):\nOSError: [Errno 28] No space left on device\n{noise}")
    assert path.stat().st_size > 6 * 2**20
    text = read_log(path)
    assert len(text) < 2**19
    assert diagnose_log(text).kind == "disk_full"


def test_a_log_of_a_powershell_is_read(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("OSError: [Errno 28] No space left on device", encoding="utf-16")
    assert diagnose_log(read_log(path)).kind == "disk_full"


def test_evidence_is_cut_around_what_it_is_evidence_for():
    found = diagnose_log("x" * 5000 + " exits with return code = -9 " + "y" * 5000)
    assert found.kind == "host_out_of_memory"
    assert any("return code = -9" in line and len(line) < 400 for line in found.evidence)


def test_no_secret_is_quoted():
    token, key = "hf_" + "aB3" * 11, "0123456789abcdef" * 2 + "01234567"
    log = f"HF_TOKEN={token}\nlogged in with {token}\nwandb: {key}\nGET /x?token=s3cret&a=1\n"
    log += "Authorization: Bearer s3cret\nboom\n"
    said = str(plain(diagnose_log(log)))
    assert "boom" in said
    assert all(secret not in said for secret in (token, key, "s3cret"))
    assert clean("a=1&token=s3cret&b=2") == "a=1&token=***&b=2"


@pytest.mark.slow
def test_a_large_log_of_one_line_is_read_to_its_end():
    """A pattern that tried every way would not come to an end here."""
    texts = ("CUDA out of memory. Tried to allocate 2.00 GiB. ", "Killed ", "inline_container.cc ", "exit code : ",
             "DataLoader worker (pid ", "worker ", "a")  # fmt: skip
    for text in texts:
        assert diagnose_log(text * (2**16 // len(text))).next_steps
