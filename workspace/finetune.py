"""Run one experiment file, with values of your own after it.

    python workspace/finetune.py configs/reduced_batch.yaml batch_size=8

The same as ``labkit run``, and the same options: ``--profile``, ``--show-config``, ``--json``.
"""

import os
import sys
from pathlib import Path

from labkit.cli import main

if __name__ == "__main__":
    os.environ.setdefault("LABKIT_WORKSPACE", str(Path(__file__).parent.absolute()))
    sys.exit(main(["run", *sys.argv[1:]]))
