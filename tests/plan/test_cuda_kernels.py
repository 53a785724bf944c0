"""Kernels: what CUDA's take besides their results, and what autograd does in place there; confirmed by
``tests/truth/liger.py``."""

import pytest
import torch
from torch import nn

from labkit.config.schema import RunConfig
from labkit.plan.semantics import DeviceSemantics
from labkit.plan.shapes import ShapeTracker

MACHINES = {"cuda": {"device": "cuda"}, "simulated": {"device": "simulated", "capacity_gib": 1}}
UNIT = 64 * 1024 * 4
"""Bytes of one tensor of ``made()``."""


def made(grad=True, dtype=torch.float32):
    return torch.empty(64, 1024, device="meta", dtype=dtype, requires_grad=grad)


def peak(run, machine="cuda"):
    """The peak of ``run(x)`` above its input, in tensors as large as that."""
    config = RunConfig(**MACHINES[machine])
    with DeviceSemantics(config), ShapeTracker() as tracker:
        tracker.on_cuda = config.on_cuda
        x = made()
        start = tracker.allocated_bytes
        run(x)
        return (tracker.peak_bytes - start) / UNIT


@pytest.mark.parametrize(("function", "more"), [(torch.softmax, 1), (torch.log_softmax, 0)])
def test_softmax_multiplies_into_a_tensor_of_its_own_in_backward(function, more):
    def step(x):
        function(x, -1).backward(made(grad=False))

    assert peak(step, "simulated") == 3  # the result, the gradient that comes in and that which goes out
    assert peak(step) == 3 + more


def test_gradients_of_a_tensor_used_twice_are_added_in_place():
    def step(x):
        y = x * 1
        torch.autograd.grad([y[:32], y[32:]], x, [torch.empty_like(y[:32]), torch.empty_like(y[32:])])

    assert peak(step, "simulated") == 5  # the result, two halves coming in, two gradients and their sum
    assert peak(step) == 4


def test_a_gradient_that_somebody_else_has_is_not_written_into():
    def step(x):
        y = x * 1
        y.register_hook(lambda gradient: None)
        (y + torch.cat([y[:32], y[32:]])).backward(kept)

    kept = made(grad=False)
    before = peak(step, "simulated")
    assert peak(step) < before  # the second sum is in place; the first is not, as the caller has what came in
    assert peak(lambda x: (x + x).backward(kept)) == 2  # a result and a sum of its own


def test_chosen_numbers_put_their_gradients_into_the_zeros_made_for_them():
    def step(x):
        x.sort(dim=-1)[0].backward(made(grad=False))

    assert peak(step, "simulated") == 6  # numbers, places of 8 bytes, what comes in, zeros and a copy of them
    assert peak(step) == 5


def test_long_rows_are_sorted_with_room_for_copies():
    def allocated(rows, length, machine):
        config = RunConfig(**MACHINES[machine])
        with ShapeTracker() as tracker:
            tracker.on_cuda = config.on_cuda
            x = torch.empty(rows, length, device="meta")
            _ = x.sort(dim=-1)
            return tracker.peak_bytes / x.nbytes

    assert allocated(128, 4096, "cuda") == allocated(128, 8192, "simulated") == 4
    assert allocated(128, 8192, "cuda") == pytest.approx(4 + 5, abs=0.001)


def test_group_norm_sums_each_channel_first_in_backward():
    def highest(machine):
        config = RunConfig(**MACHINES[machine])
        layer = nn.GroupNorm(8, 32, device="meta")
        with ShapeTracker() as tracker:
            tracker.on_cuda = config.on_cuda
            x = torch.empty(64, 32, 16, device="meta", requires_grad=True)
            layer(x).backward(torch.empty_like(x))
            return tracker.peak_bytes

    assert highest("cuda") - highest("simulated") == 64 * (3 * 32 + 2 * 8) * 4


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize(("dtype", "plain"), [(torch.float32, False), (torch.float64, True)])
def test_rms_norm_is_one_kernel_where_the_weight_has_the_inputs_dtype(dtype, plain):
    def kept(machine):
        config = RunConfig(**MACHINES[machine])
        layer = nn.RMSNorm(1024, device="meta", dtype=dtype)
        with DeviceSemantics(config), ShapeTracker() as tracker:
            x = made()
            start = tracker.allocated_bytes
            y = layer(x)
            kept = tracker.allocated_bytes - start - y.nbytes
            y.sum().backward()
            assert (x.grad.shape, layer.weight.grad.shape) == (x.shape, layer.weight.shape)
            return kept

    assert (kept("cuda") == kept("simulated")) is plain
    assert plain or kept("cuda") == 512  # a number for each of 64 rows
