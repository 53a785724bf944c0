"""Private names of torch's pipelines, read in torch 2.13 and 2.11."""

import inspect
from typing import Any

import torch
from torch.distributed.pipelining import ScheduleGPipe
from torch.distributed.pipelining.schedules import _sorted_batch_p2p, _wait_batch_p2p


class GPipe(ScheduleGPipe):
    """torch's schedule in two calls, forward and backward, for Lightning's hooks to come between.

    Both are the two halves of ``ScheduleGPipe._step_microbatches`` of torch 2.13, whose parts are private.
    """

    def forward(self, args: list[tuple], kwargs: list[dict[str, torch.Tensor]]) -> None:
        """Every chunk through this rank's stage, and on to the next."""
        self._stage.has_backward = True
        self._stage.clear_runtime_states()
        self._internal_losses.clear()
        # torch 2.11 asks for no target
        target = [kwargs[0]["labels"]] if "target" in inspect.signature(self._initialize_stage).parameters else []
        self._initialize_stage(args[0], kwargs[0], *target)
        sends: list[Any] = []
        for i in range(self._n_microbatches):
            _finish(self._stage.get_fwd_recv_ops(i), "fwd_recv")
            output = self._stage.forward_one_chunk(i, args[i], kwargs[i])
            sends += _sorted_batch_p2p(self._stage.get_fwd_send_ops(i), desc="fwd_send").values()
            self._maybe_compute_loss(self._stage, output, [chunk["labels"] for chunk in kwargs], i)
        for work in sends:
            _wait_batch_p2p(work)

    def backward(self) -> None:
        """Every chunk's gradients back through this rank's stage, and on to the one before."""
        sends: list[Any] = []
        for i in range(self._n_microbatches):
            _finish(self._stage.get_bwd_recv_ops(i), "bwd_recv")
            self._stage.backward_one_chunk(
                i, loss=self._maybe_get_loss(self._stage, i), last_backward=i == self._n_microbatches - 1
            )
            sends += _sorted_batch_p2p(self._stage.get_bwd_send_ops(i), desc="bwd_send").values()
        for work in sends:
            _wait_batch_p2p(work)

    def take_losses(self) -> torch.Tensor | None:
        """The sum of the chunks' losses; None but on the last rank."""
        return torch.stack([loss.detach() for loss in self._internal_losses]).sum() if self._internal_losses else None


def _finish(operations: list[Any], name: str) -> None:
    for work in _sorted_batch_p2p(operations, desc=name).values():
        _wait_batch_p2p(work)
