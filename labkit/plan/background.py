"""Background: predict the run of a folder in a process of its own, so that another one need not import torch.

    python -m labkit.plan.background RUN_FOLDER

Leaves the trace in the workspace's cache. Ends when its standard input does, so that it never outlives the run.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.config.parent import end_with_parent
from labkit.config.schema import RunConfig
from labkit.plan.cache import TraceCache
from labkit.plan.errors import PredictionError

EXIT_REFUSED = 3
"""Exit code when the last line printed says why there is no prediction."""


def main() -> None:
    """Read the folder's config and fill the cache, when nobody else needs the cores."""
    with contextlib.suppress(OSError):
        os.nice(10)
    end_with_parent()
    # open to the end: by it this process is known to be the run's
    with (Path(sys.argv[1]) / "config.json").open(encoding="utf-8") as file:
        config = json.load(file)["config"]
        import torch

        torch.set_num_threads(1)
        try:
            TraceCache.find().trace(RunConfig(**config))
        except (PredictionError, ConfigError) as error:
            print(error)
            sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main()
