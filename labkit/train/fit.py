"""The child process of a run: build, train, report, and say how it ended.

    python -m labkit.train.fit RUN_FOLDER [SAVED_STEP]

Reads ``config.json`` in the folder, appends to ``events.jsonl``, writes ``model/`` and ``checkpoints/`` when asked.
With a saved step of that folder it goes on there.
Ends when its standard input does, so that it never outlives the process that watches it.
"""

import contextlib
import json
import os
import platform
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from labkit.config.architectures import architecture
from labkit.config.errors import ConfigError
from labkit.config.kernels import without_code
from labkit.config.place import Place
from labkit.config.schema import RunConfig
from labkit.config.versions import version_of
from labkit.memory.capture import MemoryCapture
from labkit.memory.cuda import used_by_others_bytes
from labkit.memory.exhaustion import is_exhausted
from labkit.memory.obstacle import Obstacle, find_obstacle
from labkit.memory.report import on_device
from labkit.memory.sharded import ShardTracker
from labkit.memory.tracker import Tracker, VirtualOutOfMemoryError, host
from labkit.train.adapters import add_lora
from labkit.train.attention import kernels
from labkit.train.build import build_model
from labkit.train.checkpoints import find_checkpoint, load_processor
from labkit.train.data import DataError, build_loader, load_samples
from labkit.train.errors import CheckpointError
from labkit.train.events import EventWriter
from labkit.train.fsdp import ShardedModule
from labkit.train.layer_split import SplitModule
from labkit.train.models import weight_facts
from labkit.train.module import CaptionModule
from labkit.train.processor import embedded_processor
from labkit.train.progress import Progress, finite
from labkit.train.saved_steps import (
    STATE,
    Interrupted,
    SavedSteps,
    check_room,
    checkpoint_bytes,
)  # fmt: skip
from labkit.train.state_files import HostCheckpoints, reading
from labkit.train.step import Collator
from labkit.train.strategies import build_strategy, missing_compiler, zero_tensors
from labkit.train.trained import save


