"""Log files of any size, read to the end in bounded memory: lines that may explain the end are kept, the rest is
counted."""

import codecs
import io
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from labkit.config.regular_file import open_regular

WHOLE_BYTES = 2**17
"""A log up to this size is kept as it is."""

HEAD_CHARACTERS, TAIL_CHARACTERS = 2**16, 3 * 2**16
"""How much is kept of a larger one: of its first lines that tell something, and of its last."""

BEFORE, AFTER, LAST = 60, 12, 40
"""Lines kept before and after one that tells something, and at the end in any case."""

REPEATED, RECENT = 3, 16
"""How many lines are kept that differ in numbers only, and among how many others of late."""

_PIECE, _OVERLAP = 2**14, 512
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_TELLING = re.compile(
    r"err(?:or|no)|except|traceback|fatal|fail|kill|abort|cancel|memory|nan\b|limit|denied|refused|time.?out|signal"
    r"|exit|undefined|quota|space left|assert|not found|no such|invalid|unable|cannot|can't|could ?n.t|warn|xid"
    r"|interrupt|preempt|evict|unexpected|mismatch|terminat|stale|corrupt|overflow|out of|unsupported|slurm|retry",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"\d+")


def read_log(path: Path, start: int = 0) -> str:
    """A log from the byte ``start`` on: all of it, or of a large one what may tell of an end.

    Lines that say what was left out stand in their place. Empty without a file. Raises ``OSError`` for one that cannot
    be read, and ``ValueError`` with the name for what is not a regular file.
    """
    try:
        with open_regular(path) as file:
            first = file.read(4)
            encoding = next((name for bom, name in _BOMS if first.startswith(bom)), "utf-8")
            if file.seek(0, 2) - start <= WHOLE_BYTES:
                file.seek(start)
                return file.read().decode(encoding, errors="replace")
    except FileNotFoundError:
        return ""
    return _condensed(_pieces(path, encoding, start))


def _condensed(lines: Iterator[str]) -> str:
    head, tail = _Kept(HEAD_CHARACTERS), _Kept(TAIL_CHARACTERS)
    before: deque[str] = deque(maxlen=BEFORE)
    repeats = _Repeats()
    left_out, after = 0, 0
    for line in lines:
        telling = _TELLING.search(line) is not None
        if telling and repeats.is_one(line):
            left_out += 1
        elif telling or after:
            after = AFTER if telling else after - 1
            gap = [f"[... {left_out:,} lines left out ...]\n"] if left_out else []
            (tail if head.full else head).add([*gap, *before, line])
            before.clear()
            left_out = 0
        else:
            left_out += len(before) == BEFORE
            before.append(line)
    last = [*repeats.last, *list(before)[-LAST:]]
    tail.add([f"[... {left_out:,} lines left out ...]\n"] * bool(left_out) + last)
    return "".join([*head.lines, *(["[... more left out ...]\n"] if tail.dropped else []), *tail.lines])


class _Kept:
    """Lines up to a number of characters: ``full`` says when the first are there; ``add`` pushes the oldest out."""

    def __init__(self, most: int) -> None:
        self.lines: deque[str] = deque()
        self.dropped = False
        self._most, self._size = most, 0

    @property
    def full(self) -> bool:
        return self._size >= self._most // 2

    def add(self, lines: list[str]) -> None:
        self.lines.extend(lines)
        self._size += sum(map(len, lines))
        while self._size > self._most and len(self.lines) > 1:
            self._size -= len(self.lines.popleft())
            self.dropped = True


class _Repeats:
    """Lines that tell the same over and over, one for each thread or each rank."""

    def __init__(self) -> None:
        self.last: list[str] = []
        self._seen: dict[str, int] = {}

    def is_one(self, line: str) -> bool:
        """Whether the line says what ``REPEATED`` lines of late have said; the newest of them is kept as ``last``."""
        says = _NUMBERS.sub("", line)
        count = self._seen.pop(says, 0) + 1
        self._seen[says] = count
        if len(self._seen) > RECENT:
            del self._seen[next(iter(self._seen))]
        self.last = [line] if count > REPEATED else []
        return count > REPEATED


def _pieces(path: Path, encoding: str, start: int) -> Iterator[str]:
    """Lines, those of a progress bar too; of a line without an end pieces that overlap."""
    with open_regular(path) as raw:
        raw.seek(start)
        file = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
        before = ""
        while piece := file.readline(_PIECE):
            yield before + piece
            before = "" if piece.endswith("\n") else piece[-_OVERLAP:]
