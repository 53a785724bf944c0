"""Parent: a process that another one has started and watches ends when its watcher does."""

import os
import signal
import threading


def end_with_parent() -> None:
    """From now on end when standard input does: the parent has closed it, or has ended.

    A process that leads a process group, as those that a watcher starts do, ends the whole group: loader workers, other
    ranks.
    """

    def watch() -> None:
        while os.read(0, 1):
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
