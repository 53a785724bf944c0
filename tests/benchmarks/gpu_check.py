"""Predicted against measured memory, for every experiment of a profile, on a machine with a CUDA GPU.

    PYTHONPATH=. python tests/benchmarks/gpu_check.py --profile h100-94gb                  in a checkout
    python /opt/labkit/source/tests/benchmarks/gpu_check.py --profile h100-94gb            in the image, on a node

Each experiment runs for three optimizer steps with random weights, in a child process of labkit's runner that is held
to the profile's capacity; one more row, pretrained_base, loads the checkpoint that ships. What was predicted and what
was measured goes into ``gpu_check-<profile>.json`` and ``.md`` in the workspace's folder ``results``, which ``provision
collect`` brings home from a node.
Both are written after every row. Started again, the command resumes where it stopped: a row is done when one of the
same config on the same GPU, with the same libraries and the same text of labkit, was compared. Cheap rows come first.

It works with the versions that it finds, needs no network, and skips by name what a missing library keeps from running.
Without a GPU, ``--profile tiny`` does all of it on the simulated GPU.

Exit code: 0 when at least one row was compared, all compared rows agree and none failed; 1 otherwise. A row agrees
when its verdict and place of death are the predicted and the expected ones, and when every phase's peak, end and
reserved bytes are within 2%.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

try:
    from labkit.config.errors import ConfigError
    from labkit.config.layers import Resolved, resolve
    from labkit.config.profiles import Expected, Profile, load_profile
    from labkit.config.schema import RunConfig
    from labkit.config.workspace import Workspace
    from labkit.ledger.errors import LedgerError
    from labkit.ledger.records import Record
    from labkit.ledger.shape import plain
    from labkit.ledger.whole_file import write_whole
    from labkit.memory.categories import CATEGORIES
    from labkit.memory.report import MemoryReport, PhaseMemory
    from labkit.memory.units import human_bytes
    from labkit.plan.predict import Prediction, predict
    from labkit.runs.runner import run
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing here; run this in labkit's folder with PYTHONPATH=. and what labkit needs.")

ROOT = Path(__file__).parents[2]
DEFAULT_PROFILE = "h100-94gb"
STEPS = 3
"""Two that are reported and one that runs at full speed."""
LOADER_PROCESSES = 2
LIMIT = 0.02
"""Share by which a prediction may differ from what is measured."""
JUDGED = ("peak", "end", "reserved")
"""Of each phase; categories are told and not judged, since small ones are a share of nothing."""

NEEDED = {
    "torch": "torch", "lightning": "lightning", "transformers": "transformers", "tokenizers": "tokenizers",
    "peft": "peft", "safetensors": "safetensors", "PIL": "pillow", "msgspec": "msgspec",
}  # fmt: skip
"""Without one of these nothing runs: modules, and the packages that bring them."""
RECORDED = (
    "torch", "lightning", "transformers", "tokenizers", "peft", "accelerate", "safetensors", "bitsandbytes",
    "deepspeed", "numpy", "triton",
)  # fmt: skip
"""Packages whose version is part of a result."""
ENVIRONMENT = (
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE", "TORCH_BLAS_PREFER_CUBLASLT", "CUDA_MODULE_LOADING", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE", "DS_ACCELERATOR",
)  # fmt: skip
"""Variables that change how much memory is taken."""

START_S, PER_GIB_S = 25.0, 0.5
"""Assumed cost of a row before anything is measured: imports and start of CUDA; per GiB of weights, made and left."""
PER_GIB_SAMPLE_S = {"bf16-true": 0.0015, "16-true": 0.0015, "bf16-mixed": 0.0015, "16-mixed": 0.0015, "32-true": 0.005}
"""Assumed cost of a sample per GiB of weights, on an H100."""

QUERY_TIMEOUT_S = 10.0
MATMUL_SIZE = 1024
CLOCK_S = 0.5
"""By which a run's seconds may be above those of its events: both are read a moment apart."""
LOG_LINES = 30


# -- what is here


def missing(modules: Iterable[str]) -> list[str]:
    """Those of ``modules`` that are not installed."""

    def is_here(name: str) -> bool:
        try:
            return importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:  # from a finder that hides it
            return False

    return [name for name in modules if not is_here(name)]


