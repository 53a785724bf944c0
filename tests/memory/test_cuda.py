"""CUDA's own numbers: phases add up to the allocator's counters, and what others hold is asked of nvidia-smi."""

import pytest
import smi
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from labkit.memory.capture import MemoryCapture
from labkit.memory.categories import CATEGORIES, on_device
from labkit.memory.cuda import AllocatorCounters, Counters, reconcile, used_by_others_bytes
from labkit.memory.report import PHASES
from labkit.memory.tracker import Tracker

torch.set_num_threads(1)

MIB = 2**20


def breakdown(**found):
    return dict.fromkeys(CATEGORIES, 0) | found


# -- reconciling


def test_reconciled_breakdowns_add_up_to_the_counters():
    end = breakdown(parameters=100, activations=50, optimizer_cpu=1000)
    peak = breakdown(parameters=100, activations=80, temporaries=20, optimizer_cpu=1000)
    highest = breakdown(parameters=100, activations=80, temporaries=30, optimizer_cpu=1000)
    counters = Counters(allocated_bytes=170, peak_bytes=260, reserved_bytes=300, device_used_bytes=400)
    reconcile(end, peak, highest, (on_device(end), on_device(peak)), counters)
    assert (on_device(end), on_device(peak)) == (170, 260)
    assert (end["unattributed"], peak["unattributed"], highest["unattributed"]) == (20, 60, 60)
    assert end["parameters"] == peak["parameters"] == 100
    assert end["optimizer_cpu"] == 1000  # host memory is not the allocator's


def test_what_was_unattributed_stays_so_and_a_highest_is_no_lower_than_before():
    end, peak, highest = breakdown(unattributed=10), breakdown(unattributed=10), breakdown(unattributed=90)
    reconcile(
        end, peak, highest, (10, 10), Counters(allocated_bytes=15, peak_bytes=40, reserved_bytes=0, device_used_bytes=0)
    )
    assert (end["unattributed"], peak["unattributed"], highest["unattributed"]) == (15, 40, 90)


def test_what_the_tracker_counts_too_much_is_told_as_a_negative_number():
    end, peak, highest = breakdown(parameters=100), breakdown(parameters=100), breakdown(parameters=100)
    counters = Counters(allocated_bytes=90, peak_bytes=100, reserved_bytes=0, device_used_bytes=0)
    reconcile(end, peak, highest, (100, 100), counters)
    assert (end["unattributed"], peak["unattributed"], highest["unattributed"]) == (-10, 0, 0)
    assert (on_device(end), on_device(peak)) == (90, 100)


# -- counters


class Allocator:
    """What PyTorch's caching allocator answers."""

    def __init__(self, monkeypatch) -> None:
        self.allocated = self.peak = 0
        for name, answer in {
            "memory_allocated": lambda: self.allocated,
            "max_memory_allocated": lambda: self.peak,
            "memory_reserved": lambda: 2 * self.allocated,
            "mem_get_info": lambda: (1000 - 3 * self.allocated, 1000),
            "reset_peak_memory_stats": self.reset,
        }.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    def reset(self) -> None:
        self.peak = self.allocated

    def go(self, *sizes: int) -> None:
        for size in sizes:
            self.allocated = size
            self.peak = max(self.peak, size)


def test_the_peak_of_a_run_survives_every_reset(monkeypatch):
    allocator = Allocator(monkeypatch)
    counters = AllocatorCounters()
    allocator.go(40, 10)  # before the first phase
    assert counters.run_peak_bytes == 40
    counters.begin_phase()
    allocator.go(30, 20)
    expected = Counters(allocated_bytes=20, peak_bytes=30, reserved_bytes=40, device_used_bytes=60)
    assert counters.read() == expected
    assert counters.run_peak_bytes == 40
    counters.begin_phase()
    assert counters.read().peak_bytes == 20
    allocator.go(70, 5)
    assert counters.run_peak_bytes == 70
    counters.begin_phase()
    assert (counters.read().peak_bytes, counters.run_peak_bytes) == (5, 70)


# -- what others hold


@pytest.mark.slow
@pytest.mark.parametrize(
    ("visible", "index", "used_mib"),
    [(None, 0, 512), (None, 1, 7), ("1", 0, 7), ("1,0", 1, 512), ("GPU-8f1b77", 0, 7), ("", 0, None), ("-1", 0, None),
     ("0", 1, None), ("9", 0, None)],
)  # fmt: skip
def test_what_others_hold_is_asked_for_the_gpu_of_this_process(tmp_path, monkeypatch, visible, index, used_mib):
    smi.install(tmp_path, monkeypatch, smi.H100, smi.OLD)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert used_by_others_bytes(index) == (None if used_mib is None else used_mib * MIB)


@pytest.mark.slow
def test_of_a_part_of_a_gpu_and_without_nvidia_smi_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    smi.install(tmp_path, monkeypatch, smi.CUT, parts=smi.PARTS)
    assert used_by_others_bytes() is None
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert used_by_others_bytes() is None


# -- a capture that has counters


