"""``labkit collect``."""

import argparse
import json
from pathlib import Path

from labkit.config.errors import ConfigError
from labkit.ledger.terminal import say
from labkit.memory.units import counted

HELP = """\
Pack a student's work on another machine and bring it home through ssh. It is what 'labkit submit' gives there, checked
whole before it gets its name.

  labkit collect 203.0.113.7 --name abc123 --user cc --container labkit
  labkit collect node --name abc123 --labkit labkit/.venv/bin/labkit       'node' of your ~/.ssh/config
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this verb."""
    parser.add_argument("host", help="address, or name in your ssh configuration")
    parser.add_argument("--name", help="whose work it is: a name or netID")
    parser.add_argument("--user", help="user there")
    parser.add_argument("--port", type=int, help="port of its ssh")
    parser.add_argument("--key", metavar="FILE", help="private key that it takes")
    parser.add_argument("--container", metavar="NAME", help="Docker container that the lab runs in")
    parser.add_argument(
        "--labkit", metavar="COMMAND", default="labkit", help="the command there (default: %(default)s)"
    )
    parser.add_argument("--output", metavar="FILE", help="where to write the archive (default: here)")


def main(args: argparse.Namespace) -> int:
    """Bring the archive home and say where it is."""
    from labkit.grading.collect import Host, collect

    if not args.name:
        raise ConfigError("whose work is it? Say it with --name, such as 'labkit collect node --name abc123'.")
    for option, value in (("HOST", args.host), ("--user", args.user)):
        if value is not None and (not value.strip() or value.startswith("-")):
            raise ConfigError(f"{option}={value!r} is none that ssh could reach.")
    if args.port is not None and not 0 < args.port < 2**16:
        raise ConfigError(f"--port={args.port} is not a port: 1 to 65535.")
    if args.key is not None and not Path(args.key).is_file():
        raise ConfigError(f"--key={args.key} is not a file.")
    host = Host(
        name=args.host, user=args.user, port=args.port, key=Path(args.key) if args.key else None,
        container=args.container, labkit=args.labkit,
    )  # fmt: skip
    path, found = collect(host, args.name, Path(args.output) if args.output else None)
    runs = {name.rpartition("/")[0] for name in found.sha256 if name.startswith("runs/")}
    if args.json:
        facts = {"path": str(path), "runs": len(runs), "members": len(found.sha256), "left_out": found.left_out}
        print(json.dumps(facts, indent=1))
        return 0
    held = f"{counted(len(runs), 'run')}, {counted(len(found.notebooks), 'notebook')}"
    say(f"{path}: {held}, {path.stat().st_size / 2**20:.2f} MiB")
    return 0
