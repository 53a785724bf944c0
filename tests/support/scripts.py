"""Scripts that lie in no package, as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType


def loaded(script: Path) -> ModuleType:
    """A fresh module of a script, which is executed but is not ``__main__``."""
    spec = importlib.util.spec_from_file_location(f"{script.stem}_of_{script.parent.name}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
