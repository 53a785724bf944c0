"""Collect: a student's submission, packed on another machine and brought home through ssh."""

import contextlib
import os
import shlex
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from labkit.grading.archive import LARGEST_BYTES, MIB, ArchiveError, Submission, read_archive, read_name
from labkit.grading.submit import file_name, free_path

CONNECT_S = 10
BOUND_S = 1800.0
"""What packing and bringing home may take."""
SSH_FAILED, NOT_FOUND = 255, 127


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where the work lies. What is None is as the user's own ssh configuration has it.

    ``container`` is the Docker container that the lab runs in, ``labkit`` the command there.
    """

    name: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    container: str | None = None
    labkit: str = "labkit"

    def command(self, student: str) -> list[str]:
        """The command line that packs there and writes the archive to its standard output. It asks no question."""
        there = [self.labkit, "submit", "--name", student, "--output", "-"]
        if self.container is not None:
            there = ["docker", "exec", self.container, *there]
        options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-o", "ServerAliveInterval=15"]
        options += ["-o", "LogLevel=ERROR", *(["-p", str(self.port)] if self.port is not None else [])]
        options += ["-i", str(self.key), "-o", "IdentitiesOnly=yes"] if self.key is not None else []
        target = self.name if self.user is None else f"{self.user}@{self.name}"
        return ["ssh", *options, "--", target, shlex.join(there)]


def collect(host: Host, student: str, to: Path | None = None) -> tuple[Path, Submission]:
    """Bring the submission of ``student`` home: where it lies, and what is in it.

    It gets its name when it has been read whole; until then, and after a failure, there is nothing. Without ``to`` it
    comes into the current folder. Raises ``ArchiveError`` with what went wrong and what to do.
    """
    student = read_name(student)
    path = free_path(to or Path(file_name(student)))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            _bring(host, student, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            found = read_archive(partial)
        except ArchiveError as error:
            raise ArchiveError(
                f"what came from {host.name} is not a whole submission: {error}. Collect again; a login shell that "
                "prints something there spoils it."
            ) from None
        if found.name != student:
            raise ArchiveError(f"{host.name} sent the work of {found.name!r} and not of {student!r}.")
        partial.rename(path)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be written: {error.strerror}. Choose another place with --output.") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return path, found


def _bring(host: Host, student: str, file: BinaryIO) -> None:
    with tempfile.TemporaryFile() as said:
        try:
            child = subprocess.Popen(
                host.command(student), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            )
        except FileNotFoundError:
            raise ArchiveError("ssh is not on this machine. Install an OpenSSH client.") from None
        alarm = threading.Timer(BOUND_S, child.kill)
        alarm.start()
        try:
            if child.stdout is not None:
                _copy(host, child.stdout, file)
            code = child.wait()
        finally:
            expired = not alarm.is_alive()
            alarm.cancel()
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        if expired:
            raise ArchiveError(f"{host.name} was not done after {BOUND_S:.0f} s. Collect again.")
        if code:
            said.seek(0)
            raise ArchiveError(_failure(host, code, said.read(2**16).decode("utf-8", "replace")))


def _copy(host: Host, stream: IO[bytes], file: BinaryIO) -> None:
    total = 0
    while part := stream.read(2**16):
        total += len(part)
        if total > LARGEST_BYTES:
            raise ArchiveError(
                f"{host.name} sends more than the {LARGEST_BYTES // MIB} MiB that a submission may have."
            )
        file.write(part)


def _failure(host: Host, code: int, said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = (lines[-1] if lines else "it said nothing").removeprefix("error: ")
    if code == SSH_FAILED:
        if "Permission denied" in said:
            return f"ssh {host.name}: the key is refused. Name another with --key, or another --user."
        if "Host key verification failed" in said:
            return f"ssh {host.name}: its host key is not known here. Type 'ssh {host.name}' once and compare it."
        return f"ssh {host.name}: no answer ({last}). Is it up, and is this its --port?"
    if "No such container" in said or "is not running" in said:
        return f"{host.name} runs no container {host.container!r}; 'docker ps' there lists them."
    if code == NOT_FOUND or "executable file not found" in said:
        what = "docker" if host.container is not None and "docker" in last else host.labkit
        return f"{host.name} has no {what} ({last}). Name the container with --container, or the command with --labkit."
    if "No space left on device" in said:
        return f"a disk of {host.name} is full. Make room there and collect again."
    return f"packing on {host.name} failed with exit code {code}: {last}"
