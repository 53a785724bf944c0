"""What is remembered of operations is what torch says of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.plan import rank, steps
from labkit.plan.errors import PredictionError
from labkit.plan.shapes import ShapeTracker
from labkit.train.module import CaptionModule


class Forgetful(ShapeTracker):
    """The same without a memory."""

    def _shaped(self, func, args, kwargs):
        return func(*args, **kwargs)


def layout(out):
    tensors = out if isinstance(out, list | tuple) else [out]
    return [
        (t.shape, t.stride(), t.dtype, t.storage_offset(), t.untyped_storage().nbytes()) if t is not None else None
        for t in tensors
    ]


OPERATIONS = {
    "add": lambda x: x + 1,
    "add half": lambda x: x + 1.5,
    "add each": lambda x: x + x.transpose(0, 1).contiguous().transpose(0, 1),
    "mul in place": lambda x: x.clone().mul_(2),
    "sum": lambda x: x.sum(-1, keepdim=True),
    "compare": lambda x: x > 0,
    "cast": lambda x: x.to(torch.float64),
    "norm": lambda x: torch.native_layer_norm(x.float(), x.shape[-1:], None, None, 1e-5),
    "dropout": lambda x: torch.native_dropout(x.float(), 0.5, True),
    "no dropout": lambda x: torch.native_dropout(x.float(), 0.0, True),
    "cat": lambda x: torch.cat([x, x]),
    "split": lambda x: x.split(1),
    "unsafe split": lambda x: torch.unsafe_split(x, 1),
    "view": lambda x: x.view(x.shape),
    "transposed in place": lambda x: x.clone().t_() if x.dim() == 2 else x.clone(),
    "softmax": lambda x: torch.softmax(x.float(), -1),
    "foreach": lambda x: torch._foreach_mul([x, x], 2.0),
    "foreach in place": lambda x: torch._foreach_add_([x.clone(), x.clone()], 1) or x,
    "max": lambda x: x.max(0),
    "fill": lambda x: torch.empty_like(x).fill_(1),
}


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64]),
    swapped=st.booleans(),
)
def test_the_second_time_gives_what_the_first_gave(name, shape, dtype, swapped):
    operation = OPERATIONS[name]

    def tensor():
        x = torch.empty(shape, dtype=dtype, device="meta")
        return x.transpose(0, 1).contiguous().transpose(0, 1) if swapped else x

    expected = layout(operation(tensor()))
    tracker = ShapeTracker()
    with tracker:
        assert layout(operation(tensor())) == expected
        first, before = len(tracker.events), tracker.allocated_bytes
        assert layout(operation(tensor())) == expected
    allocated = [size for _, size, _ in tracker.events if size]
    assert allocated[: len(allocated) // 2] == allocated[len(allocated) // 2 :]
    assert (len(tracker.events), tracker.allocated_bytes) == (2 * first, before)


def test_outputs_that_are_the_input_are_not_taken_for_new():
    with ShapeTracker() as tracker:
        x = torch.empty(256, 4, device="meta")
        for _ in range(2):
            same = torch.native_dropout(x, 0.0, True)[0]
            assert same.untyped_storage()._cdata == x.untyped_storage()._cdata
        x += 1
        assert tracker.allocated_bytes == x.nbytes


def test_what_is_not_on_meta_does_not_end_the_memory_of_an_operation():
    with ShapeTracker() as tracker:
        torch.ones(2) * 2
        x = torch.empty(3, device="meta")
        x * 2
        known = len(tracker._known)
        x * 2
        assert len(tracker._known) == known
        assert any(key[0] is torch.ops.aten.mul.Tensor for key in tracker._known)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grad_accumulation", "bf16_mixed", "xxl_qlora", "xxl_adam8bit", "xxl_checkpointing"])
def test_whole_steps_are_the_same_with_and_without_a_memory(name, monkeypatch):
    config = resolve(Workspace.find(), name).config
    quick = steps.trace(config)
    monkeypatch.setattr(rank, "ShapeTracker", Forgetful)
    slow = steps.trace(config)
    assert quick.moves.tolist() == slow.moves.tolist()
    assert quick.report == slow.report


def test_an_operation_that_reads_values_is_named():
    with ShapeTracker(), pytest.raises(PredictionError) as caught:
        torch.empty(3, device="meta").nonzero()
    assert "aten.nonzero" in str(caught.value)
    with ShapeTracker(), pytest.raises(PredictionError, match="aten._local_scalar_dense"):
        torch.empty((), device="meta").long().item()
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_whose_step_reads_values_says_which_operation(monkeypatch):
    real = CaptionModule.training_step

    def reads(self, batch, index):
        loss = real(self, batch, index)
        return loss * float((loss > 0).item())

    monkeypatch.setattr(CaptionModule, "training_step", reads)
    with pytest.raises(PredictionError, match="aten._local_scalar_dense"):
        steps.trace(resolve(Workspace.find(), "reduced_batch").config)
