"""MemoryCapture: a Lightning callback that reports memory phase by phase, for any LightningModule."""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from labkit.borrowed.lightning import is_compiled_whole
from labkit.borrowed.torch import entered_modes, is_compiled, is_sharded
from labkit.config.device import SIMULATED_GPU
from labkit.memory.buckets import follow_buckets
from labkit.memory.categories import on_device
from labkit.memory.cuda import AllocatorCounters, reconcile
from labkit.memory.exhaustion import is_exhausted
from labkit.memory.owners import OwnedBy, assign_state, attributes, modules_of, tensors_in
from labkit.memory.report import MemoryReport, PhaseMemory
from labkit.memory.tracker import UNDECIDED, Tracker


class MemoryCapture(Callback):
    """Report what holds memory at optimizer steps 0 and 1 and then at every ``report_every``-th.

        capture = MemoryCapture()
        Trainer(callbacks=[capture]).fit(module)
        print(capture.report.peak_bytes)

    ``report`` is the ``MemoryReport`` so far; ``step``, ``micro_step`` and ``activity`` tell where the run is. After an
    out-of-memory error ``died_in`` tells step, micro step and phase, and ``held`` the bytes by category, in a reported
    step; before, both are None.

    Without a ``tracker`` one is entered for the reported steps alone; other steps run at full speed, and the report
    holds what can be reached from the module, its optimizers and the batch, and what is allocated in a reported step.
    With the ``tracker`` of a simulated GPU, entered by the caller around model building and ``fit``, nothing escapes.
    ``on_phase`` is called with each ``PhaseMemory``. Raises ``ValueError`` for ``report_every`` below 1 and, when
    training starts, for a ``tracker`` that is not entered.

    Under Lightning's ``DDPStrategy`` the buckets that gradients are averaged in are ``gradients``, besides those that
    hang on parameters or instead of them (``gradient_as_bucket_view``).

    A module that goes through ``torch.compile`` runs compiled, as without the callback, and what happens in a compiled
    region is not followed: on CUDA the counters have it as ``unattributed``, and on a CPU, which has no counters,
    nothing is reported and ``refused`` says so. On a simulated GPU compiled modules run eagerly, and are followed.

    On CUDA the allocator's counters decide: each phase adds up to them, and what the tracker has not seen is
    ``unattributed``. ``owned_by`` gives, for an optimizer that is not torch's, its tensors by category; on the
    simulated GPU, where all memory is the host's, ownership is what tells the two apart.
    """

    def __init__(
        self,
        tracker: Tracker | None = None,
        report_every: int = 50,
        on_phase: Callable[[PhaseMemory], None] | None = None,
        owned_by: OwnedBy | None = None,
    ) -> None:
        if report_every < 1:
            raise ValueError(f"report_every={report_every} must be at least 1.")
        self.report = MemoryReport(
            source="CUDA" if tracker and tracker.device_type == "cuda" else SIMULATED_GPU,
            capacity_bytes=tracker.capacity_bytes if tracker else None,
        )
        self.died_in: dict[str, Any] | None = None
        self.held: dict[str, int] | None = None
        self.refused: str | None = None
        self.activity = "load_model"
        self.step = 0
        self.micro_step = 0
        self._found = tracker
        self._always = tracker is not None
        self._entered = False
        self._looks = True
        self._global_step = 0
        self._report_every = report_every
        self._on_phase = on_phase
        self._owned_by = owned_by
        self._module: LightningModule | None = None
        self._optimizers: list[torch.optim.Optimizer] = []
        self._kept_by: list[Callback] = []
        self._counters: AllocatorCounters | None = None
        self._undo = contextlib.ExitStack()
        if tracker is not None:
            tracker.before_error = self._assign_before_error

    @property
    def peak_bytes(self) -> int:
        """Highest device bytes so far: on CUDA of the whole run, else of the reported phases."""
        return self._counters.run_peak_bytes if self._counters else self.report.peak_bytes

    def reports(self, step: int) -> bool:
        """Whether optimizer step ``step`` (the first is 0) is reported."""
        return self.refused is None and (step in (0, 1) or step % self._report_every == 0)

    # -- Lightning's hooks, in the order of a step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """DDP makes its first buckets before training starts."""
        if stage == "fit" and isinstance(trainer.strategy, DDPStrategy):
            if self._found is None:
                self._found = Tracker(device_type=trainer.strategy.root_device.type)
            follow_buckets(trainer.strategy, pl_module, self._found, self._undo)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the module over; what was made while it was built is known from now on."""
        self._module, self._optimizers = pl_module, list(trainer.optimizers)
        self._kept_by = list(trainer.callbacks)  # type: ignore[attr-defined]  # a connector sets it
        # the trainer counts the steps of each optimizer
        self._global_step = trainer.global_step
        self.step = trainer.global_step // max(1, len(self._optimizers))
        if self._found is None:
            self._found = _tracker_of(pl_module)
        if not self._always:
            self.report.source = "CUDA" if self._tracker.device_type == "cuda" else SIMULATED_GPU
        self._counters = self._allocator_counters()
        self._looks = self._always or not (is_compiled(pl_module) or is_compiled_whole(pl_module))
        if not self._looks and self._counters is None:
            self.refused = (
                f"{type(pl_module).__name__} is compiled, and of compiled regions a CPU cannot say what they hold; "
                "train it without torch.compile, or on CUDA, to get a memory report."
            )
            warnings.warn(self.refused, stacklevel=2)
        self.activity = "load_batch"
        if self._always:
            if self._tracker not in entered_modes():
                raise ValueError("the tracker given to MemoryCapture is not entered; put 'with tracker:' around fit.")
            self._assign_state()
            self._tracker.begin_phase()
        if self._counters is not None:
            self._counters.begin_phase()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is on the device: end of ``before_forward``."""
        if self._has_stepped(trainer):  # a module may end an epoch between this hook and on_train_batch_end
            self.step, self.micro_step = self.step + 1, 0
        self._leave()
        self.activity = "forward"
        if not self.reports(self.step):
            if self._always:
                self._tracker.reassign(UNDECIDED, "unattributed")
            return
        if not self._always:
            if self._looks:
                self._tracker.__enter__()
            self._entered = True
            self._tracker.begin_phase()
        self._tracker.assign(tensors_in(batch), "inputs")
        self._end_phase("before_forward", "unattributed")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """What forward left alive is kept for backward: end of ``after_forward``."""
        self.activity = "backward"
        if self._following:
            self._end_phase("after_forward", "activations")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gradients exist: end of ``after_backward``."""
        self.activity = "optimizer_step"
        if self._following:
            # what forward has left in the module is no activation any more; the rest waits for the graph, which lives
            # as long as the loss: frozen layers that are checkpointed leave it what they have computed again
            if self.reports(self.step):  # looking at every attribute takes a percent of a step
                forward = ("activations", UNDECIDED)
                kept = [t for t in attributes(pl_module) if self._tracker.category(t) in forward]
                self._tracker.assign(kept, "unattributed")
            self._end_phase("after_backward", "activations")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End of ``after_optimizer_step``, where the optimizer has stepped."""
        stepped = self._has_stepped(trainer)
        if self._following:
            self._tracker.reassign("activations", "unattributed")  # the loss is gone, so something else keeps them
            if stepped:
                self._end_phase("after_optimizer_step", "unattributed")
            else:
                self._tracker.stop_phase()
        self._leave()
        self.step, self.micro_step = self.step + stepped, 0 if stepped else self.micro_step + 1
        self.activity = "load_batch"
        if self._always:
            if self.reports(self.step):
                self._tracker.begin_phase()
            else:
                self._tracker.stop_phase()  # a log of steps that is not read would grow without end
        if self._counters is not None and self.reports(self.step):
            self._counters.begin_phase()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is no phase of a step."""
        self.activity = "validation"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The next step's ``before_forward`` begins after it."""
        self.activity = "load_batch"
        if self._always and self.reports(self.step):
            self._tracker.begin_phase()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note where an out-of-memory error struck, and in a step that is followed what held the memory."""
        # a simulated GPU's error has said so itself
        followed = self._following and self._tracker.capacity_bytes is None
        exhausted = is_exhausted(exception)  # before the trainer frees anything
        if exhausted and followed:
            self._tracker.reassign(UNDECIDED, self._assign_before_error())
            self.held = self._tracker.breakdown()
            if self._counters is not None:
                self.held["unattributed"] += self._counters.read().allocated_bytes - on_device(self.held)
        self._leave()
        self._let_go()
        if exhausted:
            self.died_in = {"step": self.step, "micro_step": self.micro_step, "phase": self.activity}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing behind: no mode on the stack, no module kept alive."""
        self._leave()
        self._let_go()

    def _has_stepped(self, trainer: Trainer) -> bool:
        """Whether an optimizer has stepped since this was asked last."""
        before, self._global_step = self._global_step, trainer.global_step
        return self._global_step != before

    # -- how a phase ends

    @property
    def _tracker(self) -> Tracker:
        if self._found is None:
            raise RuntimeError("MemoryCapture has no tracker before on_train_start: it finds one for the module there.")
        return self._found

    @property
    def _following(self) -> bool:
        return self._always or self._entered

    def _allocator_counters(self) -> AllocatorCounters | None:
        return AllocatorCounters() if self._tracker.device_type == "cuda" else None

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            if self._looks:
                self._tracker.__exit__(None, None, None)

    def _let_go(self) -> None:
        self._undo.close()
        # who keeps the report should not keep the model: neither here nor in what Lightning hangs on every callback
        self._module = None
        self._optimizers = []
        self._kept_by = []
        for name in ("log", "log_dict"):
            self.__dict__.pop(name, None)
        if self._found is not None:
            self._found.stop_phase()

    def _end_phase(self, name: str, survivors: str) -> None:
        if not self.reports(self.step):
            self._tracker.reassign(UNDECIDED, survivors)
            return
        self._assign_state()
        end, peak, highest = self._tracker.end_phase(survivors)
        reserved = used = None
        if self._counters is not None:
            counters = self._counters.read()
            reconcile(end, peak, highest, (on_device(end), on_device(peak)), counters)
            reserved, used = counters.reserved_bytes, counters.device_used_bytes
        memory = PhaseMemory(
            phase=name, step=self.step, micro_step=self.micro_step, end=end, peak=peak, highest=highest,
            reserved_bytes=reserved, device_used_bytes=used,
        )  # fmt: skip
        self.report.phases.append(memory)
        if self._on_phase is not None:
            self._on_phase(memory)
        self._tracker.begin_phase()
        if self._counters is not None:
            self._counters.begin_phase()

    def _assign_state(self) -> None:
        if self._module is not None:
            assign_state(self._tracker, self._module, self._optimizers, self._owned_by)
            copies = (copy for callback in self._kept_by for copy in modules_of(callback) if copy is not self._module)
            for copy in copies:
                self._tracker.assign((*copy.parameters(), *copy.buffers()), "parameters")

    def _assign_before_error(self) -> str:
        self._assign_state()
        # the phase will not end: in forward most of what it made waits for backward, and while the model is made,
        # what is alive becomes the model
        return {"forward": "activations", "load_model": "parameters"}.get(self.activity, "temporaries")


def _tracker_of(module: LightningModule) -> Tracker:
    """A tracker for where the module is; one that looks through FSDP's shards, if it is sharded."""
    kind = module.device.type
    if not any(is_sharded(parameter) for parameter in module.parameters()):
        return Tracker(device_type=kind)
    from labkit.memory.sharded import ShardTracker, follow_gathered  # takes half a second to import

    tracker = ShardTracker(device_type=kind)
    follow_gathered(module, tracker)
    return tracker
