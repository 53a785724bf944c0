"""``python -m provisioning``."""

import os
import sys

from provisioning.cli import main

try:
    code = main()
    sys.stdout.flush()
except BrokenPipeError:  # the reader has read enough, as `head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 1
sys.exit(code)