def needs(config: RunConfig) -> list[str]:
    """Libraries that this run takes beside those that all take."""
    found = ["bitsandbytes"] if "8bit" in config.optim or config.use_qlora else []
    return found + (["deepspeed"] if config.placement.uses_zero else [])


def versions() -> dict[str, str | None]:
    """Python's version and those of the libraries; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def labkit_facts(typed_commit: str | None) -> dict[str, str | None]:
    """The commit, and a hash of labkit's text, which is there without git too and tells whether a row is outdated."""
    text = hashlib.sha256()
    for path in sorted((ROOT / "labkit").rglob("*.py")):
        text.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return {"commit": typed_commit or _git_commit(), "text": text.hexdigest()[:12]}


def _git_commit() -> str | None:
    said = _answer("git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*")
    return said.strip() if said else None


def _answer(program: str, *arguments: str) -> str | None:
    """What a program prints; None where there is none or it fails."""
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def cuda_facts() -> dict[str, Any] | None:
    """The GPU, its driver, and what takes memory beside tensors; None without CUDA.

    To be called in a process of its own, which holds no memory of the GPU while the runs are running.
    """
    import torch

    from labkit.memory.cuda import used_by_others_bytes

    if not torch.cuda.is_available():
        return None
    others_bytes = used_by_others_bytes()  # before this process is one of them
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    used_bytes = total_bytes - free_bytes
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    driver = _answer("nvidia-smi", f"--id={gpu}", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "gpu": torch.cuda.get_device_name(0),
        "driver": driver.strip() if driver else None,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "total_bytes": total_bytes,
        "torch_total_bytes": torch.cuda.get_device_properties(0).total_memory,
        "used_by_others_bytes": others_bytes,
        "context_bytes": None if others_bytes is None else used_bytes - others_bytes,
        "used_with_context_bytes": used_bytes,
        "cublas_workspace_bytes": _cublas_workspace_bytes(),
        "allocator": torch.cuda.get_allocator_backend(),
        "attention": {
            name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")()
            for name in ("cudnn", "flash", "mem_efficient", "math")  # of a process as torch starts it
        },
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _cublas_workspace_bytes() -> int:
    """What a first matrix product leaves allocated beside its tensors: the planner has to know it."""
    import torch

    before = torch.cuda.memory_allocated()
    factor = torch.ones(MATMUL_SIZE, MATMUL_SIZE, device="cuda", dtype=torch.bfloat16)
    product = factor @ factor
    tensors_bytes = factor.nbytes + product.nbytes
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated() - before - tensors_bytes


def simulated_facts() -> dict[str, Any]:
    """The machine of a simulated GPU, which is none."""
    return {"gpu": f"simulated GPU on {platform.machine()} CPU", "driver": None}


def environment() -> dict[str, str | bool]:
    """Variables that are set, and what they say about expandable segments."""
    found = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    allocator = found.get("PYTORCH_ALLOC_CONF", "") + "," + found.get("PYTORCH_CUDA_ALLOC_CONF", "")
    return found | {"expandable_segments": "expandable_segments:true" in allocator.replace(" ", "").lower()}


def in_child(work: Any) -> Any:
    """What ``work`` returns in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work).result()


def describe_setup(machine: dict[str, Any], typed_commit: str | None) -> dict[str, Any]:
    """Machine, versions, environment and labkit, with an ``id`` that changes when a measurement could."""
    setup = {
        "machine": machine, "versions": versions(), "labkit": labkit_facts(typed_commit), "environment": environment()
    }  # fmt: skip
    lasting = [machine["gpu"], machine["driver"], setup["versions"], setup["labkit"]["text"], setup["environment"]]
    return {"id": hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:12]} | setup


# -- rows

PRETRAINED = "pretrained_base"
"""A row beside the experiments: the base that ships, loaded from its checkpoint as the course's models are."""
BASE = {"model_name": "tiny/blip2-opt-base", "weights": "pretrained", "batch_size": 8}


@dataclass(frozen=True)
class Row:
    """One line of the results: ``experiment`` is run with what is typed in ``overrides``."""

    name: str
    experiment: str
    overrides: dict[str, Any]
    resolved: Resolved
    expected: Expected

    @property
    def config(self) -> RunConfig:
        """What is run."""
        return self.resolved.config

    @property
    def number(self) -> int:
        """Its place in the course; after all experiments for a row that is none."""
        return self.resolved.experiment.number if self.name == self.experiment else 1000


def row_names(profile: Profile) -> list[str]:
    """The rows that a profile has."""
    return [*profile.expected, PRETRAINED]


def row_of(workspace: Workspace, name: str, profile: Profile) -> Row:
    """A row as it is run here: no download, no more samples than three steps need."""
    if name == PRETRAINED:
        experiment, more, expected = min(profile.expected), BASE, Expected()
    else:
        experiment, more, expected = name, {"weights": "random"}, profile.expected[name]
    plain = resolve(workspace, experiment, more, profile.name).config
    overrides = overrides_of(plain) | more
    return Row(name, experiment, overrides, resolve(workspace, experiment, overrides, profile.name), expected)


def overrides_of(config: RunConfig) -> dict[str, Any]:
    """Values that are typed for a row. Captions are padded to one length, so another data set takes the same memory."""
    return {
        "dataset": "fluent_emoji",
        "max_steps": STEPS,
        "num_train_samples": STEPS * config.batch_size * config.accumulate_grad_batches,
        "num_workers": min(config.num_workers, LOADER_PROCESSES),
    }


def predict_in_child(config: RunConfig) -> Prediction:
    """A prediction, in a process of its own."""
    import torch

    from labkit.verbs.options import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()
    return predict(config)


def predict_all(rows: list[Row]) -> dict[str, Prediction | str]:
    """Predictions by row; where there is none, why.

    In other processes, one for each core: an error of a library in one row says so and does not end the others.
    """
    if not rows:
        return {}
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(rows)), get_context("spawn")) as pool:
        futures = {row.name: pool.submit(predict_in_child, row.config) for row in rows}
    errors = {name: future.exception() for name, future in futures.items()}
    return {name: _why(error) if (error := errors[name]) else futures[name].result() for name in futures}


