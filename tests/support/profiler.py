"""Profiler: what the CPU's allocator gave out while PyTorch's profiler looked, between marks of a test."""

from lightning.pytorch import Callback
from torch.profiler import profile, record_function

MARK = "end of "


def mark(name: str) -> None:
    """Say in a running profile that something called ``name`` ends here."""
    with record_function(MARK + name):
        pass


def rounded(size_bytes: int) -> int:
    """An allocation or free of so many bytes, in blocks of 512 as CUDA's allocator has them."""
    blocks = -(-abs(size_bytes) // 512) * 512
    return blocks if size_bytes > 0 else -blocks


def by_profiler(profiler: profile) -> list[tuple[str, int, int]]:
    """What ended, the bytes allocated then, and the most since the mark before, from the allocator's events."""
    found = []
    now = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += rounded(event.nbytes())
            peak = max(peak, now)
        elif event.name().startswith(MARK):
            found.append((event.name().removeprefix(MARK), now, peak))
            peak = now
    return found


class Marks(Callback):
    """Marks where each phase of a step ends, as ``MemoryCapture`` has them."""

    def on_train_start(self, trainer, pl_module):
        mark("loading")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        mark("before_forward")

    def on_before_backward(self, trainer, pl_module, loss):
        mark("after_forward")

    def on_after_backward(self, trainer, pl_module):
        mark("after_backward")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        mark("after_optimizer_step")
