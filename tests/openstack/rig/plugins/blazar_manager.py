"""Blazar's manager, with shorter waits: tests wait less.

It looks every second for leases that are due, in place of every ten, and waits ten seconds for servers that do not go,
in place of ten minutes.
"""

import sys

import retrying

PATIENCE_MS, LOOK_EVERY_MS = 10_000, 500
_retry = retrying.retry
retrying.retry = lambda **asked: _retry(**asked | {"stop_max_delay": PATIENCE_MS, "wait_fixed": LOOK_EVERY_MS})

from blazar.cmd.manager import main  # noqa: E402 - it patches what the manager imports
from blazar.manager import service  # noqa: E402

service.EVENT_INTERVAL = 1
sys.exit(main())
