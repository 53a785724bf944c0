"""Gathering: the weights that ZeRO's stage 3 makes whole for the modules that are at work, on ``meta``.

The rules are those of ``partitioned_param_coordinator.py``, ``parameter_offload.py`` and ``partition_parameters.py`` of
DeepSpeed 0.19. A module's weights are whole from just before its use to just after. The first pass, forward and
backward, is recorded. From the second on the next weights are fetched ahead, and what is soon used again is kept, small
weights always.
"""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from labkit.borrowed.torch import tree_map, watch_parameters


class Gathering:
    """Hooks on every module, which make the weights that it uses whole, and empty them again.

    It uses its own, and those of others that its forward looks at while they are empty, if only at their dtype.

    ``shapes`` are those of the weights, which the caller has emptied (``empty``), and ``shares`` has this rank's share
    of each, in its dtype. ``ranks`` says how many have one; where there is one rank, ``moves`` says whether its weights
    are brought from host memory, or are used where they are. ``sizes`` are numbers of ZeRO's configuration:
    ``stage3_param_persistence_threshold``, ``stage3_prefetch_bucket_size``, ``stage3_max_live_parameters`` and
    ``stage3_max_reuse_distance``.

    Call ``begin_forward`` ahead of each forward, ``begin_backward`` and ``end_backward`` around each backward,
    ``release_all`` before the optimizer steps and ``gather_small`` after.
    """

    def __init__(
        self, module: nn.Module, shapes: Mapping[nn.Parameter, torch.Size], shares: Mapping[nn.Parameter, torch.Tensor],
        ranks: int, moves: bool, sizes: Mapping[str, int],
    ) -> None:  # fmt: skip
        self._shapes, self._shares, self._ranks, self._moves = shapes, shares, ranks, moves
        self._prefetch_numbers = sizes["stage3_prefetch_bucket_size"]
        self._reuse_numbers = sizes["stage3_max_reuse_distance"]
        self._live_numbers = sizes["stage3_max_live_parameters"]
        smallest = sizes["stage3_param_persistence_threshold"]
        self._small = [p for p in shares if shapes[p].numel() <= smallest]
        self._always = frozenset(self._small)
        self._places = {p: place for place, p in enumerate(shares)}
        self._whole: set[nn.Parameter] = set()
        self._coming: dict[nn.Parameter, _Bucket | None] = {}
        self._users: dict[nn.Parameter, set[nn.Module]] = collections.defaultdict(set)
        self._backward: dict[nn.Module, set[nn.Parameter]] = {}  # and what waits for the end of a module's backward
        self._passes = 0
        self._order: list[nn.Module] = []
        self._step = 0
        self._queue: collections.deque[tuple[nn.Parameter, int]] = collections.deque()
        self._fetched_for: dict[nn.Parameter, int] = {}
        self._uses = {part: set(part.parameters(recurse=False)) for part in module.modules()}
        self._stack: list[nn.Module] = []
        self._in_forward = False
        for part in self._uses:
            watch_parameters(part, self._looked_at)
            self._hook(part)

    def begin_forward(self) -> None:
        """A pass begins. The first is recorded; from the second on it is known what comes."""
        self._passes += 1
        self._in_forward = True
        self._release(self._coming)
        uses = [(p, step) for step, part in enumerate(self._order) for p in sorted(self._uses[part], key=self._place)]
        self._queue = collections.deque(uses)
        self._fetched_for = collections.defaultdict(lambda: -1)
        self._step = 0

    def begin_backward(self) -> None:
        """The forward is over."""
        self._in_forward = False

    def end_backward(self) -> None:
        """Modules whose inputs have no gradient are told by nothing that their backward is over."""
        while self._backward:
            part, waiting = self._backward.popitem()
            used = self._uses[part] | waiting
            self._leave(part, used, used - self._always)

    def release_all(self) -> None:
        """Every weight is emptied, small ones too."""
        self._users.clear()
        self._release([*self._coming, *self._whole])

    def gather_small(self) -> None:
        """The optimizer has stepped: small weights come back at once."""
        for parameter in self._small:
            if parameter not in self._whole:
                self._alone(parameter)
                self._whole.add(parameter)

    @property
    def _recorded(self) -> bool:
        return self._passes > 1

    def _looked_at(self, parameter: nn.Parameter) -> None:
        if self._in_forward and self._stack and parameter not in self._whole and parameter not in self._coming:
            self._uses[self._stack[-1]].add(parameter)
            self._alone(parameter)
            self._whole.add(parameter)

    def _place(self, parameter: nn.Parameter) -> int:
        return self._places[parameter]

    def _hook(self, part: nn.Module) -> None:
        ends = _Ends(lambda: self._fetch(part, forward=False), lambda: self._release_module(part, forward=False))

        def at_begin(leaf: Any) -> Any:
            return _Before.apply(leaf, ends) if isinstance(leaf, torch.Tensor) else leaf

        def at_end(leaf: Any) -> Any:
            return _After.apply(leaf, ends) if isinstance(leaf, torch.Tensor) else leaf

        def before(_: nn.Module, inputs: Any) -> Any:
            self._stack.append(part)
            self._fetch(part, forward=True)
            ends.waiting = 0
            return tree_map(at_end, inputs)

        def after(_: nn.Module, inputs: Any, output: Any) -> Any:
            self._stack.pop()
            self._release_module(part, forward=True)
            return tree_map(at_begin, output)

        part.register_forward_pre_hook(before)
        part.register_forward_hook(after)

    def _fetch(self, part: nn.Module, *, forward: bool) -> None:
        if not self._recorded:
            self._order.append(part)
        if not forward:
            self._backward.setdefault(part, set())
        own = sorted(self._uses[part], key=self._place)  # in one order, or the allocator's holes are others each time
        self._gather([p for p in own if p not in self._whole and p not in self._coming])
        for parameter in own:
            self._users[parameter].add(part)
            if forward and self._backward and not parameter.requires_grad:
                # computed again for a backward: torch looks at a frozen weight until that is over
                owner = next(reversed(self._backward))
                self._backward[owner].add(parameter)
                self._users[parameter].add(owner)
            if parameter in self._coming:
                self._arrive(parameter)
        if self._recorded:
            self._fetch_ahead(own)
        self._step += 1

    def _fetch_ahead(self, own: Iterable[nn.Parameter]) -> None:
        fresh = sum(self._fetched_for[p] < self._step for p in own)
        passed: set[nn.Parameter] = set()
        while self._queue and len(passed) < fresh:
            parameter, step = self._queue.popleft()
            self._fetched_for[parameter] = step
            passed.add(parameter)
        live = sum(self._shapes[p].numel() for p in (*self._whole, *self._coming))
        most, ahead = min(self._live_numbers - live, self._prefetch_numbers), 0
        found: dict[nn.Parameter, None] = {}
        while self._queue and ahead < most:
            parameter, step = self._queue.popleft()
            self._fetched_for[parameter] = max(self._fetched_for[parameter], step)
            if parameter not in self._whole and parameter not in self._coming and parameter not in found:
                found[parameter] = None
                ahead += self._shapes[parameter].numel()
        self._gather(list(found))

    def _gather(self, parameters: list[nn.Parameter]) -> None:
        if len(parameters) <= 1 or self._ranks == 1:
            for parameter in parameters:
                self._alone(parameter)
                self._coming[parameter] = None
            return
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = collections.defaultdict(list)
        for parameter in sorted(parameters, key=self._place):
            by_dtype[parameter.dtype].append(parameter)
        for group in by_dtype.values():
            bucket = _Bucket(group, sum(self._shares[p].numel() for p in group) * self._ranks, self._shapes)
            self._coming |= dict.fromkeys(group, bucket)

    def _alone(self, parameter: nn.Parameter) -> None:
        share, shape = self._shares[parameter], self._shapes[parameter]
        whole = share
        if self._ranks > 1 or self._moves:
            whole = torch.empty(share.numel() * self._ranks, dtype=share.dtype, device="meta")
        parameter.data = whole.narrow(0, 0, shape.numel()).view(shape)

    def _arrive(self, parameter: nn.Parameter) -> None:
        if (bucket := self._coming.pop(parameter)) is not None:
            bucket.take()
        self._whole.add(parameter)

    def _release_module(self, part: nn.Module, *, forward: bool) -> None:
        used = self._uses[part]
        released = used
        if self._recorded:
            released = {p for p in released - self._always if self._fetched_for[p] <= self._step}
            passed = 0
            for later in self._order[self._step :]:
                if passed >= self._reuse_numbers or not released:
                    break
                own = self._uses[later]
                released -= own
                passed += sum(self._shapes[p].numel() for p in own)
        if not forward:
            waiting = self._backward.pop(part, set())
            used, released = used | waiting, released | (waiting - self._always)
        self._leave(part, used, released)

    def _leave(self, part: nn.Module, used: set[nn.Parameter], released: set[nn.Parameter]) -> None:
        for parameter in used:
            self._users[parameter].discard(part)
        self._release(p for p in released if p in self._whole and not self._users[p])

    def _release(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in sorted(parameters, key=self._place):
            if parameter in self._coming:
                self._arrive(parameter)
            self._whole.discard(parameter)
            empty(parameter)


class _Bucket:
    """Several weights that come together: as they lie in the ranks, and once they are waited for, each by itself."""

    def __init__(self, parameters: list[nn.Parameter], numbers: int, shapes: Mapping[nn.Parameter, torch.Size]) -> None:
        self._flat = torch.empty(numbers, dtype=parameters[0].dtype, device="meta")
        self._parameters, self._shapes = parameters, shapes

    def take(self) -> None:
        """Copy all of them, with the first that is waited for; the flat buffer stays until the last."""
        for parameter in self._parameters:
            parameter.data = torch.empty(self._shapes[parameter], dtype=parameter.dtype, device="meta")
        self._parameters = []


class _Ends:
    """What happens at the two ends of a module's backward; ``waiting`` counts the inputs that await a gradient."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self.begin, self.end = begin, end
        self.waiting = 0


class _Before(torch.autograd.Function):
    """Around an output: backward of the module begins."""

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        ctx, output, ctx.ends = args
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ctx.ends.begin()
        return gradients[0], None


class _After(torch.autograd.Function):
    """Around an input: backward of the module is over when all of these have had their gradient."""

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        ctx, input, ctx.ends = args
        ctx.ends.waiting += input.requires_grad
        return input.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ctx.ends.waiting -= 1
        if ctx.ends.waiting == 0:
            ctx.ends.end()
        return gradients[0], None


def empty(parameter: nn.Parameter) -> None:
    """Leave nothing of a weight on the device but its name."""
    parameter.data = torch.empty(0, dtype=parameter.dtype, device="meta")