def _why(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:  # transformers raises some without
        return f"{error.name} is not installed, and labkit's prediction asks for it"
    return f"no prediction: {type(error).__name__}: {error}".splitlines()[0]


def impossible(row: Row, total_bytes: int | None) -> str | None:
    """Why this row cannot run here, before anything is predicted; None where it can."""
    if row.resolved.skip_reason and row.name == row.experiment:
        return row.resolved.skip_reason
    absent = missing(needs(row.config))
    if absent:
        return f"{' and '.join(absent)} not installed"
    if total_bytes is not None and (row.config.capacity_bytes or 0) > total_bytes:
        return f"its {human_bytes(row.config.capacity_bytes)} are more than the GPU's {human_bytes(total_bytes)}"
    return None


def too_much_for_host(prediction: Prediction) -> str | None:
    """Why offload would end in the kernel's killing something; None where there is room."""
    host_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if prediction.host_bytes <= host_bytes:
        return None
    return f"needs {human_bytes(prediction.host_bytes)} of host memory, of which there are {human_bytes(host_bytes)}"


def estimate_s(config: RunConfig, prediction: Prediction) -> float:
    """Seconds that a row takes, before any was measured; what counts is the order."""
    gib = prediction.category_peaks["parameters"] / 2**30
    samples = STEPS * config.batch_size * config.accumulate_grad_batches
    return START_S + gib * (PER_GIB_S + samples * PER_GIB_SAMPLE_S[config.precision])


class Pace:
    """Says whether there is time for another row; estimates are corrected by the rows that were run."""

    def __init__(self, budget_s: float, begun: float) -> None:
        self.budget_s = budget_s
        self._begun = begun
        self._estimated_s = self._took_s = 0.0

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return self.budget_s - (time.monotonic() - self._begun)

    def expected_s(self, estimate: float) -> float:
        """An estimate, corrected."""
        return estimate * (self._took_s / self._estimated_s if self._estimated_s else 1.0)

    def took(self, estimate: float, seconds: float) -> None:
        """Learn from a row."""
        self._estimated_s += estimate
        self._took_s += seconds


# -- comparing


def error_of(predicted: float | None, measured: float | None) -> float | None:
    """Signed share: above zero too much was predicted. None where nothing was measured or predicted."""
    if predicted is None or not measured:
        return None
    return predicted / measured - 1


def side_by_side(predicted: int | None, measured: int | None) -> dict[str, Any]:
    """Both numbers and the error."""
    return {"predicted": predicted, "measured": measured, "error": error_of(predicted, measured)}


def phase_pairs(prediction: MemoryReport, report: MemoryReport | None, accumulate: int) -> list[tuple[Any, Any]]:
    """Phases of both that are each other's. Of more than two micro steps the last is planned as the second."""
    measured = {(p.phase, p.step, p.micro_step): p for p in (report.phases if report else [])}
    pairs = []
    for planned in prediction.phases:
        key = (planned.phase, planned.step, accumulate - 1 if planned.micro_step else 0)
        if key in measured:  # a run that died has not come to all
            pairs.append((planned, measured[key]))
    return pairs


def compare_phase(planned: PhaseMemory, measured: PhaseMemory) -> dict[str, Any]:
    """A phase's bytes, predicted and measured; categories are those at its end."""
    return {
        "phase": measured.phase, "step": measured.step, "micro_step": measured.micro_step,
        "peak": side_by_side(planned.peak_bytes, measured.peak_bytes),
        "end": side_by_side(planned.end_bytes, measured.end_bytes),
        "reserved": side_by_side(planned.reserved_bytes, measured.reserved_bytes),
        "device_used_bytes": measured.device_used_bytes,
        "categories": {c: side_by_side(planned.end.get(c, 0), measured.end.get(c, 0)) for c in CATEGORIES},
    }  # fmt: skip


def summarize(pairs: list[tuple[PhaseMemory, PhaseMemory]]) -> dict[str, Any]:
    """The highest of all compared phases, which need not be the same phase on both sides."""
    planned, measured = [a for a, _ in pairs], [b for _, b in pairs]

    def highest(phases: list[PhaseMemory], pick: Any) -> int | None:
        return max((n for n in map(pick, phases) if n is not None), default=None)

    return {
        "peak": side_by_side(*(highest(side, lambda p: p.peak_bytes) for side in (planned, measured))),
        "reserved": side_by_side(*(highest(side, lambda p: p.reserved_bytes) for side in (planned, measured))),
        "categories": {
            c: side_by_side(*(highest(side, lambda p, c=c: p.highest.get(c, 0)) for side in (planned, measured)))
            for c in CATEGORIES
        },
    }  # fmt: skip


def worst_of(phases: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The largest judged error and its place."""
    found = [
        {"quantity": quantity, "error": phase[quantity]["error"]} | {k: phase[k] for k in ("phase", "step")}
        for phase in phases for quantity in JUDGED if phase[quantity]["error"] is not None
    ]  # fmt: skip
    return max(found, key=lambda worst: abs(worst["error"]), default=None)


def disagreements(prediction: Prediction, record: Record, expected: Expected, worst: dict | None) -> list[str]:
    """In words, each way in which the three do not agree; empty for a row that is right."""
    found, died = [], plain(record.died_in) or {}
    verdict = {"ok": "fits", "oom": "out of memory"}[record.status]
    if prediction.verdict not in (verdict, "borderline"):
        found.append(f"predicted {prediction.verdict}, measured {verdict}")
    elif verdict == prediction.verdict == "out of memory" and _place(prediction.died_in) != _place(died):
        found.append(f"predicted to die in {_place(prediction.died_in)}, died in {_place(died)}")
    if not expected.matches(record.status, died.get("step"), died.get("phase")):
        found.append(f"expected {expected}, measured {record.status} {_place(died)}".rstrip())
    if worst is not None and abs(worst["error"]) > LIMIT:
        found.append(f"{worst_words(worst)} is off by more than {LIMIT:.0%}")
    return found


def _place(died_in: dict[str, Any] | None) -> str:
    return f"{died_in['phase'].replace('_', ' ')}, step {died_in['step']}" if died_in else ""


def worst_words(worst: dict[str, Any] | None) -> str:
    """``"+1.20% end, after forward 1"``."""
    if worst is None:
        return "-"
    return f"{worst['error']:+.2%} {worst['quantity']}, {worst['phase'].replace('_', ' ')} {worst['step']}"


def compared(prediction: Prediction, record: Record, expected: Expected, clock: "StepClock") -> dict[str, Any]:
    """All that is told of a run that ended ok or out of memory."""
    accumulate = record.config["accumulate_grad_batches"]
    pairs = phase_pairs(prediction, record.memory, accumulate)
    phases = [compare_phase(*pair) for pair in pairs]
    worst = worst_of(phases)
    reasons = disagreements(prediction, record, expected, worst) + clock.disagreements(record.train_seconds)
    per_step = record.config["batch_size"] * accumulate
    return {
        "state": "compared", "agrees": not reasons, "disagreements": reasons, "worst": worst,
        **summarize(pairs), "phases": phases,
        "samples_per_s": per_step / clock.third_step_s if clock.third_step_s else None,
        "prediction": {
            "verdict": prediction.verdict, "died_in": prediction.died_in, "margin": prediction.margin,
            "requested_bytes": prediction.requested_bytes, "operation": prediction.operation,
            "peak_bytes": prediction.peak_bytes, "reserved_bytes": prediction.reserved_bytes,
            "warm_up_bytes": prediction.warm_up_bytes,
            "reserved_without_warm_up_bytes": prediction.reserved_without_warm_up_bytes,
            "host_bytes": prediction.host_bytes,
        },
    }  # fmt: skip


def measured_facts(record: Record, clock: "StepClock") -> dict[str, Any]:
    """What a run's record says, phases aside."""
    report = record.memory
    first = report.phases[0] if report and report.phases else None
    has_driver = first is not None and first.device_used_bytes is not None
    return {
        "status": record.status, "died_in": plain(record.died_in), "reason": record.reason, "run": record.id,
        "out_of_memory": plain(record.out_of_memory), "run_peak_bytes": record.peak_bytes, "losses": record.losses,
        "train_seconds": record.train_seconds, "wall_seconds": record.wall_seconds,
        "events_s": clock.training_s, "after_training_s": clock.after_training_s,
        "cudnn": record.versions.get("cudnn"), "cudnn_attention": record.config["cudnn_attention"],
        "used_by_others_bytes": record.others_bytes,
        # context, libraries' own memory and other processes
        "beside_allocator_bytes": first.device_used_bytes - (first.reserved_bytes or 0) if has_driver else None,
    }  # fmt: skip


class StepClock:
    """As ``on_event`` of a run: the seconds of the third step, which has no report, and those around training.

    By the clock of the process that queues the work; how far the GPU is behind it is left out at both ends.
    ``training_s`` goes from the event before training to that of the last step, ``after_training_s`` from there to the
    result: what is moved or written at the end.
    """

    def __init__(self) -> None:
        self._started: float | None = None
        self._ended: float | None = None
        self._second_ended: float | None = None
        self.third_step_s: float | None = None
        self.after_training_s: float | None = None
        self.folder: Path | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Look at one event."""
        match event["event"]:
            case "created":
                self.folder = Path(event["folder"])
            case "phase" if event["step"] == STEPS - 2 and event["phase"] == "after_optimizer_step":
                self._second_ended = event["time"]
            case "start":
                self._started = event["time"]
            case "progress" if event["step"] == STEPS and self._second_ended and self._ended is None:
                self._ended = event["time"]
                self.third_step_s = self._ended - self._second_ended
            case "result" if self._ended is not None:
                self.after_training_s = event["time"] - self._ended

    @property
    def training_s(self) -> float | None:
        """The time in which all steps were done; None for a run that did not come so far."""
        return None if None in (self._started, self._ended) else self._ended - self._started

    def disagreements(self, train_seconds: float) -> list[str]:
        """A run's own seconds that are more than there were between its events: they count what is no training."""
        if self.training_s is None or train_seconds <= self.training_s + CLOCK_S:
            return []
        return [f"the run says {train_seconds:.1f} s of training, its events {self.training_s:.1f} s"]

    def last_lines(self) -> list[str]:
        """The end of the run's log."""
        log = self.folder / "log.txt" if self.folder else None
        if log is None or not log.exists():
            return []
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]


# -- results on disk


class Results:
    """Setups and rows in one JSON file; a row is known by its setup, its experiment and its config.

    A file that cannot be read is put aside, and what it held can be looked for there.
    """

    def __init__(self, folder: Path, profile: str) -> None:
        self.profile = profile
        self.json = folder / f"gpu_check-{profile}.json"
        self.markdown = folder / f"gpu_check-{profile}.md"
        self.setups: dict[str, Any] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if self.json.exists():
            self._read()

    def _read(self) -> None:
        try:
            data = json.loads(self.json.read_text(encoding="utf-8"))
            self.setups, self.rows = dict(data["setups"]), dict(data["rows"])
            for row in self.rows.values():
                self.setups[row["setup"]]
            markdown(self)  # what cannot be told is damaged too
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.setups, self.rows = {}, {}
            aside = self.json.with_name(f"{self.json.stem}.damaged-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.json")
            self.json.rename(aside)
            print(f"{self.json.name} is damaged ({type(error).__name__}: {error}); it is kept as {aside.name}")

    def of_setup(self, setup: str) -> list[dict[str, Any]]:
        """The rows of one setup in the order of the course."""
        return sorted((r for r in self.rows.values() if r["setup"] == setup), key=lambda r: r["number"])

    def save(self) -> None:
        """Write both files, each whole or not at all."""
        write_whole(self.json, {"profile": self.profile, "limit": LIMIT, "setups": self.setups, "rows": self.rows})
        partial = self.markdown.with_suffix(".partial")
        partial.write_text(markdown(self), encoding="utf-8")
        partial.replace(self.markdown)


# -- Markdown


def markdown(results: Results) -> str:
    """All rows as tables, a section for each setup; the newest comes last."""
    parts = [f"# Predicted and measured memory, profile {results.profile}", EXPLANATION]
    for setup in results.setups.values():
        parts += _section(setup, results.of_setup(setup["id"]))
    return "\n\n".join(parts) + "\n"


EXPLANATION = f"""\
Written by `tests/benchmarks/gpu_check.py`. Error is predicted / measured - 1: above zero too much was predicted.
Judged against {LIMIT:.0%} are {", ".join(JUDGED)} of every phase; the largest of these errors is "worst". A share of a
small number says little, so categories are told and not judged. Of a run that died, the phases before are compared.
Samples a second are those of the third step, in which no one reports on memory."""


def _section(setup: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    done = [row for row in rows if row["state"] == "compared"]
    simulated = setup["machine"]["driver"] is None and "total_bytes" not in setup["machine"]
    unit, size = ("MiB", 2**20) if simulated else ("GiB", 2**30)
    agree = sum(row["agrees"] for row in done)
    parts = [f"## {setup['machine']['gpu']}", _setup_words(setup, rows), f"{agree} of {len(done)} compared rows agree."]
    if done:
        parts += [
            f"### Rows, {unit}", _table(ROW_COLUMNS, [_row_cells(row, size) for row in done]),
            f"### Phases, {unit}", _table(PHASE_COLUMNS, [c for row in done for c in _phase_cells(row, size)]),
            f"### Categories, the highest of each, {unit}",
            _table(CATEGORY_COLUMNS, [c for row in done for c in _category_cells(row, size)]),
        ]  # fmt: skip
    others = [f"- {row['experiment']}: {row['state']}, {row['reason']}" for row in rows if row["state"] != "compared"]
    wrong = [f"- {row['experiment']}: {'; '.join(row['disagreements'])}" for row in done if not row["agrees"]]
    parts += ["### What does not agree", "\n".join(wrong)] if wrong else []
    return parts + (["### Not compared", "\n".join(others)] if others else [])


def _setup_words(setup: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    machine, labkit = setup["machine"], setup["labkit"]
    driver = ""
    if machine["driver"]:
        driver = f"Driver {machine['driver']}, CUDA {machine.get('cuda')}, cuDNN {machine.get('cudnn')}"
        on = sorted(row["experiment"] for row in rows if row["config"].get("cudnn_attention"))
        driver += f" (its attention kernel {'on in ' + ', '.join(on) if on else 'off'}). "
    memory = ""
    if "total_bytes" in machine:
        context = machine["context_bytes"]
        memory = (
            f"{human_bytes(machine['total_bytes'])} in total, CUDA context "
            f"{'unknown' if context is None else human_bytes(context)}, cuBLAS workspace "
            f"{human_bytes(machine['cublas_workspace_bytes'])}, expandable segments "
            f"{'on' if setup['environment']['expandable_segments'] else 'off'}. "
        )
    found = ", ".join(f"{name} {number or 'missing'}" for name, number in setup["versions"].items())
    return f"{driver}{memory}{found}. labkit {labkit['commit'] or 'without git'} (text {labkit['text']})."


ROW_COLUMNS = (
    "#", "experiment", "predicted", "measured", "expected", "died, predicted", "died, measured", "peak, predicted",
    "peak, measured", "error", "reserved, predicted", "reserved, measured", "error", "worst", "agrees", "samples/s",
    "s",
)  # fmt: skip
PHASE_COLUMNS = (
    "experiment", "phase", "step", "micro", *(f"{q}{end}" for q in JUDGED for end in (", predicted", ", measured", "")),
)  # fmt: skip
CATEGORY_COLUMNS = ("experiment", "category", "predicted", "measured", "difference", "error")


def _table(columns: Iterable[str], rows: list[list[str]]) -> str:
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _row_cells(row: dict[str, Any], size: int) -> list[str]:
    prediction, measured, rate = row["prediction"], row["measured"], row["samples_per_s"]
    verdict = {"ok": "fits", "oom": "out of memory"}[measured["status"]]
    return [
        str(row["number"]), row["experiment"], prediction["verdict"], verdict, row["expected"],
        _place(prediction["died_in"]) or "-", _place(measured["died_in"]) or "-",
        *_cells(row["peak"], size), *_cells(row["reserved"], size), worst_words(row["worst"]),
        "yes" if row["agrees"] else "no", "-" if rate is None else f"{rate:.2f}", f"{measured['wall_seconds']:.0f}",
    ]  # fmt: skip


def _phase_cells(row: dict[str, Any], size: int) -> list[list[str]]:
    return [
        [row["experiment"], phase["phase"].replace("_", " "), str(phase["step"]), str(phase["micro_step"])]
        + [cell for quantity in JUDGED for cell in _cells(phase[quantity], size)]
        for phase in row["phases"]
    ]


def _category_cells(row: dict[str, Any], size: int) -> list[list[str]]:
    found = []
    for category, both in row["categories"].items():
        predicted, measured, error = _cells(both, size)
        if both["predicted"] or both["measured"]:  # both None for a run that died before its first phase
            difference = f"{(both['predicted'] - both['measured']) / size:+.3f}"
            found.append([row["experiment"], category.replace("_", " "), predicted, measured, difference, error])
    return found


def _cells(both: dict[str, Any], size: int) -> list[str]:
    numbers = ["-" if n is None else f"{n / size:.3f}" for n in (both["predicted"], both["measured"])]
    return [*numbers, "-" if both["error"] is None else f"{both['error']:+.2%}"]


# -- the command


def check(args: argparse.Namespace, begun: float) -> int:
    """Run what is left of a profile; the exit code."""
    workspace = Workspace.find()
    profile = load_profile(workspace, args.profile)
    if not profile.expected:
        raise ConfigError(f"profile {args.profile} names no experiments; take one of workspace/profiles.")
    names = [name for name in row_names(profile) if not args.only or name in args.only]
    if unknown := set(args.only or ()) - set(names):
        raise ConfigError(f"profile {args.profile} has no experiment {', '.join(sorted(unknown))}.")
    rows = [row_of(workspace, name, profile) for name in names]
    machine = _machine(rows)
    setup = describe_setup(machine, args.commit)
    results = Results(args.out or workspace.root / "results", args.profile)
    results.setups.pop(setup["id"], None)  # the newest comes last
    results.setups[setup["id"]] = setup
    print(f"{args.profile} on {machine['gpu']}: {len(rows)} rows, at most {args.budget_s:g} s", flush=True)
    left = []
    for row in rows:
        known = results.rows.get(_key(setup["id"], row), {})
        if known.get("state") == "compared" and not args.again:
            print(f"{row.name}: compared before, {_verdict_words(known)}", flush=True)
        elif reason := impossible(row, machine.get("total_bytes")):
            _note(results, setup["id"], row, "skipped", reason)
        else:
            left.append(row)
    _run_all(results, setup["id"], left, Pace(args.budget_s, begun))
    results.save()
    chosen = [r for key in (_key(setup["id"], row) for row in rows) if (r := results.rows.get(key))]
    return _conclude(results, chosen)


def _machine(rows: list[Row]) -> dict[str, Any]:
    if all(row.config.simulated for row in rows):
        return simulated_facts()
    found = in_child(cuda_facts)
    if found is None:
        raise ConfigError(
            "PyTorch sees no CUDA GPU here: 'labkit doctor' says why. --profile tiny checks all on the simulated GPU."
        )
    return found


def _key(setup: str, row: Row) -> str:
    return f"{setup}/{row.name}/{row.config.hash}"


def _run_all(results: Results, setup: str, rows: list[Row], pace: Pace) -> None:
    predictions = predict_all(rows)
    costs = {}
    for row in rows:
        prediction = predictions[row.name]
        reason = prediction if isinstance(prediction, str) else too_much_for_host(prediction)
        if reason:
            _note(results, setup, row, "skipped", reason)
        else:
            costs[row.name] = estimate_s(row.config, prediction)
    for row in sorted((r for r in rows if r.name in costs), key=lambda r: costs[r.name]):
        cost = costs[row.name]
        need_s = pace.expected_s(cost)
        if need_s > pace.left_s:
            reason = f"about {need_s:.0f} s needed, {max(0.0, pace.left_s):.0f} s of {pace.budget_s:g} s left"
            _note(results, setup, row, "not run", reason)
            continue
        started = time.monotonic()
        _run_one(results, setup, row, predictions[row.name], pace.left_s)
        pace.took(cost, time.monotonic() - started)


def _run_one(results: Results, setup: str, row: Row, prediction: Prediction, timeout_s: float) -> None:
    clock = StepClock()
    record = run(row.experiment, row.overrides, row.resolved.profile.name, timeout_s, clock)
    if record.status not in ("ok", "oom"):
        more = {"measured": measured_facts(record, clock), "log": clock.last_lines()}
        state = {"timeout": "not run", "skipped": "skipped"}.get(record.status, "failed")
        _note(results, setup, row, state, f"{record.status}: {record.reason}", more)
        return
    found = _about(setup, row) | compared(prediction, record, row.expected, clock)
    results.rows[_key(setup, row)] = found | {"measured": measured_facts(record, clock)}
    results.save()
    print(f"{row.name}: {_verdict_words(results.rows[_key(setup, row)])}, {record.wall_seconds:.0f} s", flush=True)


def _note(results: Results, setup: str, row: Row, state: str, reason: str, more: dict[str, Any] | None = None) -> None:
    """A row without numbers. One that was compared before stays, unless it has failed now."""
    key = _key(setup, row)
    if state == "failed" or results.rows.get(key, {}).get("state") != "compared":
        results.rows[key] = _about(setup, row) | {"state": state, "reason": reason} | (more or {})
        results.save()
    print(f"{row.name}: {state}, {reason}", flush=True)


def _about(setup: str, row: Row) -> dict[str, Any]:
    return {
        "experiment": row.name, "number": row.number, "setup": setup,
        "config_hash": row.config.hash, "config": row.config.to_dict(), "expected": str(row.expected),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _verdict_words(row: dict[str, Any]) -> str:
    peak, measured = row["peak"], row["measured"]
    status = "out of memory" if measured["status"] == "oom" else "fits"
    words = f"{status}, no phase to compare"
    if peak["measured"] is not None:
        words = f"{status}, peak {human_bytes(peak['measured'])}, predicted {human_bytes(peak['predicted'])}, worst "
        words += worst_words(row["worst"])
    return f"{words}: {'agrees' if row['agrees'] else '; '.join(row['disagreements'])}"


def _conclude(results: Results, rows: list[dict[str, Any]]) -> int:
    """Say how it ended; the exit code."""
    by_state = {
        state: [r["experiment"] for r in rows if r["state"] == state] for state in ("not run", "skipped", "failed")
    }
    done = [r for r in rows if r["state"] == "compared"]
    agree = [r for r in done if r["agrees"]]
    for state, names in by_state.items():
        if names:
            print(f"{state}: {', '.join(names)}")
    print(f"{len(agree)} of {len(done)} compared rows agree within {LIMIT:.0%}; {results.json} and {results.markdown}")
    return 0 if done and len(agree) == len(done) and not by_state["failed"] else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="profile to check (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the results (default: the workspace's results)")
    parser.add_argument("--only", nargs="+", metavar="EXPERIMENT", help="these experiments alone")
    parser.add_argument("--again", action="store_true", help="run what was compared before, too")
    parser.add_argument(
        "--budget-s", type=float, default=540.0, metavar="S",
        help="start no row that would not be done this many seconds after the start (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--commit", help="labkit's commit, for a copy of it without git")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Check, and return the exit code; ends with one line where that is not possible."""
    begun = time.monotonic()
    args = parse(argv)
    if absent := [NEEDED[name] for name in missing(NEEDED)]:
        sys.exit(f"not installed here: {', '.join(absent)}; no experiment runs without.")
    try:
        return check(args, begun)
    except (ConfigError, LedgerError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command continues with the rows that are left.")


if __name__ == "__main__":
    sys.exit(main())
