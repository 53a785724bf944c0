"""Partition: which units of a model each rank of a pipeline gets."""

import functools
from collections.abc import Sequence

from labkit.families.family import Unit


def cut(sized: Sequence[tuple[Unit, int]], parts: int) -> list[list[Unit]]:
    """The units divided into as many consecutive groups, such that the largest has as few parameters as possible.

    Raises ``ValueError`` when there are fewer units than parts.
    """
    if parts > len(sized):
        raise ValueError(f"{len(sized)} units cannot be cut into {parts} parts")
    sizes = [size for _, size in sized]

    @functools.cache
    def best(start: int, left: int) -> tuple[int, tuple[int, ...]]:
        if left == 1:
            return sum(sizes[start:]), (len(sizes),)
        tried = []
        for end in range(start + 1, len(sizes) - left + 2):
            rest, ends = best(end, left - 1)
            tried.append((max(sum(sizes[start:end]), rest), (end, *ends)))
        return min(tried)

    ends = best(0, parts)[1]
    starts = (0, *ends[:-1])
    return [[unit for unit, _ in sized[a:b]] for a, b in zip(starts, ends, strict=True)]