class OuterCounters(AllocatorCounters):
    """Counters of an allocator that is a tracker around everything, so it knows more than the capture's own."""

    def __init__(self, outer: Tracker) -> None:
        self._outer = outer
        self._run_peak_bytes = 0
        self.read_so_far: list[Counters] = []

    @property
    def run_peak_bytes(self) -> int:
        return max(self._run_peak_bytes, self._outer.peak_bytes)

    def begin_phase(self) -> None:
        self._run_peak_bytes = self.run_peak_bytes
        self._outer.peak_bytes = self._outer.allocated_bytes

    def read(self) -> Counters:
        now = Counters(
            allocated_bytes=self._outer.allocated_bytes, peak_bytes=self._outer.peak_bytes,
            reserved_bytes=self._outer.allocated_bytes + 7, device_used_bytes=self._outer.allocated_bytes + 11,
        )  # fmt: skip
        self.read_so_far.append(now)
        return now


class Counted(MemoryCapture):
    """A capture that takes its numbers from a tracker around everything."""

    def __init__(self, outer: Tracker, **options) -> None:
        super().__init__(**options)
        self.counters = OuterCounters(outer)

    def _allocator_counters(self) -> AllocatorCounters:
        return self.counters


class Adam(BoringModel):
    """With a table that nothing leads to, and a step that needs a lot for a moment."""

    lavish_step = None
    depths: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.depths = []

    def training_step(self, batch, batch_idx):
        self.depths.append(len(_get_current_dispatch_mode_stack()))
        if batch_idx == self.lavish_step:
            torch.zeros(MIB)
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), foreach=True)


def follow(steps: int, lavish_step: int | None = None, **options):
    """Train under a tracker of the whole process; the capture and the module."""
    with Tracker() as outer:
        unseen = torch.zeros(10_000)  # 40,448 bytes as the allocator rounds them
        capture, module = Counted(outer, **options), Adam()
        module.lavish_step = lavish_step
        Trainer(
            accelerator="cpu", max_epochs=1, limit_train_batches=steps, limit_val_batches=0, callbacks=[capture],
            logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        ).fit(module)  # fmt: skip
        del unseen
    return capture, module


def test_phases_add_up_to_the_counters_exactly():
    capture, _ = follow(2)
    phases, read = capture.report.phases, capture.counters.read_so_far
    assert [phase.phase for phase in phases] == 2 * list(PHASES)
    assert len(read) == len(phases)
    for phase, counters in zip(phases, read, strict=True):
        assert phase.end_bytes == counters.allocated_bytes
        assert phase.peak_bytes == counters.peak_bytes
        assert phase.reserved_bytes == counters.reserved_bytes
        assert phase.device_used_bytes == counters.device_used_bytes
        assert phase.end["unattributed"] >= 40_448  # which the capture's own tracker has not seen
        assert phase.highest["unattributed"] >= max(phase.end["unattributed"], phase.peak["unattributed"])
        assert phase.end["parameters"] == 2 * 512
    assert capture.peak_bytes == capture.counters.run_peak_bytes >= capture.report.peak_bytes


def test_steps_that_are_not_reported_are_not_tracked():
    capture, module = follow(10, report_every=4)
    assert [step for step in range(10) if capture.reports(step)] == [0, 1, 4, 8]
    assert module.depths == [1 + capture.reports(step) for step in range(10)]
    assert sorted({phase.step for phase in capture.report.phases}) == [0, 1, 4, 8]


@pytest.mark.parametrize("lavish_step", [2, 3])
def test_the_peak_of_a_reported_phase_is_its_own_and_that_of_the_run_is_not_lost(lavish_step):
    capture, _ = follow(6, lavish_step=lavish_step, report_every=4)
    assert capture.report.peak_bytes < MIB
    assert capture.peak_bytes > 4 * MIB
    plain, _ = follow(6, report_every=4)
    for phase, other in zip(capture.report.phases, plain.report.phases, strict=True):
        assert phase == other


def test_a_peak_in_a_reported_step_is_its_phases():
    capture, _ = follow(6, lavish_step=4, report_every=4)
    highest = capture.report.peak_phase
    assert (highest.step, highest.phase) == (4, "after_forward")
    assert highest.peak["temporaries"] >= 4 * MIB
    assert capture.report.peak_bytes == capture.peak_bytes
    assert capture.report.at("after_backward", 4).peak_bytes < MIB


def test_without_cuda_there_are_no_counters():
    capture = MemoryCapture(Tracker())
    assert capture._allocator_counters() is None
    assert capture.peak_bytes == capture.report.peak_bytes == 0


class Fails(Adam):
    """Out of memory on the way to the backward of its second step, said as CUDA says it."""

    def on_before_backward(self, loss):
        if self.trainer.global_step == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_after_out_of_memory_what_was_held_adds_up_to_the_counters():
    with Tracker() as outer:
        unseen = torch.zeros(10_000)
        capture = Counted(outer)
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, limit_train_batches=4, limit_val_batches=0, callbacks=[capture],
            logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        with pytest.raises(torch.OutOfMemoryError):
            trainer.fit(Fails())
        del unseen
    assert capture.died_in == {"step": 1, "micro_step": 0, "phase": "backward"}
    assert on_device(capture.held) == capture.counters.read_so_far[-1].allocated_bytes
    assert (capture.held["parameters"], capture.held["gradients"]) == (2 * 512, 0)  # set to none before backward
    assert capture.held["optimizer_gpu"] == 2 * 2 * 512
    assert capture.held["unattributed"] >= 40_448
