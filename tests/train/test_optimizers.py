"""Optimizers: bytes of their state, one update by three implementations, and schedules at chosen steps."""

import math

import pytest
import torch

from labkit.config.schema import RunConfig
from labkit.train.build import build_model
from labkit.train.optimizers import build_optimizer, build_scheduler

torch.set_num_threads(1)

OPT, T5 = "tiny/blip2-opt-small", "tiny/blip2-t5-small"
UNQUANTISED_BELOW = 4096
BLOCK = 256
both = pytest.mark.parametrize("name", [OPT, T5])


def config(name=OPT, **keys):
    return RunConfig(model_name=name, weights="random", capacity_gib=1, **keys)


def parameters_of(shapes=((60, 100), (100,), (7, 3)), dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def take_steps(optimizer, count=1):
    generator = torch.Generator().manual_seed(1)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(count):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()


def state_bytes(optimizer, leave_out=()):
    tensors = {}
    for state in optimizer.state.values():
        tensors |= {id(v): v for k, v in state.items() if isinstance(v, torch.Tensor) and k not in leave_out}
    return sum(t.numel() * t.element_size() for t in tensors.values())


@both
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_adamw_keeps_twice_the_parameter_bytes(name, precision):
    keys = config(name, precision=precision)
    model = build_model(keys, "cpu")
    optimizer = build_optimizer(keys, model.parameters())
    take_steps(optimizer)
    parameter_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    assert state_bytes(optimizer, leave_out=["step"]) == 2 * parameter_bytes


@both
def test_sgd_keeps_nothing(name):
    keys = config(name, optim="sgd")
    optimizer = build_optimizer(keys, build_model(keys, "cpu").parameters())
    take_steps(optimizer)
    assert state_bytes(optimizer) == 0


@both
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_adam_8bit_keeps_about_two_bytes_a_parameter(name, precision):
    keys = config(name, optim="adam_8bit", precision=precision)
    model = build_model(keys, "cpu")
    optimizer = build_optimizer(keys, model.parameters())
    take_steps(optimizer)
    sizes = [p.numel() for p in model.parameters()]
    small = sum(n for n in sizes if n < UNQUANTISED_BELOW)
    large = [n for n in sizes if n >= UNQUANTISED_BELOW]
    tables = 2 * 256 * 4  # of the 8-bit codes, shared by all tensors
    expected = 8 * small + sum(2 * n + 2 * 4 * math.ceil(n / BLOCK) for n in large) + tables
    assert state_bytes(optimizer) == expected
    assert expected / sum(sizes) == pytest.approx(2.05, abs=0.05)


def test_frozen_parameters_are_left_to_no_optimizer():
    keys = config(freeze_vision=True, freeze_connector=True)
    model = build_model(keys, "cpu")
    optimizer = build_optimizer(keys, model.parameters())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.language_model.parameters()}


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
@pytest.mark.parametrize("impl", ["foreach", "fused", "for-loop"])
def test_the_implementation_asked_for_is_the_one_built(optim, impl):
    group = build_optimizer(config(optim=optim, optim_impl=impl), parameters_of()).param_groups[0]
    assert (bool(group["foreach"]), bool(group["fused"])) == (impl == "foreach", impl == "fused")


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_all_implementations_make_the_same_update(optim):
    results = []
    for impl in ("foreach", "fused", "for-loop"):
        parameters = parameters_of()
        take_steps(build_optimizer(config(optim=optim, optim_impl=impl, lr=0.1), parameters), 3)
        results.append([p.detach() for p in parameters])
    assert (results[0][0] - parameters_of()[0]).abs().mean() > 0.05
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[2], results[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optim", ["adamw", "sgd", "adam_8bit"])
@pytest.mark.parametrize("impl", ["foreach", "for-loop"])
def test_a_rank_with_nothing_to_train_steps_and_resumes(optim, impl):
    config = RunConfig(optim=optim, optim_impl=impl, device="cuda")
    optimizer = build_optimizer(config, [torch.nn.Parameter(torch.zeros(2), requires_grad=False)])
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert [group["params"] for group in optimizer.param_groups] == [[]]
    assert not optimizer.state


def test_sgd_moves_against_the_gradient_by_the_learning_rate():
    parameters, before = parameters_of(), parameters_of()
    take_steps(build_optimizer(config(optim="sgd", lr=0.25), parameters))
    for parameter, start in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter.data, start.data - 0.25 * parameter.grad)


def test_adam_8bit_moves_as_adamw_does_to_the_rounding_of_its_state():
    moves = []
    for optim in ("adamw", "adam_8bit"):
        parameters = parameters_of()
        take_steps(build_optimizer(config(optim=optim, lr=0.01), parameters), 5)
        moves.append(torch.cat([(p - s).flatten() for p, s in zip(parameters, parameters_of(), strict=True)]).detach())
    difference = (moves[0] - moves[1]).norm() / moves[0].norm()
    assert 0 < difference < 0.1


def rates(total_steps=10, lr=2.0, **keys):
    keys = config(optim="sgd", lr=lr, **keys)
    optimizer = build_optimizer(keys, parameters_of())
    scheduler = build_scheduler(keys, optimizer, total_steps)
    found = []
    for _ in range(total_steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_constant_schedule_is_level():
    assert rates(lr_schedule="constant") == [2.0] * 11


def test_a_linear_schedule_falls_to_zero_at_the_end():
    assert rates(lr_schedule="linear") == pytest.approx([2.0 * (10 - step) / 10 for step in range(11)])


def test_a_cosine_schedule_falls_to_zero_at_the_end():
    found = rates(lr_schedule="cosine")
    assert found == pytest.approx([1 + math.cos(math.pi * step / 10) for step in range(11)])
    assert (found[0], found[5], found[10]) == pytest.approx((2.0, 1.0, 0.0))


@pytest.mark.parametrize(
    ("schedule", "at_7", "at_10"), [("constant", 2.0, 2.0), ("linear", 1.0, 0.0), ("cosine", 1.0, 0.0)]
)
def test_every_schedule_rises_from_zero_during_warm_up(schedule, at_7, at_10):
    found = rates(lr_schedule=schedule, warmup_steps=4)
    assert found[:5] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    assert (found[7], found[10]) == pytest.approx((at_7, at_10))
