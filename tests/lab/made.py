"""Reports that no one measured, for tests of what is shown of them."""

from labkit.memory.categories import CATEGORIES
from labkit.memory.report import PHASES, MemoryReport, PhaseMemory

MIB = 2**20


def breakdown(**mib):
    return {category: int(mib.get(category, 0) * MIB) for category in CATEGORIES}


def phase(name, step, **mib):
    found = breakdown(**mib)
    return PhaseMemory(phase=name, step=step, micro_step=0, end=found, peak=found, highest=found)


def report(source="simulated GPU", activations=20.0, optimizer=30.0):
    """Two steps of a model of 15 MiB."""
    phases = []
    for step in (0, 1):
        state = {"optimizer_gpu": optimizer if step else 0, "gradients": 15 if step else 0}
        for name in PHASES:
            held = {"parameters": 15.0, **state}
            if name == "after_forward":
                held["activations"] = activations
            if name == "after_optimizer_step":
                held |= {"optimizer_gpu": optimizer, "gradients": 15, "temporaries": 15}
            phases.append(phase(name, step, **held))
    return MemoryReport(source=source, capacity_bytes=95 * MIB, phases=phases)
