"""Semantics: what ``meta`` does as the device does it, and that torch is as it was afterwards."""

import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from labkit.config.layers import resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.memory.tracker import Tracker
from labkit.plan import steps
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict
from labkit.plan.semantics import DeviceSemantics, replacing
from labkit.plan.shapes import ShapeTracker
from labkit.train.module import CaptionModule

MACHINES = {"cuda": {"device": "cuda"}, "simulated": {"device": "simulated", "capacity_gib": 1}}


def operations(tracker):
    """Names of the operations that allocated."""
    return [str(name).removeprefix("aten.").partition(".")[0] for _, size, name in tracker.events if size]


@pytest.mark.parametrize("drop", [F.dropout, torch.dropout, lambda x, p, train: nn.Dropout(p)(x)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_a_byte_a_number_on_cuda(drop, dtype):
    def kept_bytes(machine):
        with DeviceSemantics(RunConfig(**MACHINES[machine])), ShapeTracker() as tracker:
            x = torch.empty(1024, dtype=dtype, device="meta", requires_grad=True)
            y = drop(x, 0.1, True)
            return tracker.allocated_bytes - x.nbytes - y.nbytes

    assert kept_bytes("cuda") == 1024
    assert kept_bytes("simulated") == 1024 * dtype.itemsize


def test_dropout_that_drops_nothing_allocates_nothing():
    with DeviceSemantics(RunConfig(device="cuda")), ShapeTracker() as tracker:
        x = torch.empty(1024, device="meta")
        kept = F.dropout(x, 0.1, training=False), F.dropout(x, 0.0)
        assert [y.untyped_storage().nbytes() for y in kept] == [x.nbytes] * 2
    assert tracker.allocated_bytes == x.nbytes


def attended(dtype, size, heads=(8, 2), machine="cuda", causal=True, lengths=(64, 64)):
    with DeviceSemantics(RunConfig(**MACHINES[machine])), ShapeTracker() as tracker:
        query = torch.empty(2, heads[0], lengths[0], size, dtype=dtype, device="meta", requires_grad=True)
        key, value = (
            torch.empty(2, heads[1], lengths[1], size, dtype=dtype, device="meta", requires_grad=True)
            for _ in range(2)
        )  # fmt: skip
        out = F.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=heads[0] != heads[1])
        assert (out.shape, out.dtype) == (query.shape, dtype)
        names = operations(tracker)
        out.sum().backward()
        assert key.grad.shape == key.shape
    kernels = [name for name in names if "attention" in name and "math" not in name]
    return kernels[0].removeprefix("_scaled_dot_product_").removesuffix("_attention") if kernels else "math"


@pytest.mark.parametrize("size", [64, 100, 12])
def test_heads_that_share_keys_take_flash_in_16_bits_and_plain_operations_in_32(size):
    assert attended(torch.bfloat16, size) == "flash"
    assert attended(torch.float32, size) == "math"


def test_heads_of_their_own_take_the_kernel_that_takes_their_size():
    assert attended(torch.float32, 64, heads=(8, 8)) == "efficient"
    assert attended(torch.float32, 6, heads=(8, 8)) == "math"
    assert attended(torch.bfloat16, 512, heads=(8, 8)) == "efficient"
    assert attended(torch.bfloat16, 510, heads=(8, 8)) == "math"
    assert attended(torch.bfloat16, 64, heads=(8, 8), lengths=(32, 64)) == "efficient"  # causal, and not square
    assert attended(torch.bfloat16, 64, heads=(8, 8), lengths=(32, 64), causal=False) == "flash"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_operations_allocate_on_meta_what_they_do_on_a_cpu(dtype):
    def peaks(device, tracker):
        query, key, value = (
            torch.zeros(2, heads, 64, 12, dtype=dtype, device=device, requires_grad=True) for heads in (8, 2, 2)
        )
        tracker.peak_bytes = tracker.allocated_bytes
        out = F.scaled_dot_product_attention(query, key, value, enable_gqa=True, dropout_p=0.1)
        forward = tracker.peak_bytes, tracker.allocated_bytes
        out.sum().backward()
        return *forward, tracker.peak_bytes

    with sdpa_kernel(SDPBackend.MATH), Tracker() as tracker:
        real = peaks("cpu", tracker)
    with DeviceSemantics(RunConfig(**MACHINES["simulated"])), ShapeTracker() as tracker:
        assert peaks("meta", tracker) == real


class Layers(nn.Module):
    """Layers of many kinds, one after the other."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv3d(4, 4, 1)])
        self.linear, self.norm, self.weight = nn.Linear(8, 8), nn.LayerNorm(8), nn.Parameter(torch.zeros(8, 8))

    def forward(self, x):
        line = self.layers[0](x[:, :, 0])
        x = self.layers[2](self.layers[1](x)[:, :, None])[:, :, 0]
        x = self.norm(torch.einsum("bchw,wv->bchv", self.linear(x), self.weight))
        return x.softmax(-1).sum() + line.sum() + F.mse_loss(x, x.detach())


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # of the switch, not of what is switched
def test_autocast_casts_what_torchs_own_casts_on_a_cpu():
    def followed(device, casting, tracker):
        model, x = Layers().to(device), torch.zeros(2, 4, 8, 8, device=device)
        with casting:
            loss = model(x)
        kept = tracker.allocated_bytes  # of peaks a CPU's convolutions have their own
        loss.backward()
        return kept, tracker.allocated_bytes, loss.dtype

    with Tracker() as tracker, torch.backends.mkldnn.flags(enabled=False):
        real = followed("cpu", torch.autocast("cpu", torch.bfloat16, cache_enabled=False), tracker)
    machine = RunConfig(**MACHINES["simulated"], precision="bf16-mixed")
    with DeviceSemantics(machine) as semantics, ShapeTracker() as tracker:
        assert followed("meta", semantics.autocast(), tracker) == real


CUDA_DTYPES = {
    "linear": (lambda x: F.linear(x, x), torch.bfloat16),
    "einsum": (lambda x: torch.einsum("ij,jk->ik", x, x), torch.bfloat16),
    "conv1d": (lambda x: F.conv1d(x[None], x[..., None]), torch.bfloat16),
    "matmul": (lambda x: x @ x, torch.bfloat16),
    "multi_dot": (lambda x: torch.linalg.multi_dot([x, x, x]), torch.bfloat16),
    "softmax": (lambda x: x.bfloat16().softmax(-1), torch.float32),
    "layer_norm": (lambda x: F.layer_norm(x.bfloat16(), (8,)), torch.float32),
    "rms_norm": (lambda x: F.rms_norm(x.bfloat16(), (8,)), torch.float32),
    "mse_loss": (lambda x: F.mse_loss(x.bfloat16(), x.bfloat16()), torch.float32),
    "cross_entropy": (lambda x: F.cross_entropy(x.bfloat16(), x.argmax(-1)), torch.float32),
    "power": (lambda x: x.bfloat16() ** 2, torch.float32),
    "sum": (lambda x: x.bfloat16().sum(), torch.float32),
    "relu": (lambda x: x.bfloat16().relu(), torch.bfloat16),
    "attention": (lambda x: F.scaled_dot_product_attention(*[x[None, None]] * 3), torch.bfloat16),
}


@pytest.mark.parametrize("name", CUDA_DTYPES)
def test_autocast_gives_the_dtype_that_cuda_gives(name):
    operation, dtype = CUDA_DTYPES[name]
    machine = RunConfig(device="cuda", precision="bf16-mixed")
    with DeviceSemantics(machine) as semantics, ShapeTracker():
        x = torch.empty(8, 8, device="meta")
        with semantics.autocast():
            assert operation(x).dtype == dtype
        assert operation(x).dtype == operation(torch.zeros(8, 8)).dtype  # outside of autocast as ever


def test_a_sum_in_full_reads_16_bits_without_a_copy():
    with DeviceSemantics(RunConfig(device="cuda", precision="bf16-mixed")) as semantics, ShapeTracker() as tracker:
        x = torch.empty(1024, dtype=torch.bfloat16, device="meta")
        with semantics.autocast():
            x.sum()
    assert tracker.peak_bytes == x.nbytes + 512


def test_new_tensors_have_their_values():
    with DeviceSemantics(RunConfig(device="cuda")), ShapeTracker() as tracker:
        first = torch.tensor([3, 4], device="meta")
        assert torch.tensor([first[0], first.sum()], device="meta").tolist() == [3, 7]
        with torch.device("meta"):
            assert torch.as_tensor([1, 2])[1].item() == 2
        assert torch.tensor([1.0]).device.type == "cpu"
        assert torch.tensor([1.0], device="meta", requires_grad=True).requires_grad
    assert tracker.values.of(first).tolist() == [3, 4]


def replaced():
    """What a plan may have replaced, as it is now."""
    names = ("tensor", "as_tensor", "matmul", "einsum", "softmax", "sum")
    found = [getattr(owner, name, None) for owner in (torch, torch.Tensor, F) for name in names]
    meta = torch.empty(2, 1024, 8, device="meta", requires_grad=True)
    with Tracker(device_type="meta") as tracker:  # without the fused kernel a mask is as large as what it masks
        kept = F.dropout(meta, 0.5)
        size = tracker.allocated_bytes - kept.nbytes
    return found, size, torch.get_default_dtype(), gc.isenabled(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("name", ["bf16_mixed", "six_full_fsdp", "xxl_cpu_offload"])
def test_an_error_in_the_middle_leaves_torch_as_it_was(name, monkeypatch):
    def fails(*_):
        torch.rand(3)
        raise ZeroDivisionError("in the middle")

    before = replaced()
    config = resolve(Workspace.find(), name).config
    monkeypatch.setattr(CaptionModule, "on_train_batch_end", fails)
    with pytest.raises(ZeroDivisionError):
        steps.trace(config)
    assert replaced() == before
    assert not torch.distributed.is_initialized()


def test_threads_predict_what_one_does_after_the_other():
    configs = [resolve(Workspace.find(), name).config for name in ("reduced_batch", "bf16_mixed", "six_full_fsdp")]

    def peaks(config):
        found = predict(config, cache=TraceCache(None))
        return [phase.peak_bytes for phase in found.phases], found.reserved_bytes

    before = replaced()
    expected = [peaks(config) for config in configs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(peaks, configs * 2)) == expected * 2
    assert replaced() == before


def test_two_plans_at_once_take_turns():
    inside = threading.Event()

    def other():
        with replacing():
            inside.set()

    thread = threading.Thread(target=other)
    with replacing():
        thread.start()
        assert not inside.wait(0.2)
    assert inside.wait(60)
    thread.join()


FIRST_DEVICE = """
import torch
from labkit.config.schema import RunConfig
from labkit.plan.semantics import DeviceSemantics

def made():
    with torch.device("meta"):
        return [make([1.0]).device.type for make in (torch.tensor, torch.as_tensor)]

with DeviceSemantics(RunConfig(device="cuda")):
    inside = made()
print(*inside, *made())
"""


@pytest.mark.slow
def test_a_process_whose_first_device_context_is_in_a_prediction_makes_tensors_on_the_device_afterwards():
    # torch keeps the functions that such a context is for at its first use: a process of its own
    found = subprocess.run([sys.executable, "-c", FIRST_DEVICE], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["meta"] * 4
