"""Standard output and error that never end a command: closed, full, a closed pipe, or without the letters it needs."""

import contextlib
import errno
import os
import sys
from collections.abc import Generator
from typing import Any, TextIO


class Guarded:
    """A text stream that takes every text. What cannot be written is lost, and ``lost`` says why.

    Letters that its encoding does not have become ``?``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write it, or as much of it as the stream can show."""
        if self.lost is None:
            try:
                self._stream.write(self._shown(text))
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what is still in a buffer."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _shown(self, text: str) -> str:
        encoding = self._stream.encoding or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            return text.encode(encoding, "replace").decode(encoding)
        return text

    def _lose(self, error: OSError) -> None:
        self.lost = error
        # Python writes what is left in the buffer when it ends, and would say that it cannot
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def guarded_streams() -> Generator[Guarded]:
    """Guard ``sys.stdout`` and ``sys.stderr`` while this lasts; gives the first."""
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        streams = [stream or stack.enter_context(_nowhere()) for stream in before]  # Python has None for a closed one
        sys.stdout, sys.stderr = out, err = Guarded(streams[0]), Guarded(streams[1])
        try:
            yield out
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def complaint(out: Guarded) -> str | None:
    """Why what was printed did not arrive; None where it did, or its reader (such as ``head``) had seen enough."""
    if out.lost is None or out.lost.errno == errno.EPIPE:
        return None
    return f"standard output cannot be written: {out.lost.strerror or out.lost}"


def _fill_descriptors() -> None:
    """Open the null device for standard descriptors that are closed: the next file opened would become one of them, and
    what a child prints would go into it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free, which is this one


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - os.devnull is no path of ours
