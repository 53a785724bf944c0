"""Values: integer and bool tensors on ``meta`` hold what the same operations give on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.plan.errors import PredictionError
from labkit.plan.shapes import ShapeTracker
from labkit.plan.values import LIMIT, STAND_IN, Values

STEPS = {
    "add": lambda x: x + 3,
    "add in place": lambda x: x.add_(2),
    "compare": lambda x: (x > 2).long(),
    "row": lambda x: x[0].expand_as(x) + 0,
    "write a row": lambda x: x.index_fill_(0, torch.tensor([0]).to(x.device), 7),
    "write through a view": lambda x: (x[..., -1].zero_(), x)[1],
    "write a part": lambda x: (x.flatten()[1:3].copy_(torch.tensor([5, 6]).to(x.device)), x)[1],
    "transpose": lambda x: x.transpose(0, 1),
    "contiguous": lambda x: x.contiguous(),
    "count": lambda x: x.cumsum(0),
    "sort": lambda x: x.sort(-1)[0],
    "mask": lambda x: x.masked_fill(x == 7, 0),
    "remainder": lambda x: x % 3,
    "alike": lambda x: torch.zeros_like(x) + x.max(),
    "where": lambda x: torch.where(x > 1, x, 0),
    "detached": lambda x: x.detach().data,
}


def on_meta(values):
    return torch.tensor(values).to("meta")


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), max_size=6),
    shape=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    data=st.data(),
)
def test_integers_hold_what_a_cpu_computes(names, shape, data):
    numbers = st.lists(st.integers(-3, 9), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    real = torch.tensor(data.draw(numbers)).view(shape)
    with ShapeTracker() as tracker:
        meta = real.clone().to("meta")
        for name in names:
            real, meta = STEPS[name](real), STEPS[name](meta)
            assert meta.is_meta
            assert tracker.values.of(meta).tolist() == real.tolist()
        assert meta.tolist() == real.tolist()
        assert meta.cpu().tolist() == real.tolist()
        assert int(meta[0, 0]) == int(real[0, 0])
        assert (bool(meta.any()), bool(meta.all())) == (bool(real.any()), bool(real.all()))
        places = [column.tolist() for column in torch.where(meta > 2)]
        assert places == [column.tolist() for column in torch.where(real > 2)]
        for asked in (torch.unique, torch.bincount):
            assert asked(meta.abs().flatten()).tolist() == asked(real.abs().flatten()).tolist()
        assert torch.equal(meta, meta)


@given(kept=st.lists(st.booleans(), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_a_mask_picks_as_many_as_it_has(kept):
    real = torch.tensor(kept)
    with ShapeTracker() as tracker:
        numbers, mask = torch.empty(len(kept), 3, device="meta", requires_grad=True), real.to("meta")
        picked = numbers[mask]
        assert picked.shape == (sum(kept), 3)
        assert numbers.masked_select(mask[:, None]).shape == (3 * sum(kept),)
        assert tracker.values.of(torch.arange(len(kept), device="meta")[mask]).tolist() == real.nonzero()[:, 0].tolist()
        picked.sum().backward()
        assert numbers.grad.shape == numbers.shape
        repeated = torch.repeat_interleave(torch.arange(len(kept), device="meta"), mask.long())
        assert repeated.tolist() == real.nonzero()[:, 0].tolist()


def test_values_go_with_their_storage():
    values = Values()
    tensor = torch.empty(4, dtype=torch.int64, device="meta")
    values.set(tensor, torch.arange(4))
    assert values.of(tensor.view(2, 2)[1]).tolist() == [2, 3]
    del tensor
    assert not values._known


def test_what_is_written_from_something_unknown_is_not_known():
    with ShapeTracker() as tracker:
        known, unknown = on_meta([1, 2]), torch.empty(2, device="meta").long()
        known.copy_(unknown)
        assert tracker.values.of(known) is None
        with pytest.raises(PredictionError, match="aten._local_scalar_dense.*only a run can know"):
            known[0].item()


def test_state_of_an_optimizer_takes_one_number_and_is_not_known_once_it_is_written():
    with ShapeTracker() as tracker:
        weights = [torch.nn.Parameter(torch.empty(512, 64, device="meta")) for _ in range(2)]
        for weight in weights:
            weight.grad = torch.empty(512, 64, device="meta")
        optimizer = torch.optim.AdamW(weights, fused=False, foreach=True)
        state = torch.zeros_like(weights[0])
        assert tracker.values.of(state)[0, 0] == 0
        assert all(known.numel() == 1 for known in tracker.values._known.values())
        optimizer.step()
        assert tracker.values.of(optimizer.state[weights[0]]["exp_avg"]) is None


def test_whatever_an_operation_writes_is_not_known_any_more():
    with ShapeTracker() as tracker:
        state = [[torch.zeros(4, device="meta")] for _ in range(4)]
        steps = [torch.zeros((), device="meta")]
        torch._fused_adamw_(
            *state, [], steps, lr=0.1, beta1=0.9, beta2=0.9, weight_decay=0.1, eps=1e-8, amsgrad=False, maximize=False
        )  # fmt: skip
        assert [tracker.values.of(tensor) for (tensor,) in (state[0], state[2], state[3])] == [None] * 3
        low, places = torch.zeros(2, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
        torch.min(torch.empty(2, 3, device="meta"), dim=1, out=(low, places))
        assert tracker.values.of(places) is None


def test_a_number_that_the_model_computes_has_a_stand_in():
    with ShapeTracker():
        loss = torch.empty((), device="meta")
        assert loss.item() == float(loss) == loss.cpu().item() == STAND_IN
        kept = torch.zeros(2)
        kept.copy_(torch.empty(2, device="meta"))
        assert kept.tolist() == [STAND_IN] * 2
        assert not loss.isnan() and not loss.isinf() and loss != 0.5
        with pytest.raises(PredictionError, match="aten._local_scalar_dense"):
            bool(loss > 2)


def test_constants_have_their_values():
    with ShapeTracker():
        assert [rate.item() for rate in torch.linspace(0, 0.5, 3, device="meta")] == [0, 0.25, 0.5]
        assert torch.full((), 0.0, device="meta").item() == 0


def test_pictures_are_no_constant_however_large():
    with ShapeTracker() as tracker:
        pixels = torch.empty(2, LIMIT, device="meta")
        empty = (pixels == 0.0).sum(-1) == LIMIT
        assert empty.tolist() == [False, False]
        large = torch.zeros(LIMIT + 1, dtype=torch.int64, device="meta")
        assert tracker.values.of(large) is None


@pytest.mark.parametrize(("routing", "most"), [("balanced", 4), ("one-sided", 8)])
def test_a_router_spreads_tokens_as_it_is_told(routing, most):
    with ShapeTracker() as tracker:
        tracker.values = Values(routing)
        scores = torch.empty(8, 4, device="meta").softmax(-1)
        _, chosen = scores.topk(2)
        one_hot = F.one_hot(chosen, 4).sum((0, 1))
        assert one_hot.sum() == 16
        assert one_hot.max() == most
