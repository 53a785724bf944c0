"""The child process of a run: build, train, report, and say how it ended.

    python -m labkit.train.fit RUN_FOLDER [CHECKPOINT]

Reads ``config.json`` in the folder, appends to ``events.jsonl``, writes ``model/`` and ``checkpoints/`` when asked.
With a checkpoint of that folder it resumes there.
Ends when its standard input does, so that it never outlives the process that watches it.
"""

import contextlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, seed_everything

from labkit.config.device import SIMULATED_GPU
from labkit.config.errors import ConfigError
from labkit.config.extras import missing_for
from labkit.config.parent import end_with_parent
from labkit.config.place import Place
from labkit.config.schema import RunConfig
from labkit.config.versions import version_of
from labkit.families.known import family_of
from labkit.memory.capture import MemoryCapture
from labkit.memory.cuda import used_by_others_bytes
from labkit.memory.exhaustion import is_exhausted
from labkit.memory.sharded import ShardTracker
from labkit.memory.tracker import Tracker, host
from labkit.train.adapters import add_lora
from labkit.train.attention import kernels
from labkit.train.build import build_model
from labkit.train.checkpoints import STATE, Checkpoints, Interrupted
from labkit.train.data import DataError, build_loader, load_samples
from labkit.train.disk_room import check_room, checkpoint_bytes
from labkit.train.errors import CheckpointError
from labkit.train.events import EventWriter
from labkit.train.exhausted import out_of_memory
from labkit.train.fsdp import ShardedModule
from labkit.train.gpu import local_rank, without_gpu
from labkit.train.models import weight_facts
from labkit.train.module import CaptionModule
from labkit.train.pipeline import PipelineModule
from labkit.train.progress import Progress, finite
from labkit.train.state_files import reading
from labkit.train.strategies import missing_compiler, zero_tensors
from labkit.train.trained import save
from labkit.train.trainer import build_trainer
from labkit.train.weights import find_weights, load_processor


def fit(
    folder: Path, config: RunConfig, data_folder: Path, events: EventWriter, saved: Path | None = None, rank: int = 0
) -> dict[str, Any]:
    """Run one config in this process, from its start or from a ``saved`` step; the values of the ``result`` event.

    On several devices this process is one ``rank`` of the run, and others that carry out the rest must be there.

    Out-of-memory is a normal result, and so is a run that was asked to stop and has saved its checkpoint. Raises
    ``DataError``, ``ConfigError`` and ``CheckpointError`` for input that cannot be used.
    """
    others_bytes = None
    if config.on_cuda:
        index = local_rank(config)
        others_bytes = used_by_others_bytes(index)  # before this process is one of them
        if (ended := without_gpu(index)) is not None:
            return ended
    if reason := missing_for(config) or missing_compiler(config):
        return {"status": "skipped", "reason": reason}
    seed_everything(config.seed, workers=True, verbose=False)
    training = Training(folder, config, data_folder, events, saved, rank)
    return training.finished(training.ended(others_bytes))


