"""Kernel: ``python -m ipykernel_launcher``, forked from the tests' shared server, so that it imports no library again.

Jupyter starts and signals this process, and the kernel ends with it. Without a shared server for its environment it
becomes the kernel.
"""

import json
import os
import signal
import sys
from pathlib import Path

from labkit.config.parent import end_with_parent
from labkit.runs.fork_server import environment, has_shared, start

NEEDED = ("ipykernel.kernelapp", "ipywidgets", "matplotlib.pyplot", "matplotlib_inline.backend_inline")
"""What the notebooks import beside what runs do."""


def specify(folder: Path) -> None:
    """Make this the kernel ``python3`` for what looks for kernels in ``folder``, as ``JUPYTER_PATH`` says."""
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    values = {"argv": [sys.executable, __file__, "-f", "{connection_file}"], "display_name": "x", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(values))


def launch(arguments: list[str]) -> int:
    """Have the kernel forked, pass on what Jupyter signals, and end as it does."""
    if not has_shared(environment()):
        os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])
    heard = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    kernel = start("tests.support.kernel", arguments, environment(), 1, imports=NEEDED)
    for number in heard:
        signal.signal(number, lambda number, _: kernel.send_signal(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
    return kernel.wait()


def main() -> None:
    """Be the kernel, in the forked process."""
    import matplotlib as mpl
    from ipykernel.kernelapp import main as run

    mpl.use("module://matplotlib_inline.backend_inline")  # read from MPLBACKEND in an import, which is over
    end_with_parent()
    run()


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