def fit(
    folder: Path, config: RunConfig, data_folder: Path, events: EventWriter, saved: Path | None = None, rank: int = 0
) -> dict[str, Any]:
    """Run one config in this process, from its start or from a ``saved`` step; the values of the ``result`` event.

    On several devices this process is one ``rank`` of the run, and others that carry out the rest must be there.

    Out-of-memory is a result like another, and so is a run that was asked to stop and has saved where it was. Raises
    ``DataError``, ``ConfigError`` and ``CheckpointError`` for input that cannot be used.
    """
    others_bytes = None
    if config.on_cuda:
        local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") if config.world_size > 1 else None
        others_bytes = used_by_others_bytes(int(local or 0))  # before this process is one of them
        if (obstacle := find_obstacle(int(local or 0))) is not None:
            return _without_gpu(obstacle)
        _refuse_foreign_gpu()
    if reason := missing_compiler(config):
        return {"status": "skipped", "reason": reason}
    seed_everything(config.seed, workers=True, verbose=False)
    arch = architecture(config.model_name)
    train_samples, val_samples = load_samples(config, data_folder)

    in_pieces = config.placement.divides_model
    kind = ShardTracker if config.placement.shards else Tracker
    virtual = kind(config.capacity_bytes) if config.simulated else None
    if virtual is None and config.capacity_bytes:
        whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, config.capacity_bytes / whole))
    capture = MemoryCapture(
        virtual, config.report_every, on_phase=lambda phase: events.write("phase", **phase.__dict__),
        owned_by=zero_tensors if config.placement.uses_zero else None,
    )  # fmt: skip
    place = _place(saved) if saved is not None else None
    progress = Progress(events, place.train_seconds if place else 0.0)
    callbacks: list[Callback] = [capture, progress]
    steps = _steps(config, len(train_samples))
    if config.enable_checkpointing:
        saving = SavedSteps(folder, config, steps, before_saving=progress.flush, rank=rank)
        saving.listen()
        callbacks.append(saving)
    trainer = Trainer(
        accelerator="cpu" if virtual else "gpu",
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=build_strategy(config, capture),
        precision=config.precision,
        max_epochs=config.max_epochs,
        max_steps=config.max_steps or -1,
        limit_train_batches=config.limit_train_batches,
        accumulate_grad_batches=config.accumulate_grad_batches,
        callbacks=callbacks,
        plugins=_plugins(config),
        default_root_dir=folder,
        enable_checkpointing=False,  # SavedSteps does it
        use_distributed_sampler=False,  # offload counts as distributed; EpochOrder says what comes
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    result: dict[str, Any] = {"status": "ok", "died_in": None}
    module = None
    try:
        with kernels(config.cudnn_attention), virtual or contextlib.nullcontext():
            with host() if in_pieces else contextlib.nullcontext():
                model, processor = _build(config, "cpu" if virtual or in_pieces else "cuda")
            if rank:  # weights are the same on all ranks, what dropout takes is not; Lightning seeds again, with this
                seed_everything(config.seed + rank, workers=True, verbose=False)
            facts = weight_facts(model)
            saved_bytes = checkpoint_bytes(config, model.parameters())  # of the whole, which may be split next
            module = _module(config, model, rank, capture, virtual)
            collate = Collator(
                processor, arch.language, config.max_length, model.config.num_query_tokens, model.config.image_token_id
            )
            at = {"first_epoch": place.epoch, "done_batches": place.batch} if place else {}
            loaders = [build_loader(config, train_samples, collate, train=True, rank=rank, **at)]
            if val_samples is not None:
                loaders.append(build_loader(config, val_samples, collate, train=False))
            if config.enable_checkpointing:
                check_room(config, folder, saved_bytes, steps)
            events.write("start", **_start(config, steps), others_bytes=others_bytes, model=facts)
            if place is None:
                trainer.fit(module, *loaders)
            else:
                module.go_on(place.step, place.samples, place.validation_losses)
                trainer.fit(module, *loaders, ckpt_path=saved / STATE, weights_only=True)
    except RuntimeError as error:  # torch's own OutOfMemoryError is one
        if capture.died_in is None and not is_exhausted(error):  # in a step the capture has looked in time
            raise
        result |= _out_of_memory(config, error, capture)
    except Interrupted as error:
        result |= {"status": "killed", "reason": str(error)}
    if module is not None:
        progress.flush(trainer, module)
        result["validation_losses"] = finite(module.validation_losses)
    if config.save_model and result["status"] == "ok":
        try:
            save(model, processor, config, folder, rank)
        except CheckpointError as error:  # the losses and the memory report are there all the same
            result |= {"status": "failed", "reason": str(error)}
    if dist.is_initialized() and result["status"] == "ok":  # after a failure the others do not answer
        dist.destroy_process_group()
    peak_bytes = virtual.peak_bytes if virtual else max(capture.peak_bytes, torch.cuda.max_memory_allocated())
    return result | {"peak_bytes": peak_bytes}


def _place(saved: Path) -> Place:
    with reading(saved):
        return Place.of(saved)


def _without_gpu(obstacle: Obstacle) -> dict[str, Any]:
    """How a run ends that gets no GPU: skipped where there is none, failed where torch cannot use the one there is."""
    reason = f"device=cuda, but {obstacle.reason}"
    if obstacle.full:
        died_in = {"step": 0, "micro_step": 0, "phase": "load_model"}
        return {"status": "oom", "died_in": died_in, "reason": reason}
    if obstacle.gpu is None:
        return {"status": "skipped", "reason": f"{reason}; use --profile tiny for the virtual GPU"}
    step = "'labkit doctor' says what to do"
    if obstacle.without_cuda:
        step = "'pip install --force-reinstall torch', without an index for CPU builds, brings one that can"
    return {"status": "failed", "reason": f"{reason}. {step}; --profile tiny takes the virtual GPU"}


def _refuse_foreign_gpu() -> None:
    """Raise ``ConfigError`` for a GPU that the installed torch has no code for: it would fail at the first kernel."""
    build = f"torch {torch.__version__}"
    reason = without_code(torch.cuda.get_arch_list(), torch.cuda.get_device_capability(), build)
    if reason is not None:
        raise ConfigError(f"{torch.cuda.get_device_name()} has {reason}; use another GPU, or a torch that has.")


def _plugins(config: RunConfig) -> list[Any]:
    """Saved steps of our own, and who has started the ranks: this is not left to guesses about the machine."""
    found: list[Any] = [] if config.placement.uses_zero else [HostCheckpoints()]
    tasks = config.world_size > 1 and "RANK" not in os.environ
    # the watcher hears of the end of a job, and queues it again
    return [*found, SLURMEnvironment(auto_requeue=False) if tasks else LightningEnvironment()]


def _build(config: RunConfig, device: str) -> tuple[torch.nn.Module, Any]:
    """Model, with adapters if the config has them, and processor."""
    arch = architecture(config.model_name)
    model = build_model(config, device)
    if config.weights == "pretrained":
        processor = load_processor(find_checkpoint(config.model_name), model.config)
    else:
        processor = embedded_processor(arch)
    if config.use_lora or config.use_qlora:
        model = add_lora(model, config, arch.language)
    return model, processor


def _module(
    config: RunConfig, model: torch.nn.Module, rank: int, capture: MemoryCapture, virtual: Tracker | None
) -> CaptionModule:
    """What trains the model, as the strategy has it."""
    if config.placement.shards:
        return ShardedModule(config, model, virtual)
    if config.placement.splits_layers:
        with host():
            module = SplitModule(config, model, architecture(config.model_name).language, rank)
        if virtual:
            virtual.assign((*module.parameters(), *module.buffers()), "parameters")
        return module
    return CaptionModule(config, model)


def _out_of_memory(config: RunConfig, error: RuntimeError, capture: MemoryCapture) -> dict[str, Any]:
    found: dict[str, Any] = {
        "status": "oom",
        "died_in": capture.died_in or {"step": 0, "micro_step": 0, "phase": capture.activity},
        "reason": str(error),
    }
    if isinstance(error, VirtualOutOfMemoryError):
        found["out_of_memory"] = {
            "requested_bytes": error.requested_bytes, "capacity_bytes": error.capacity_bytes,
            "allocated_bytes": error.allocated_bytes, "operation": error.operation, "held": error.held,
        }  # fmt: skip
    elif capture.held is not None:  # CUDA says in its message what was asked for
        found["out_of_memory"] = {
            "requested_bytes": None, "capacity_bytes": config.capacity_bytes, "operation": None,
            "allocated_bytes": on_device(capture.held), "held": capture.held,
        }  # fmt: skip
    return found


def _steps(config: RunConfig, samples: int) -> int:
    """Optimizer steps of the whole run."""
    batches = min(samples // (config.batch_size * config.shares), config.limit_train_batches or samples)
    steps = -(-batches // config.accumulate_grad_batches) * config.max_epochs
    return min(steps, config.max_steps or steps)


def _start(config: RunConfig, steps: int) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if config.on_cuda else f"virtual GPU on {platform.machine()} CPU"
    return {
        "steps": steps,
        "source": "CUDA" if config.on_cuda else "virtual GPU",
        "capacity_bytes": config.capacity_bytes,
        "device": device,
        "versions": {
            "python": platform.python_version(),
            **{name: version_of(name) for name in ("torch", "lightning", "transformers", "bitsandbytes")},
            **({"cudnn": str(torch.backends.cudnn.version())} if config.on_cuda else {}),
        },
    }


def _end_with_parent() -> None:
    """Leave when standard input ends, which it does when the parent closes it or is no more."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        if os.getpgrp() == os.getpid():  # as the watcher starts it: its loader workers are in the group
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the folder named on the command line; a named error becomes a result, any other also prints its trace."""
    _end_with_parent()
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
            # the border of the process: what nobody foresaw is told to the watcher, and its trace goes to the log
            events.write("result", status="failed", reason=f"{type(error).__name__}: {error}")
            raise
        events.write("result", **result)


if __name__ == "__main__":
    main()
