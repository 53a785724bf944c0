"""Read a YAML mapping, with errors that name the file."""

from pathlib import Path
from typing import Any

import yaml

from labkit.config.errors import ConfigError
from labkit.config.regular_file import read_regular

LONGEST_BYTES = 2**20
"""What a file may have; the largest of the course has 5 KB."""


class _Loader(yaml.SafeLoader):
    """A YAML reader without features that a mapping of values does not need, by which a value could hide another or
    grow."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem=f"alias *{event.anchor}; write the value", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        number = super().construct_yaml_int(node)
        if number.bit_length() > 2**13:  # of 0xfff..., which Python does not print
            raise yaml.MarkedYAMLError(problem="a number too large", problem_mark=node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in ``path``; ``ConfigError`` when it is missing, too long, not YAML or not a mapping.

    A key that is there twice is an error, as are aliases, which the files of a workspace have no use for.
    """
    try:
        text = read_regular(path, LONGEST_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"{error}; an experiment or a profile has a few KiB of 'key: value' lines.") from None
    try:
        data = yaml.load(text.decode("utf-8"), _Loader)  # a SafeLoader
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file.") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply; it must hold 'key: value' lines.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that is none
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{path}{where} is not YAML: {problem}.") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"{path} must hold 'key: value' lines.")
    return data
