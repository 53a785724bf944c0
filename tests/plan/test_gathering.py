"""Which weights of ZeRO's stage 3 are whole, and when: its rules one by one, on modules of a few layers."""

import random

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from labkit.memory.tracker import BLOCK_BYTES, Tracker
from labkit.plan.gathering import Gathering, empty

SIZES = {
    "stage3_param_persistence_threshold": 10, "stage3_prefetch_bucket_size": 100, "stage3_max_live_parameters": 10_000,
    "stage3_max_reuse_distance": 0,
}  # fmt: skip
RANKS = 3
WIDTH = 10


class Layers(nn.Module):
    """``count`` layers of 100 numbers; each says before it works which layers are whole."""

    def __init__(self, count, trained=True):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(count))
        self.requires_grad_(trained)
        self.seen = []

    def whole(self):
        # ``part.weight`` would be looked at, and come
        return [place for place, part in enumerate(self.parts) if next(part.parameters()).numel()]

    def look(self):
        self.seen.append(self.whole())

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


def gathered(module, ranks=RANKS, moves=True, **sizes):
    """The module on ``meta``, and the gathering of its weights."""
    module.to("meta")
    shapes = {p: p.shape for p in module.parameters()}
    shares = {p: torch.empty(-(-p.numel() // ranks), device="meta") for p in shapes}
    for parameter in shapes:
        empty(parameter)
    gathering = Gathering(module, shapes, shares, ranks, moves, SIZES | sizes)
    for layers in (part for part in module.modules() if isinstance(part, Layers)):
        for part in layers.parts:
            part.register_forward_pre_hook(lambda *_, layers=layers: layers.look())
    return gathering


def step(module, gathering):
    """What each layer saw in a forward, and in the backward what was whole as each gradient came."""
    module.seen.clear()
    gathering.begin_forward()
    loss = module(torch.empty(2, WIDTH, device="meta", requires_grad=True)).sum()
    forward, at_turn = list(module.seen), module.whole()
    module.seen.clear()
    handles = [p.register_post_accumulate_grad_hook(lambda p: module.look()) for p in module.parameters()
               if p.requires_grad]  # fmt: skip
    gathering.begin_backward()
    loss.backward()
    gathering.end_backward()
    for handle in handles:
        handle.remove()
    for parameter in module.parameters():
        parameter.grad = None
    return forward, at_turn, list(module.seen)


def test_in_the_first_pass_a_layer_is_whole_while_it_works_and_no_longer():
    module = Layers(3)
    forward, at_turn, backward = step(module, gathered(module))
    assert (forward, at_turn, backward) == ([[0], [1], [2]], [], [[2], [1], [0]])
    assert module.whole() == []


def test_from_the_second_pass_on_what_fits_the_bucket_is_fetched_ahead_until_it_is_full():
    module = Layers(6)
    gathering = gathered(module, stage3_prefetch_bucket_size=150)
    step(module, gathering)
    forward, at_turn, _ = step(module, gathering)
    # two layers of 100 make 150 full; they come in one buffer, and are copied when the first of them is waited for;
    # what backward would fetch next and is still there is not let go
    assert forward == [[0, 1], [1], [2, 3], [2, 3], [2, 3, 4, 5], [2, 3, 4, 5]]
    assert at_turn == [2, 3, 4, 5]


def test_events_are_the_same_wherever_weights_lie_in_this_process():
    class Many(nn.Module):
        def __init__(self, seed):
            super().__init__()
            numbers = list(range(1, 40))
            random.Random(seed).shuffle(numbers)
            made = {number: nn.Parameter(torch.empty(number * BLOCK_BYTES)) for number in numbers}
            for number in sorted(made):
                self.register_parameter(f"of_{number}", made[number])

        def forward(self, x):
            return sum((part.sum() for part in self.parameters()), start=x.sum())

    def events(seed):
        module = Many(seed)
        gathering = gathered(module, ranks=1, stage3_param_persistence_threshold=0)
        with Tracker(device_type="meta", keep_events=True) as tracker:
            gathering.begin_forward()
            module(torch.empty(2, device="meta"))
        return [size_bytes for _, size_bytes, _ in tracker.events]

    first = events(0)
    assert len(first) > 39
    assert all(events(seed) == first for seed in range(1, 5))


def test_no_more_is_fetched_than_may_be_whole_at_once():
    module = Layers(4)
    gathering = gathered(module, stage3_prefetch_bucket_size=150, stage3_max_live_parameters=100)
    step(module, gathering)
    assert step(module, gathering)[0] == [[0], [1], [2], [3]]


def test_what_backward_needs_again_soon_is_kept():
    module = Layers(4)
    gathering = gathered(module, stage3_max_reuse_distance=250, stage3_prefetch_bucket_size=0)
    step(module, gathering)
    forward, at_turn, backward = step(module, gathering)
    assert forward == [[0], [1], [2], [2, 3]]  # from layer 2 to its backward it is twice the numbers of layer 3
    assert at_turn == [2, 3]
    assert backward == [[2, 3], [2], [1], [0]]


def test_small_weights_stay_once_it_is_known_what_comes_and_come_back_after_the_step():
    module = Layers(2)
    gathering = gathered(module, stage3_param_persistence_threshold=100)
    assert step(module, gathering)[0] == [[0], [1]]
    gathering.release_all()
    assert module.whole() == []
    gathering.gather_small()
    assert module.whole() == [0, 1]
    step(module, gathering)
    assert module.whole() == [0, 1]


def test_a_weight_that_another_module_looks_at_is_whole_for_that_module():
    class Looks(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.seen = []

        def forward(self, x):
            self.seen.append(self.inner.parts[0].weight.numel())
            return self.inner(x)

    inner = Layers(2)
    module = Looks(inner)
    gathering = gathered(module, stage3_prefetch_bucket_size=0)
    for _ in range(2):
        gathering.begin_forward()
        inner.seen.clear()
        module(torch.empty(2, WIDTH, device="meta", requires_grad=True))
        gathering.end_backward()
    assert module.seen == [WIDTH * WIDTH] * 2
    assert inner.seen == [[0], [0, 1]]  # from the second pass on it stays as long as that module works


@pytest.mark.parametrize(("trained", "again"), [(True, [[0, 1], [1]]), (False, [[0, 1], [0, 1]])])
def test_what_is_computed_again_leaves_frozen_weights_until_the_backward_of_that_is_over(trained, again):
    module = Layers(2, trained)
    gathering = gathered(module)
    gathering.begin_forward()
    loss = checkpoint(module, torch.empty(2, WIDTH, device="meta", requires_grad=True), use_reentrant=False).sum()
    assert module.seen == [[0], [1]]
    gathering.begin_backward()
    loss.backward()  # layer 1 begins, asks for its input, and both are computed again
    # torch compares a frozen weight with what it was when it was computed first, so it may not be empty
    assert module.seen[2:] == again
    gathering.end_backward()
    assert module.whole() == []


@pytest.mark.parametrize(("moves", "same"), [(True, False), (False, True)])
def test_one_rank_uses_its_share_where_it_is_unless_it_has_to_be_moved(moves, same):
    module = Layers(1)
    gathering = gathered(module, ranks=1, moves=moves)
    (share,) = gathering._shares.values()
    found = []
    module.parts[0].register_forward_pre_hook(
        lambda part, _: found.append(part.weight.untyped_storage()._cdata == share.untyped_storage()._cdata)
    )
    step(module, gathering)
    assert found == [same]
