"""Counts: what was counted in addition to runs. Captions before and after training, updates lost to rounding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.lab.result import Evidence, Result
from labkit.ledger.table import Picture, Table

SHOWN_CAPTIONS = 8


class Captions(Evidence):
    """Captions of images by a run's model. ``share`` is how many are exactly the image's own, ``base_share`` before."""

    def __init__(self, result: Result, dataset: str, rows: Sequence[dict[str, str]]) -> None:
        self.name, self.id, self.said = f"{result.name} on {dataset}", result.id, result.said
        self.dataset, self.rows = dataset, list(rows)

    @property
    def share(self) -> float:
        """Share of exact captions by what was trained."""
        return self._share("caption")

    @property
    def base_share(self) -> float | None:
        """Share of exact captions by the base, without adapters; None where everything was trained."""
        return self._share("base_caption") if self.rows and "base_caption" in self.rows[0] else None

    def _text(self) -> str:
        return self._table(with_images=False).text()

    def _html(self) -> str:
        return self._table(with_images=True).html()

    def _share(self, key: str) -> float:
        return sum(row[key] == row["wanted"] for row in self.rows) / max(1, len(self.rows))

    def _table(self, with_images: bool) -> Table:
        title = f"{self.name}: {self.share:.0%} of {len(self.rows)} captions are exact"
        title += "" if self.base_share is None else f", {self.base_share:.0%} without the adapter"
        shown = [[row["wanted"], row.get("base_caption", ""), row["caption"]] for row in self.rows[:SHOWN_CAPTIONS]]
        columns = ["its own caption", "before", "after"]
        notes = [f"the first {len(shown)}; {self.said}"]
        if not with_images:
            return Table(title, columns, shown, notes)
        pictures = [Picture(Path(row["image"]), row["wanted"]) for row in self.rows]
        rows = [[picture, *row] for picture, row in zip(pictures, shown, strict=False)]
        return Table(title, ["image", *columns], rows, notes)


class Rounding(Evidence):
    """Updates lost to rounding, by precision and learning rate."""

    name, id, said = "rounding", "rounding", "counted on the CPU with the small model of profile tiny"

    def __init__(self, counted: Sequence[dict[str, Any]]) -> None:
        self.counted = list(counted)

    def lost_share(self, precision: str, lr: float) -> float:
        """Share of the weights with a gradient that the optimizer steps left unchanged."""
        found = self._one(precision, lr)
        return sum(found["lost"]) / sum(found["updates"])

    def last_loss(self, precision: str, lr: float) -> float:
        """Loss of the last step."""
        return self._one(precision, lr)["losses"][-1]

    def _text(self) -> str:
        return self._table().text()

    def _html(self) -> str:
        return self._table().html()

    def _one(self, precision: str, lr: float) -> dict[str, Any]:
        return next(c for c in self.counted if c["precision"] == precision and c["lr"] == lr)

    def _table(self) -> Table:
        rows = [
            [
                c["precision"], f"{c['lr']:g}", str(len(c["losses"])),
                f"{self.lost_share(c['precision'], c['lr']):.1%}",
                *(f"{c['lost'][step] / c['updates'][step]:.1%}" for step in (0, -1)),
                f"{c['losses'][0]:.3f}", f"{c['losses'][-1]:.3f}",
            ]
            for c in self.counted
        ]  # fmt: skip
        columns = ["precision", "lr", "steps", "updates lost", "in the first", "in the last", "first loss", "last loss"]
        note = "lost: the weight has a gradient, and the optimizer step left it exactly as it was"
        return Table(f"Updates lost to rounding, {self.said}", columns, rows, [note])
