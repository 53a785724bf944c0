"""The ranks of a run on several devices as text, side by side."""

from labkit.ledger.records import Record
from labkit.ledger.table import Table, numbers
from labkit.memory.categories import MAIN_CATEGORIES, SHORT_NAMES, on_host
from labkit.runs.ranks.files import side_by_side

_SHOWN = (*MAIN_CATEGORIES, "unattributed")


def rank_table(record: Record) -> Table | None:
    """One line a rank, in MiB; each category's own peak. None for a run on one device."""
    rows = side_by_side(record)
    if not rows:
        return None
    lines = []
    for row in rows:
        found = row["by_category"]
        counts = [row["peak_bytes"], *(found[c] for c in _SHOWN), on_host(found)]
        lines.append([str(row["rank"]), *(f"{n / 2**20:.2f}" for n in counts)])
    columns = numbers("rank", "peak", *(SHORT_NAMES[c] for c in _SHOWN), "host")
    return Table("the ranks side by side, in MiB", columns, lines)
