"""Exhausted: the result of a run whose device has no memory left, with what held the memory."""

from typing import Any

from labkit.config.schema import RunConfig
from labkit.memory.capture import MemoryCapture
from labkit.memory.categories import on_device
from labkit.memory.tracker import SimulatedOutOfMemoryError


def out_of_memory(config: RunConfig, error: RuntimeError, capture: MemoryCapture) -> dict[str, Any]:
    """The values of the event ``result``: where it struck, and by category what was held, where that is known."""
    found: dict[str, Any] = {
        "status": "oom",
        "died_in": capture.died_in or {"step": 0, "micro_step": 0, "phase": capture.activity},
        "reason": str(error),
    }
    if isinstance(error, SimulatedOutOfMemoryError):
        found["out_of_memory"] = {
            "requested_bytes": error.requested_bytes, "capacity_bytes": error.capacity_bytes,
            "allocated_bytes": error.allocated_bytes, "operation": error.operation, "held": error.held,
        }  # fmt: skip
    elif capture.held is not None:  # CUDA says in its message what was asked for
        found["out_of_memory"] = {
            "requested_bytes": None, "capacity_bytes": config.capacity_bytes, "operation": None,
            "allocated_bytes": on_device(capture.held), "held": capture.held,
        }  # fmt: skip
    return found
