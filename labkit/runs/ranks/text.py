"""The ranks of a run on several devices as text, side by side."""

from labkit.ledger.columns import WideTable
from labkit.ledger.records import Record
from labkit.runs.ranks.files import side_by_side

_SHOWN = {
    "parameters": "params", "gradients": "grads", "optimizer_gpu": "optim", "activations": "activ",
    "temporaries": "temp", "unattributed": "unattr",
}  # fmt: skip


def rank_table(record: Record) -> WideTable | None:
    """One line a rank, in MiB; each category's own peak. None for a run on one device."""
    rows = side_by_side(record)
    if not rows:
        return None
    table = WideTable("the ranks side by side, in MiB")
    table.add_numbers("rank", "peak", *_SHOWN.values(), "host")
    for row in rows:
        found = row["by_category"]
        numbers = [row["peak_bytes"], *(found[c] for c in _SHOWN), found["parameters_cpu"] + found["optimizer_cpu"]]
        table.add_row(str(row["rank"]), *(f"{n / 2**20:.2f}" for n in numbers))
    return table
