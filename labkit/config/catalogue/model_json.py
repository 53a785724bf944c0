"""Model JSON: the ``config.json`` of a model's folder, read with limits, since a student may be given any folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.config.errors import ConfigError
from labkit.config.regular_file import read_regular

LONGEST_BYTES = 16 * 2**20
"""What a config.json may have; those with the names of 21,000 classes have about one MiB."""

_MOST_LAYERS, _MOST = 1000, 2**24
"""More than any model has, and few enough to be planned: layers are built one by one."""

_COUNTED = {"num_labels": 2**16, "extra_ids": 2**16}
"""Keys with which transformers makes a list of names, in a model's config or its tokenizer's."""

_MORE_KEYS = ("qkv_bias", "do_layer_norm_before", "activation_function", "enable_bias", "feed_forward_proj")
"""Keys that change what is built and have no number; taken when they are there."""

_RATES = ("dropout", "attention_dropout", "dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob")
"""Keys of dropout, by the names of all parts. A mask is memory, so a rate of 0 counts."""


def read_model_json(name: str, needed: str) -> Any:
    """What the ``config.json`` in the folder ``name`` holds. ``needed`` ends the message of ``ConfigError``."""
    where = f"model_name={name!r}"
    try:
        data = json.loads(read_regular(Path(name) / "config.json", LONGEST_BYTES))
    except FileNotFoundError:
        raise ConfigError(f"{where} is a folder without a config.json; {needed}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: its config.json cannot be read ({error}); {needed}.") from None
    if (odd := odd_count(data)) is not None:
        raise ConfigError(f"{where}: its config.json has {odd}.")
    return data


def odd_count(data: Any) -> str | None:
    """What is wrong with a number in a model's JSON, however deep, of which as many things are made when it is read."""
    pending = [data]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        for key, value in part.items() if isinstance(part, dict) else ():
            most = _MOST_LAYERS if key.endswith("layers") else _COUNTED.get(key)
            if most is not None and isinstance(value, int | float) and not (type(value) is int and value <= most):
                return f"{key}={value!r:.50}; it may be a whole number up to {most:,}"
            pending.append(value)
    return None


def numbers(where: str, part: str, data: dict[str, Any], defaults: Mapping[str, int | None]) -> dict[str, Any]:
    """The values of one part's keys: sizes, with the ``defaults`` of transformers, rates of dropout, what else counts.

    A default of None stands for the value of the key before it. Raises ``ConfigError`` for a size that no model has.
    """
    found: dict[str, Any] = {}
    for key, default in defaults.items():
        value = data.get(key)
        if value is None:
            value = next(reversed(found.values())) if default is None else default
        if isinstance(value, list) and value and len(set(map(str, value))) == 1:
            value = value[0]  # height and width
        most = _MOST_LAYERS if key.endswith("layers") else _MOST
        if type(value) is not int or not 1 <= value <= most:
            raise ConfigError(
                f"{where}: its config.json has {part}.{key}={value!r:.50}; a whole number from 1 to {most:,} is needed."
            )
        found[key] = value
    rates = {key: data[key] for key in _RATES if data.get(key) is not None}
    for key, rate in rates.items():
        if type(rate) not in (int, float) or not 0 <= rate < 1:
            raise ConfigError(
                f"{where}: its config.json has {part}.{key}={rate!r:.50}; a number from 0 to below 1 is needed."
            )
    return found | rates | {key: data[key] for key in _MORE_KEYS if data.get(key) is not None}
