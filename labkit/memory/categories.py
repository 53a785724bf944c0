"""Categories: what memory is held for, and what each is called."""

from collections.abc import Mapping

CATEGORIES = (
    "parameters",
    "parameters_cpu",
    "gradients",
    "optimizer_gpu",
    "optimizer_cpu",
    "inputs",
    "activations",
    "temporaries",
    "unattributed",
)
"""``parameters`` (buffers too) and optimizer state by where they live (offload keeps them, master weights and
gradients on their way to those, in host memory: ``_cpu``), ``gradients``, ``inputs`` (the batch),
``activations`` (allocated in forward and kept for backward), ``temporaries`` (allocated and freed in one phase) and
``unattributed``: alive, and none of the others."""

HOST_CATEGORIES = frozenset({"parameters_cpu", "optimizer_cpu"})
"""Categories that live in the host's memory and take nothing from the device."""

MAIN_CATEGORIES = ("parameters", "gradients", "optimizer_gpu", "activations", "temporaries")
"""Those that a table always has."""

STACKED_CATEGORIES = (*MAIN_CATEGORIES, "inputs", "unattributed")
"""All that take device memory, as a figure stacks them."""

SHORT_NAMES = {
    "parameters": "params", "parameters_cpu": "params cpu", "gradients": "grads", "optimizer_gpu": "optim",
    "optimizer_cpu": "optim cpu", "inputs": "inputs", "activations": "activ", "temporaries": "temp",
    "unattributed": "unattr",
}  # fmt: skip
"""Names for the head of a column."""

NAMES = {category: category for category in CATEGORIES} | {
    "optimizer_gpu": "optimizer state", "optimizer_cpu": "optimizer state", "parameters_cpu": "parameters",
}  # fmt: skip
"""Names for a sentence and a legend, which say elsewhere what is in host memory."""


def on_device(by_category: Mapping[str, int]) -> int:
    """Bytes that a breakdown takes from the device: all categories but those in host memory."""
    return sum(n for category, n in by_category.items() if category not in HOST_CATEGORIES)


def on_host(by_category: Mapping[str, int]) -> int:
    """Bytes that a breakdown has in host memory."""
    return sum(by_category[category] for category in HOST_CATEGORIES)
