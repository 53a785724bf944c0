"""``torch.cuda.empty_cache`` in a step: a prediction follows what it gives back to the driver.

By the rules of ``CUDACachingAllocator.cpp``: what is small is in 2 MiB; a block of 2 MiB is in a segment of 20, one of
30 in its own, and one of 41 in its own of 42. Expandable segments grow by pages of 20 MiB.
"""

import threading

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

from labkit.config.schema import RunConfig
from labkit.plan.allocator import MIB, CachingAllocator
from labkit.plan.expandable import ExpandableAllocator
from labkit.plan.modules import trace_module
from labkit.plan.predict import judge
from labkit.plan.semantics import DeviceSemantics
from labkit.plan.shapes import ShapeTracker

MACHINE = RunConfig(device="cuda")
CALLS = {"none": lambda: None, "cuda": lambda: torch.cuda.empty_cache(),
         "accelerator": lambda: torch.accelerator.empty_cache()}  # fmt: skip


class Temporaries(BoringModel):
    """Two big temporaries, one after the other, beside a block that lives."""

    def __init__(self, sizes_mib, between):
        super().__init__()
        self.layer = torch.nn.Linear(32, 1, bias=False)
        self.sizes_mib, self.between = sizes_mib, between

    def training_step(self, batch, batch_idx):
        kept = self.empty(2)
        self.empty(self.sizes_mib[0])
        self.between()
        self.empty(self.sizes_mib[1])
        del kept
        return (self.layer.weight * batch).sum()  # cuBLAS would have a workspace

    def empty(self, size_mib):
        return torch.empty(size_mib * MIB, dtype=torch.uint8, device=self.device)


def planned(sizes_mib, call, kind):
    loader = DataLoader(torch.randn(8, 32), batch_size=4)
    trace = trace_module(lambda: Temporaries(sizes_mib, CALLS[call]), loader, MACHINE)
    return trace, judge(trace, None, kind)


@pytest.mark.parametrize("call", ["cuda", "accelerator"])
@pytest.mark.parametrize(
    ("kind", "sizes_mib", "without_mib", "with_mib"),
    [  # reserved after the first forward, and the most in both steps
        (CachingAllocator, (30, 41), (2 + 20 + 30 + 42, 2 + 20 + 30 + 42), (2 + 20 + 42, 2 + 20 + 42)),
        # 30 are cut from the segment of 41; where that has gone, the next step finds 30 and needs a new one for 41
        (CachingAllocator, (41, 30), (2 + 20 + 42, 2 + 20 + 42), (2 + 20 + 30, 2 + 20 + 30 + 42)),
        # what is unmapped is mapped again at the next large block
        (ExpandableAllocator, (30, 41), (2 + 60, 2 + 60), (2 + 60, 2 + 60)),
        (ExpandableAllocator, (41, 30), (2 + 60, 2 + 60), (2 + 40, 2 + 60)),
    ],
)
def test_what_is_reserved_follows_a_call_in_the_step(call, kind, sizes_mib, without_mib, with_mib):
    for name, (after_mib, most_mib) in {"none": without_mib, call: with_mib}.items():
        trace, found = planned(sizes_mib, name, kind)
        assert found.at("after_forward", 0).reserved_bytes == after_mib * MIB, name
        assert found.reserved_bytes == most_mib * MIB, name
        assert 43 * MIB < found.peak_bytes < 43 * MIB + 8192, name
        assert trace.operation == "aten.empty.memory_format", name


def test_lightning_empties_the_cache_before_the_model_moves_and_before_it_trains():
    trace, _ = planned((30, 41), "none", CachingAllocator)
    calls = [index for index, move in enumerate(trace.moves) if not move]
    assert [trace.operation_of(index) for index in calls] == ["torch.cuda.empty_cache"] * 2
    assert calls[1] < trace.marks[0]


def test_another_thread_and_the_time_after_have_what_was_there(monkeypatch):
    called = []
    for module in (torch.cuda, torch.cuda.memory, torch.accelerator, torch.accelerator.memory):
        monkeypatch.setattr(module, "empty_cache", lambda: called.append(threading.current_thread().name))
    with DeviceSemantics(MACHINE), ShapeTracker() as tracker:
        torch.cuda.empty_cache()
        torch.accelerator.empty_cache()
        other = threading.Thread(target=torch.cuda.empty_cache, name="other")
        other.start()
        other.join()
    assert (tracker.events, called) == ([(None, 0, "torch.cuda.empty_cache")] * 2, ["other"])
    torch.cuda.empty_cache()
    torch.accelerator.memory.empty_cache()
    assert called == ["other", "MainThread", "MainThread"]


def test_where_there_is_no_cuda_nothing_is_given_back():
    with DeviceSemantics(RunConfig(capacity_gib=1)), ShapeTracker() as tracker:
        torch.cuda.empty_cache()
    assert tracker.events == []
