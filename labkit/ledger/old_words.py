"""Old words: what older versions of labkit wrote in a record, in the words of today."""

from typing import Any

from labkit.config.device import source_today
from labkit.config.schema import value_today

_KEYS = {"rung": "fallback"}
_KINDS = {"virtual_gpu_full": "simulated_gpu_full"}


def record_today(data: Any) -> Any:
    """``data`` with today's names of keys and values. What has not the form of a record stays as it is."""
    if not isinstance(data, dict):
        return data
    now = {_KEYS.get(key, key): value for key, value in data.items()}
    for key in ("config", "overrides"):
        if isinstance(now.get(key), dict):
            now[key] = {name: value_today(name, value) for name, value in now[key].items()}
    if isinstance(found := now.get("diagnosis"), dict) and isinstance(kind := found.get("kind"), str):
        now["diagnosis"] = found | {"kind": _KINDS.get(kind, kind)}
    if isinstance(now.get("ranks"), list):
        now["ranks"] = [_measured(rank) if isinstance(rank, dict) else rank for rank in now["ranks"]]
    return _measured(now)


def _measured(one: dict[str, Any]) -> dict[str, Any]:
    """A record, or what it has of one rank, with today's name of the device and of the report's source."""
    now = dict(one)
    if isinstance(device := one.get("device"), str):
        now["device"] = source_today(device)
    if isinstance(memory := one.get("memory"), dict) and isinstance(source := memory.get("source"), str):
        now["memory"] = memory | {"source": source_today(source)}
    return now
