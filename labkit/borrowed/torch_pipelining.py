"""Private names of torch's pipelines, read in torch 2.13 and 2.11."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.pipelining.schedules import _sorted_batch_p2p, _wait_batch_p2p


class GPipe(ScheduleGPipe):
    """torch's schedule in two calls, forward and backward, for Lightning's hooks to come between.

    Both are the two halves of ``ScheduleGPipe._step_microbatches`` of torch 2.13, whose parts are private. Chunks need
    not have as many samples each; none has more than the first.
    """

    def forward(self, args: list[tuple], kwargs: list[dict[str, torch.Tensor]]) -> None:
        """Every chunk through this rank's stage, and on to the next."""
        self._stage.has_backward = True
        self._stage.clear_runtime_states()
        self._internal_losses.clear()
        # torch 2.11 asks for no target
        target = [kwargs[0]["labels"]] if "target" in inspect.signature(self._initialize_stage).parameters else []
        self._initialize_stage(args[0], kwargs[0], *target)
        _fit_buffers(self._stage, [len(chunk["labels"]) for chunk in kwargs])
        sends: list[Any] = []
        for i in range(self._n_microbatches):
            _finish(self.exchange(self._stage.get_fwd_recv_ops(i), "fwd_recv"))
            output = self._stage.forward_one_chunk(i, args[i], kwargs[i])
            sends += self.exchange(self._stage.get_fwd_send_ops(i), "fwd_send")
            self._maybe_compute_loss(self._stage, output, [chunk["labels"] for chunk in kwargs], i)
        _finish(sends)

    def backward(self) -> None:
        """Every chunk's gradients back through this rank's stage, and on to the one before."""
        sends: list[Any] = []
        for i in range(self._n_microbatches):
            _finish(self.exchange(self._stage.get_bwd_recv_ops(i), "bwd_recv"))
            self._stage.backward_one_chunk(
                i, loss=self._maybe_get_loss(self._stage, i), last_backward=i == self._n_microbatches - 1
            )
            sends += self.exchange(self._stage.get_bwd_send_ops(i), "bwd_send")
        _finish(sends)

    def exchange(self, operations: list[Any], name: str) -> Iterable[Any]:
        """Begin to send and receive; what to wait for."""
        return _sorted_batch_p2p(operations, desc=name).values()

    def take_losses(self) -> torch.Tensor | None:
        """The sum of the chunks' losses; None but on the last rank."""
        return torch.stack([loss.detach() for loss in self._internal_losses]).sum() if self._internal_losses else None


def _finish(works: Iterable[Any]) -> None:
    for work in works:
        _wait_batch_p2p(work)


def _fit_buffers(stage: Any, samples: Sequence[int]) -> None:
    """torch makes the buffers of all chunks as large as the first's."""
    for received in (stage.args_recv_info, stage.grad_recv_info):
        for chunk, count in enumerate(samples):
            for info in received.get(chunk, ()):
                if getattr(info, "buffer", None) is not None and len(info.buffer) != count:
                    info.buffer = info.buffer.new_empty((count, *info.buffer.shape[1:]))


class StageAlone(PipelineStage):
    """A stage whose neighbours are not there: it asks them nothing, and takes the shapes that it was told."""

    def _warmup_forward_vote(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.ones(1, dtype=torch.int32, device="cpu")

    def _warmup_backward_result(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.ones(1, dtype=torch.int32, device="cpu")

    def _get_init_p2p_neighbors_ops(self) -> list[Any]:
        return []


class GPipeAlone(GPipe):
    """The schedule of such a stage. What it would receive is there, with any values."""

    def exchange(self, operations: list[Any], name: str) -> Iterable[Any]:
        """Nothing is sent; what would be is held until somebody has waited for it."""
        return [[_Held(operation)] for operation in operations]


class _Held:
    """What stands for the work of sending a tensor."""

    def __init__(self, operation: Any) -> None:
        self._operation = operation

    def wait(self) -> None:
        self._operation = None
