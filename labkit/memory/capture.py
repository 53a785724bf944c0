"""MemoryCapture: a Lightning callback that reports memory phase by phase, for any LightningModule."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_iter

from labkit.memory.report import MemoryReport, PhaseMemory
from labkit.memory.tracker import UNDECIDED, Tracker


class MemoryCapture(Callback):
    """Report what holds memory at optimizer steps 0 and 1 and then at every ``report_every``-th.

        capture = MemoryCapture()
        Trainer(callbacks=[capture]).fit(module)
        print(capture.report.peak_bytes)

    Without a ``tracker`` one is entered for the reported steps alone; other steps run at full speed, and the report
    holds what can be reached from the module, its optimizers and the batch, and what is born in a reported step.
    With the ``tracker`` of a virtual GPU, entered by the caller around model building and ``fit``, nothing escapes.
    ``on_phase`` is called with each ``PhaseMemory``. After an out-of-memory error ``died_in`` tells step, micro step
    and phase.
    """

    def __init__(
        self,
        tracker: Tracker | None = None,
        report_every: int = 50,
        on_phase: Callable[[PhaseMemory], None] | None = None,
    ) -> None:
        if report_every < 1:
            raise ValueError(f"report_every={report_every} must be at least 1.")
        self.report = MemoryReport(
            source="CUDA" if tracker and tracker.device_type == "cuda" else "virtual GPU",
            capacity_bytes=tracker.capacity_bytes if tracker else None,
        )
        self.died_in: dict[str, Any] | None = None
        self.activity = "load_model"
        self.step = 0
        self.micro_step = 0
        self._tracker = tracker
        self._always = tracker is not None
        self._entered = False
        self._report_every = report_every
        self._on_phase = on_phase
        self._module: LightningModule | None = None
        self._optimizers: list[torch.optim.Optimizer] = []
        if tracker is not None:
            tracker.before_error = self._assign_before_error

    def reports(self, step: int) -> bool:
        """Whether optimizer step ``step`` (the first is 0) is reported."""
        return step in (0, 1) or step % self._report_every == 0

    # -- Lightning's hooks, in the order of a step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the module over; what was made while it was built is known from now on."""
        self._module, self._optimizers = pl_module, list(trainer.optimizers)
        if self._tracker is None:
            kind = pl_module.device.type
            self._tracker = Tracker(device_type=kind)
            self.report.source = "CUDA" if kind == "cuda" else "virtual GPU"
        self.activity = "load_batch"
        if self._always:
            if self._tracker not in _get_current_dispatch_mode_stack():
                raise ValueError("the tracker given to MemoryCapture is not entered; put 'with tracker:' around fit.")
            self._assign_state()
            self._tracker.begin_phase()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is on the device: end of ``before_forward``."""
        if trainer.global_step != self.step:
            self.step, self.micro_step = trainer.global_step, 0
        self._leave()  # a module may end an epoch between this hook and on_train_batch_end
        self.activity = "forward"
        if not self.reports(self.step):
            if self._always:
                self._tracker.reassign(UNDECIDED, "unattributed")
            return
        if not self._always:
            self._tracker.__enter__()
            self._entered = True
            self._tracker.begin_phase()
        self._tracker.assign((t for t in tree_iter(batch) if isinstance(t, torch.Tensor)), "inputs")
        self._end_phase("before_forward", "unattributed")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """What forward left alive is kept for backward: end of ``after_forward``."""
        self.activity = "backward"
        if self._following:
            self._end_phase("after_forward", "activations")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gradients exist, the graph is gone: end of ``after_backward``."""
        self.activity = "optimizer_step"
        if self._following:
            # backward has used up the activations; what still lives was kept by somebody else
            self._tracker.reassign("activations", "unattributed")
            self._end_phase("after_backward", "unattributed")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End of ``after_optimizer_step``, where the optimizer has stepped."""
        stepped = trainer.global_step != self.step
        if self._following:
            if stepped:
                self._end_phase("after_optimizer_step", "unattributed")
            else:
                self._tracker.stop_phase()
        self._leave()
        self.step, self.micro_step = trainer.global_step, 0 if stepped else self.micro_step + 1
        self.activity = "load_batch"
        if self._always:
            if self.reports(self.step):
                self._tracker.begin_phase()
            else:
                self._tracker.stop_phase()  # a log of steps that nobody reads would grow without end

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is no phase of a step."""
        self.activity = "validation"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The next step's ``before_forward`` begins after it."""
        self.activity = "load_batch"
        if self._always and self.reports(self.step):
            self._tracker.begin_phase()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note where an out-of-memory error struck."""
        self._leave()
        self._let_go()
        if isinstance(exception, torch.OutOfMemoryError):
            self.died_in = {"step": self.step, "micro_step": self.micro_step, "phase": self.activity}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing behind: no mode on the stack, no module kept alive."""
        self._leave()
        self._let_go()

    # -- how a phase ends

    @property
    def _following(self) -> bool:
        return self._tracker is not None and (self._always or self._entered)

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._tracker.__exit__(None, None, None)

    def _let_go(self) -> None:
        # who keeps the report should not keep the model: neither here nor in what Lightning hangs on every callback
        self._module, self._optimizers = None, []
        for name in ("log", "log_dict"):
            self.__dict__.pop(name, None)
        if self._tracker is not None:
            self._tracker.stop_phase()

    def _end_phase(self, name: str, survivors: str) -> None:
        if not self.reports(self.step):
            self._tracker.reassign(UNDECIDED, survivors)
            return
        self._assign_state()
        end, peak, highest = self._tracker.end_phase(survivors)
        reserved, used = _cuda_counters() if self._tracker.device_type == "cuda" else (None, None)
        memory = PhaseMemory(
            phase=name, step=self.step, micro_step=self.micro_step, end=end, peak=peak, highest=highest,
            reserved_bytes=reserved, device_used_bytes=used,
        )  # fmt: skip
        self.report.phases.append(memory)
        if self._on_phase is not None:
            self._on_phase(memory)
        self._tracker.begin_phase()

    def _assign_state(self) -> None:
        """Find parameters, gradients and optimizer state where they hang, and say so to the tracker."""
        if self._module is None:
            return
        parameters = list(self._module.parameters())
        self._tracker.assign(parameters, "parameters")
        self._tracker.assign(self._module.buffers(), "parameters")
        self._tracker.assign((p.grad for p in parameters if p.grad is not None), "gradients")
        for optimizer in self._optimizers:
            fused = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
            for state in optimizer.state.values():
                for key, value in state.items():
                    # torch keeps the step counters of adamw in host memory, unless it is fused or capturable
                    in_host_memory = key == "step" and not fused
                    tensors = [t for t in tree_iter(value) if isinstance(t, torch.Tensor)]
                    self._tracker.assign(tensors, "optimizer_cpu" if in_host_memory else "optimizer_gpu")

    def _assign_before_error(self) -> str:
        self._assign_state()
        # the phase will not end: in forward most of what it made waits for backward
        return "activations" if self.activity == "forward" else "temporaries"


def _cuda_counters() -> tuple[int, int]:
    """Bytes reserved by the caching allocator, and used on the device by anyone."""
    free, total = torch.cuda.mem_get_info()
    return torch.cuda.memory_reserved(), total - free