class Training:
    """One run of a config in this process, or one rank's part of it: how it ``ended``, and what is to do then."""

    def __init__(
        self, folder: Path, config: RunConfig, data_folder: Path, events: EventWriter, saved: Path | None, rank: int
    ) -> None:
        self.folder, self.config, self.events, self.saved, self.rank = folder, config, events, saved, rank
        self.train_samples, self.val_samples = load_samples(config, data_folder)
        self.steps = _steps(config, len(self.train_samples))
        self.in_pieces = config.placement.divides_model
        self.simulated_gpu = _simulated_gpu(config)
        self.capture = MemoryCapture(
            self.simulated_gpu, config.report_every, on_phase=lambda phase: events.write("phase", **phase.to_dict()),
            owned_by=zero_tensors if config.placement.uses_zero else None,
        )  # fmt: skip
        self.place = _place(saved) if saved is not None else None
        self.progress = Progress(events, self.place.train_seconds if self.place else 0.0)
        callbacks: list[Callback] = [self.capture, self.progress]
        if config.enable_checkpointing:
            saving = Checkpoints(folder, config, self.steps, before_saving=self.progress.flush, rank=rank)
            saving.listen()
            callbacks.append(saving)
        self.trainer = build_trainer(config, folder, callbacks)
        self.model: torch.nn.Module | None = None
        self.processor: Any = None
        self.module: CaptionModule | None = None

    def ended(self, others_bytes: int | None) -> dict[str, Any]:
        """Train; how that ended. ``others_bytes`` is what other processes held on the GPU before."""
        result: dict[str, Any] = {"status": "ok", "died_in": None}
        try:
            with kernels(self.config.cudnn_attention), self.simulated_gpu or contextlib.nullcontext():
                self._train(others_bytes)
        except RuntimeError as error:  # torch's own OutOfMemoryError is one
            if self.capture.died_in is None and not is_exhausted(error):  # in a step the capture has looked in time
                raise
            result |= out_of_memory(self.config, error, self.capture)
        except Interrupted as error:
            result |= {"status": "killed", "reason": str(error)}
        return result

    def finished(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write the remaining events, save what was trained, and release the other ranks; the whole result."""
        if self.module is not None:
            self.progress.flush(self.trainer, self.module)
            result["validation_losses"] = finite(self.module.validation_losses)
        if self.config.save_model and result["status"] == "ok":
            try:
                save(self.model, self.processor, self.config, self.folder, self.rank, self.module.gathered())
            except CheckpointError as error:  # the losses and the memory report are there all the same
                result |= {"status": "failed", "reason": str(error)}
        if dist.is_initialized() and result["status"] == "ok":  # after a failure the others do not answer
            dist.destroy_process_group()
        measured = self.capture.peak_bytes
        simulated = self.simulated_gpu
        peak_bytes = simulated.peak_bytes if simulated else max(measured, torch.cuda.max_memory_allocated())
        return result | {"peak_bytes": peak_bytes}

    def _train(self, others_bytes: int | None) -> None:
        facts, saved_bytes = self._build_module()
        loaders = self._loaders()
        if self.config.enable_checkpointing:
            check_room(self.config, self.folder, saved_bytes, self.steps)
        self.events.write("start", **_start(self.config, self.steps), others_bytes=others_bytes, model=facts)
        if self.place is None:
            self.trainer.fit(self.module, *loaders)
        else:
            self.module.resume(self.place.step, self.place.samples, self.place.validation_losses)
            self.trainer.fit(self.module, *loaders, ckpt_path=self.saved / STATE, weights_only=True)

    def _build_module(self) -> tuple[dict[str, Any], int]:
        """Make model, processor and module; what is to be known of the whole model, and what one checkpoint takes."""
        with host() if self.in_pieces else contextlib.nullcontext():
            self.model, self.processor = _build(self.config, "cpu" if self.simulated_gpu or self.in_pieces else "cuda")
        if self.rank:  # weights are the same on all ranks, what dropout takes is not; Lightning seeds again, with this
            seed_everything(self.config.seed + self.rank, workers=True, verbose=False)
        facts = weight_facts(self.model)
        saved_bytes = checkpoint_bytes(self.config, self.model.parameters())  # of the whole, which may be split next
        self.module = _module(self.config, self.model, self.rank, self.capture, self.simulated_gpu)
        return facts, saved_bytes

    def _loaders(self) -> list[Any]:
        """Batches to train with, from where the run is, and those to validate with where there are any."""
        collate = family_of(self.model.config).collate(self.processor, self.model.config, self.config.max_length)
        at = {"first_epoch": self.place.epoch, "done_batches": self.place.batch} if self.place else {}
        loaders = [build_loader(self.config, self.train_samples, collate, train=True, rank=self.rank, **at)]
        if self.val_samples is not None:
            loaders.append(build_loader(self.config, self.val_samples, collate, train=False))
        return loaders


def _simulated_gpu(config: RunConfig) -> Tracker | None:
    """The simulated GPU of a run; None on CUDA, where torch keeps the process below the capacity."""
    if config.simulated:
        kind = ShardTracker if config.placement.shards else Tracker
        return kind(config.capacity_bytes)
    if config.capacity_bytes:
        whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, config.capacity_bytes / whole))
    return None


def _place(saved: Path) -> Place:
    with reading(saved):
        return Place.of(saved)


def _build(config: RunConfig, device: str) -> tuple[torch.nn.Module, Any]:
    """Model, with adapters if the config has them, and processor."""
    model = build_model(config, device)
    if config.weights == "pretrained":
        processor = load_processor(find_weights(config.model_name), model.config)
    else:
        processor = family_of(config.architecture).processor(config.architecture)
    if config.use_lora or config.use_qlora:
        model = add_lora(model, config)
    return model, processor


def _module(
    config: RunConfig, model: torch.nn.Module, rank: int, capture: MemoryCapture, simulated_gpu: Tracker | None
) -> CaptionModule:
    """What trains the model, as the strategy has it."""
    if config.placement.shards:
        return ShardedModule(config, model, simulated_gpu)
    if config.placement.splits_layers:
        with host():
            module = PipelineModule(config, model, rank)
        if simulated_gpu:
            simulated_gpu.assign((*module.parameters(), *module.buffers()), "parameters")
        return module
    return CaptionModule(config, model)


def _steps(config: RunConfig, samples: int) -> int:
    """Optimizer steps of the whole run."""
    batches = min(samples // (config.batch_size * config.shares), config.limit_train_batches or samples)
    steps = -(-batches // config.accumulate_grad_batches) * config.max_epochs
    return min(steps, config.max_steps or steps)


def _start(config: RunConfig, steps: int) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if config.on_cuda else f"{SIMULATED_GPU} on {platform.machine()} CPU"
    return {
        "steps": steps,
        "source": "CUDA" if config.on_cuda else SIMULATED_GPU,
        "capacity_bytes": config.capacity_bytes,
        "device": device,
        "versions": {
            "python": platform.python_version(),
            **{name: version_of(name) for name in ("torch", "lightning", "transformers", "bitsandbytes")},
            **({"cudnn": str(torch.backends.cudnn.version())} if config.on_cuda else {}),
        },
    }


def main() -> None:
    """Run the folder named on the command line; a named error becomes a result, any other also prints its trace."""
    end_with_parent()
    folder = Path(sys.argv[1])
    saved = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    request = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    several = request["config"]["devices"] * request["config"].get("num_nodes", 1) > 1
    # as torchrun says it, or Slurm
    rank = int(os.environ.get("RANK") or os.environ["SLURM_PROCID"]) if several else 0
    with EventWriter(folder / (f"events.rank{rank}.jsonl" if rank else "events.jsonl")) as events:
        try:
            config = RunConfig(**request["config"])
            result = fit(folder, config, Path(request["data_folder"]), events, saved, rank)
        except (ConfigError, DataError, CheckpointError) as error:
            # from a loader worker the message comes with the worker's trace in front
            reason = str(error).strip().splitlines()[-1].removeprefix(f"{DataError.__module__}.DataError: ")
            result = {"status": "failed", "reason": reason}
        except KeyboardInterrupt:
            result = {"status": "killed", "reason": "interrupted"}
        except Exception as error:
            # the border of the process: an unexpected error is told to the watcher, and its trace goes to the log
            events.write("result", status="failed", reason=f"{type(error).__name__}: {error}")
            raise
        events.write("result", **result)


if __name__ == "__main__":
    main()
