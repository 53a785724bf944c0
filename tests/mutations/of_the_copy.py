"""A plugin of pytest: what the tests import is the copy that a guard was taken from, and nothing that is installed."""

import os
import sys
from pathlib import Path


def pytest_sessionfinish() -> None:
    copy = Path(os.environ["LABKIT_COPY"])
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("labkit", "provisioning") and getattr(module, "__file__", None):
            assert Path(module.__file__).is_relative_to(copy), f"{name} is imported from {module.__file__}"
