"""Curve: the losses of a run of any length, in limited memory."""

from typing import Any

BUCKETS = 1024
"""More than the panel has pixels for."""


class Curve:
    """Losses by step, thinned: neighbours share a bucket, of which the lowest and the highest are kept.

    So a spike stays whatever the length. A bucket has one loss at first; when all are taken, each two become one.
    ``last`` is None where the last loss was not a number, or there is none.
    """

    def __init__(self) -> None:
        self.width, self.count, self.lost = 1, 0, 0
        self.first: float | None = None
        self.last: float | None = None
        self._buckets: list[tuple[float, float, float, int] | None] = []
        """Lowest, highest, sum and number; None where none was a number."""

    def add(self, losses: list[float | None]) -> None:
        """Add the losses of the next steps."""
        for loss in losses:
            at = self.count // self.width
            if at == BUCKETS:
                self._halve()
                at = self.count // self.width
            if at == len(self._buckets):
                self._buckets.append(None)
            self.count += 1
            self.last = loss
            if loss is None:
                self.lost += 1
                continue
            if self.first is None:
                self.first = loss
            number = float(loss)  # a sum of whole numbers may become one that no float is
            self._buckets[at] = _joined(self._buckets[at], (number, number, number, 1))

    def cut(self, step: int) -> None:
        """Forget the losses from ``step`` on, which are trained again; those that share its bucket stay."""
        if step < self.count:
            self.count = max(0, step)
            del self._buckets[-(-self.count // self.width) :]
            self.lost = sum(bucket is None for bucket in self._buckets) if self.width == 1 else self.lost
            kept = self._buckets[-1] if self._buckets else None
            self.last = kept[2] / kept[3] if kept else None
            self.first = self.first if self._buckets else None

    def to_dict(self) -> dict[str, Any]:
        """What the page draws: ``low, high, mean`` of each bucket of ``width`` steps, None for a gap."""
        kept = self._buckets
        return {
            "width": self.width, "count": self.count, "lost": self.lost, "first": self.first, "last": self.last,
            "low": [bucket and _short(bucket[0]) for bucket in kept],
            "high": [bucket and _short(bucket[1]) for bucket in kept],
            "mean": [bucket and _short(bucket[2] / bucket[3]) for bucket in kept],
        }  # fmt: skip

    def _halve(self) -> None:
        pairs = zip(self._buckets[::2], self._buckets[1::2], strict=True)
        self._buckets = [_joined(one, other) for one, other in pairs]
        self.width *= 2


def _joined(
    one: tuple[float, float, float, int] | None, other: tuple[float, float, float, int] | None
) -> tuple[float, float, float, int] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1]), one[2] + other[2], one[3] + other[3]


def _short(loss: float) -> float:
    return float(f"{loss:.6g}")
