"""Wait: until something has happened, and not for ever."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found], wait_s: float = 120.0, said: Callable[[], object] = str) -> Found:
    """What ``condition`` gives, as soon as that is true; it is asked often. After ``wait_s`` the test fails with what
    ``said`` gives."""
    deadline = time.monotonic() + wait_s
    while not (found := condition()):
        assert time.monotonic() < deadline, said() or "it did not happen in time"
        time.sleep(0.05)
    return found
