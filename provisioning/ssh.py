"""Run the scripts of ``remote/`` on a node, through the ssh program that everybody has."""

import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from provisioning.errors import DiskFullError, RemoteError, SshError, UsageError

REMOTE = Path(__file__).parent / "remote"
CONNECT_S = 10
SSH_FAILED = 255
PROBLEM = "problem: "
"""How a script starts the line that says, for a person, why it failed."""
NO_ROOM = "no room: "
"""How the problem of a script begins that found too little room before it began."""
SAY_EVERY_S = 30.0


@dataclass(frozen=True)
class Ssh:
    """The way into one node."""

    address: str
    user: str
    port: int
    key: Path
    known_hosts: Path
    alias: str
    """The server's id: host keys are kept by it, since the next server has the same address and another host key."""

    @property
    def options(self) -> list[str]:
        """Options of the ssh program; nothing of the user's own configuration."""
        wanted = {
            "BatchMode": "yes", "IdentitiesOnly": "yes", "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": shlex.quote(str(self.known_hosts)), "HostKeyAlias": self.alias,
            "ConnectTimeout": str(CONNECT_S), "ServerAliveInterval": "15", "LogLevel": "ERROR",
        }  # fmt: skip
        pairs = [item for key, value in wanted.items() for item in ("-o", f"{key}={value}")]
        return ["-F", "none", "-i", str(self.key), "-p", str(self.port), *pairs]

    @property
    def target(self) -> str:
        """``cc@203.0.113.7``."""
        return f"{self.user}@{self.address}"

    def login(self, *options: str, key: bool = True) -> str:
        """The command line for a person: with the key of this machine, or with the one that the person has.

        The host's key is known by the server's id: the next server has the same address and another host key.
        """
        known = ["-i", str(self.key), "-o", f"UserKnownHostsFile={shlex.quote(str(self.known_hosts))}"] if key else []
        alias = ["-o", f"HostKeyAlias={self.alias}"]
        return shlex.join(["ssh", *options, *known, *alias, "-p", str(self.port), self.target])

    def command(self, script: str, *arguments: str) -> list[str]:
        """The command line that runs ``remote/<script>.sh``, or ``.py``, there; its standard input stays free."""
        python = REMOTE / f"{script}.py"
        if python.exists():
            text = python.read_text(encoding="utf-8")
            # -I: a module of the student's in the home folder is not imported in place of Python's own
            there = shlex.join(["python3", "-I", "-X", "utf8", "-c", text, *arguments])
        else:
            text = (REMOTE / f"{script}.sh").read_text(encoding="utf-8")
            there = shlex.join(["bash", "-c", text, script, *arguments])
        return ["ssh", *self.options, self.target, there]

    def run(
        self, script: str, *arguments: str, bound_s: float = 60.0, data: BinaryIO | None = None,
        to: BinaryIO | None = None, say: Callable[[str], None] | None = None, log: Path | None = None,
    ) -> str:  # fmt: skip
        """Run a script and return what it printed, or write that to ``to``; its messages go to ``log``.

        Raises ``SshError`` when the node cannot be reached, ``DiskFullError``, or ``RemoteError`` with what the
        script said.
        """
        argv = self.command(script, *arguments)
        try:
            child = subprocess.Popen(
                argv, stdin=data or subprocess.DEVNULL, stdout=to or subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError:
            raise UsageError("ssh is not on this machine. Install an OpenSSH client.") from None
        lines: list[str] = []
        reader = threading.Thread(target=_follow, args=(child, lines, script, say), daemon=True)
        reader.start()
        alarm = threading.Timer(bound_s, child.kill)
        alarm.start()
        try:
            printed = child.stdout.read().decode(errors="replace") if child.stdout else ""
            code = child.wait()
        finally:
            expired = not alarm.is_alive()
            alarm.cancel()
            child.kill()
            child.wait()
            reader.join()
            if child.stdout:
                child.stdout.close()
            child.stderr.close()
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if code:
            raise self._failure(script, code, lines, expired, bound_s, log)
        return printed

    def wait(
        self, bound_s: float, poll_s: float, say: Callable[[str], None], check: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until the node lets us in; ``check`` raises when there is no more to wait for."""
        started, said = time.monotonic(), float("-inf")
        while True:
            try:
                self.run("hello", bound_s=CONNECT_S * 2)
            except SshError:
                check()
                took = time.monotonic() - started
                if took > bound_s:
                    raise
                if took - said >= SAY_EVERY_S:
                    say(f"ssh {self.address}: not yet, {took:.0f} s of at most {bound_s:.0f} s")
                    said = took
                time.sleep(poll_s)
            else:
                return

    def _failure(
        self, script: str, code: int, lines: list[str], expired: bool, bound_s: float, log: Path | None
    ) -> Exception:
        text = "\n".join(lines)
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        if expired:
            return RemoteError(f"{script} on {self.address} was stopped after {bound_s:.0f} s. Run this step again.")
        if code == SSH_FAILED:
            if "Permission denied" in text:
                return SshError(
                    f"ssh {self.target}: the key {self.key} is refused. The server was made with another key: use the "
                    "machine that made it, or tear it down and make it again."
                )
            return SshError(
                f"ssh {self.target} port {self.port}: no answer ({last}). Wait for the boot, check the security "
                "group for port 22, then run this step again."
            )
        where = f" Log: {log}." if log else ""
        if "No space left on device" in text or "no space left on device" in text:
            return DiskFullError(
                f"{script} on {self.address}: a disk is full. Free some ('docker system prune' there).{where}"
            )
        said = [line.removeprefix(PROBLEM) for line in lines if line.startswith(PROBLEM)]
        if said and said[-1].startswith(NO_ROOM):
            return DiskFullError(f"{script} on {self.address}: {said[-1]}.{where}")
        return RemoteError(
            f"{script} on {self.address} failed: {said[-1] if said else last} (exit code {code}).{where}"
        )


def _follow(child: subprocess.Popen, lines: list[str], script: str, say: Callable[[str], None] | None) -> None:
    """Keep the messages of a script; say the last one now and then."""
    said = time.monotonic()
    for raw in child.stderr:
        line = raw.decode(errors="replace").rstrip()
        lines.append(line)
        if say is not None and line and time.monotonic() - said >= SAY_EVERY_S:
            say(f"{script}: {line[:120]}")
            said = time.monotonic()
