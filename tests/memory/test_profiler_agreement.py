"""The tracker's bytes against PyTorch's profiler, which does not know of it.

The two see different things. The tracker looks at the storages of what operations return to Python. The profiler is
called by the CPU allocator itself (``profile_memory=True``), so it also sees what an operation allocates inside its
kernel, and what autograd saves without a tensor in Python ever holding it. Both sum what is alive; the profiler's sum
starts at zero when it starts, so models are built inside it. Each profiler event is rounded to 512 bytes as the
tracker rounds its storages, since a CPU allocator does not do what CUDA's does: the rounding is therefore assumed by
both sides and not tested here.

So agreement says: on these models nothing of weight escapes the tracker, and nothing stays in its books too long. It
says nothing about what CUDA's kernels take as workspace, nor about the caching allocator's reserve. And it holds at the
course's batch of 16. At a batch of 2 or 4 the peak of ``after_backward`` alone comes out up to 3.2% too low: backward
then peaks in the last convolution, whose kernel makes a second copy of its weight's gradient for itself. The peak of
the run, in the optimizer's step, agrees there too.
"""

import contextlib

import pytest
import torch
from lightning.pytorch import Trainer
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Subset

from labkit import assets
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import Collator
from labkit.memory.capture import MemoryCapture
from labkit.memory.categories import on_device
from labkit.memory.report import PHASES
from labkit.memory.tracker import Tracker
from labkit.train.build import build_model
from labkit.train.data import EmojiZip, build_loader
from labkit.train.module import CaptionModule
from labkit.train.optimizers import build_optimizer
from labkit.train.step import step_loss
from tests.support.profiler import by_profiler, mark

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

TOLERANCE = 0.005
"""What is claimed. Measured with torch 2.13: 0.005% for a run's peak, 0.01% for any phase's end or peak."""

BATCH = 16
OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-large"
AUTOCAST = "32-true under autocast"


def config_of(model_name: str, precision: str) -> RunConfig:
    return RunConfig(
        model_name=model_name,
        weights="random",
        precision=precision,
        capacity_gib=1,
        batch_size=BATCH,
        max_length=12,
        num_workers=0,
    )


def batches(config: RunConfig) -> list[dict[str, torch.Tensor]]:
    """Two batches of the embedded data."""
    arch = architecture(config.model_name)
    collate = Collator(
        Blip2Family().processor(arch), arch.language, config.max_length, arch.num_query_tokens, image_token_id=4
    )
    return list(build_loader(config, Subset(EmojiZip(assets.FLUENT_EMOJI), range(2 * BATCH)), collate, train=False))


Phase = tuple[str, int, int]
"""Name, bytes at the end, bytes at the peak."""


def two_steps(config: RunConfig, autocast: bool, tracker: Tracker) -> tuple[list[Phase], profile]:
    """Train in Lightning's order under both; the phases by the tracker, and a profile that has a mark for each."""
    prepared = batches(config)  # before the tracker and the profiler start
    dtype = torch.bfloat16 if config.precision == "bf16-true" else torch.float32
    found = []

    def end_phase(name: str) -> None:
        mark(name)
        end, peak, _ = tracker.end_phase("activations")
        found.append((name, on_device(end), on_device(peak)))
        tracker.begin_phase()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, tracker:
        tracker.begin_phase()
        model = build_model(config, "cpu")
        optimizer = build_optimizer(config, model.parameters())
        end_phase("build")
        for step, on_host in enumerate(prepared):
            batch = {k: v.to(dtype, copy=True) if v.is_floating_point() else v.clone() for k, v in on_host.items()}
            end_phase(f"before_forward {step}")
            with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
                loss, _ = step_loss(model, batch)
            end_phase(f"after_forward {step}")
            optimizer.zero_grad()
            loss.backward()
            end_phase(f"after_backward {step}")
            optimizer.step()
            end_phase(f"after_optimizer_step {step}")
    return found, profiler


@pytest.mark.parametrize("model_name", [OPT, T5])
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", AUTOCAST])
def test_the_tracker_agrees_with_the_profiler_in_every_phase(model_name, precision):
    autocast = precision == AUTOCAST
    config = config_of(model_name, "32-true" if autocast else precision)
    tracker = Tracker()
    tracked, profiler = two_steps(config, autocast, tracker)
    profiled = by_profiler(profiler)
    assert [name for name, _, _ in tracked] == [name for name, _, _ in profiled]
    assert len(tracked) == 1 + 2 * len(PHASES)
    for (name, end, peak), (_, true_end, true_peak) in zip(tracked, profiled, strict=True):
        assert end == pytest.approx(true_end, rel=TOLERANCE), name
        assert peak == pytest.approx(true_peak, rel=TOLERANCE), name
    assert tracker.peak_bytes == pytest.approx(max(peak for _, _, peak in profiled), rel=TOLERANCE)


@pytest.mark.parametrize("model_name", [OPT, T5])
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_hardly_anything_is_unattributed(model_name, precision):
    config = config_of(model_name, precision)
    prepared = DataLoader(batches(config), batch_size=None)
    tracker = Tracker(config.capacity_bytes)
    capture = MemoryCapture(tracker)
    trainer = Trainer(
        accelerator="cpu", precision=precision, max_steps=2, limit_val_batches=0, callbacks=[capture],
        logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    with tracker:
        trainer.fit(CaptionModule(config, build_model(config, "cpu")), prepared, prepared)
    assert [phase.phase for phase in capture.report.phases] == 2 * list(PHASES)
    for phase in capture.report.phases:
        assert phase.highest["unattributed"] < 0.02 * phase.peak_bytes, (phase.step, phase.phase)
        assert phase.end["unattributed"] < 0.02 * phase.end_bytes, (phase.step, phase.phase)
