"""Buckets: what DistributedDataParallel averages gradients in. C++ makes them, and nothing in Python leads there."""

import contextlib

from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from labkit.borrowed.torch import entered_modes, has_rebuilt_buckets, is_compiled
from labkit.memory.owners import assign_state
from labkit.memory.tracker import UNDECIDED, Tracker


def follow_buckets(
    strategy: DDPStrategy, module: LightningModule, tracker: Tracker, undo: contextlib.ExitStack
) -> None:
    """Have the buckets of DDP be ``gradients``, whether gradients are views into them or not; call it before ``setup``.

    They are what wrapping the module leaves alive, and what a later ``DistributedDataParallel._pre_forward`` makes
    instead, in the order of the first backward, just before the module is called. A ``tracker`` that is not entered is
    entered while the module is wrapped. ``undo`` takes all of it back.

    In a run that resumes the later ones may be made in a step that is not followed, and nothing tells of them then.
    """
    wrap = strategy.configure_ddp

    def configure_ddp() -> None:
        entered = tracker in entered_modes()
        assign_state(tracker, module, ())  # what is alive is the module and others, should wrapping run out of memory
        tracker.reassign(UNDECIDED, "unattributed")
        with contextlib.nullcontext() if entered else tracker:
            wrap()
        tracker.reassign(UNDECIDED, "gradients")
        ddp = strategy.model
        if isinstance(ddp, DistributedDataParallel) and (entered or not is_compiled(module)):

            def before_forward(*_: object) -> None:
                if has_rebuilt_buckets(ddp):
                    tracker.reassign(UNDECIDED, "gradients")
                    handle.remove()

            handle = module.register_forward_pre_hook(before_forward)
            undo.callback(handle.remove)

    strategy.configure_ddp = configure_ddp  # type: ignore[method-assign]
    undo.callback(vars(strategy).pop, "configure_ddp")
