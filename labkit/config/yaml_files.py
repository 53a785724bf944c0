"""Read a YAML mapping, with errors that name the file."""

from pathlib import Path
from typing import Any

import yaml

from labkit.config.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in ``path``; ``ConfigError`` when it is missing, not YAML or not a mapping."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that is none
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{path}{where} is not YAML: {problem}.") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{path} must hold 'key: value' lines.")
    return data
