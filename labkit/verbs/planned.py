"""A run to be planned; one that cannot be planned is refused before anything else is checked."""

from collections.abc import Mapping

from labkit.config.errors import ConfigError
from labkit.config.layers import Resolved, load_experiment, resolve
from labkit.config.workspace import Workspace
from labkit.plan.unplanned import unplanned_strategy


def resolve_planned(workspace: Workspace, name: str, overrides: Mapping[str, str], gpu: str) -> Resolved:
    """What ``resolve`` gives. Raises ``ConfigError``, first for a strategy that cannot be planned: otherwise a user
    would correct key after key and learn this last."""
    values = load_experiment(workspace, name).values | dict(overrides)
    strategy, counts = str(values.get("strategy", "auto")), []
    for key in ("devices", "num_nodes"):
        count = str(values.get(key, 1))
        counts.append(int(count) if count.isdecimal() else 1)  # what is not a number resolve refuses
    if (why := unplanned_strategy(strategy, counts[0], counts[0] * counts[1])) is not None:
        raise ConfigError(f"{name}: {why}")
    return resolve(workspace, name, dict(overrides), gpu)
