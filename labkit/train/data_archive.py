"""Data archive: bring a registered data set from its public address into the workspace, whole or not at all.

``HF_HUB_OFFLINE`` is about the Hugging Face hub, and these addresses are not on it: it is not looked at here.
"""

import errno
import fcntl
import gzip
import hashlib
import http.client
import os
import re
import shlex
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from labkit.config.datasets import DATASETS, DatasetEntry, unpacking
from labkit.config.errors import nearest
from labkit.memory.units import human_bytes
from labkit.train.data import check_folder
from labkit.train.errors import DataError

SPARE_BYTES = 10**9
"""Bytes that must stay free on the disk when a data set is fetched."""

MOST_BYTES = 50 * 10**9
MOST_FILES = 100_000
"""Largest archive, packed and unpacked; anything larger is not the data set. Both are assumed: far more than the
course's data."""

TRIES = 5
"""Times that one call asks for the archive; the next call resumes after what came."""
WAIT_S = 1.0
"""Before the second try, and twice as long before each further one."""
SILENCE_S = 60.0
"""How long a server may be silent."""

_CHUNK_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_TRY_AGAIN = (408, 425, 429)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class ArchivePlan:
    """What fetching a data set would do.

    ``size_bytes`` is the archive's, None where the server does not say. ``part`` is where it is written to, and
    ``have_bytes`` how much of it is there.
    """

    entry: DatasetEntry
    folder: Path
    part: Path
    size_bytes: int | None
    have_bytes: int
    free_bytes: int

    @property
    def download_bytes(self) -> int | None:
        """What is not here yet; None where the server does not say."""
        return None if self.size_bytes is None else self.size_bytes - self.have_bytes


def with_address() -> list[str]:
    """Names of the data sets that can be brought."""
    return [name for name, entry in DATASETS.items() if entry.address]


def samples_here(name: str, data_folder: Path) -> int | None:
    """How many samples a data set has that is here already; None when it is to be brought.

    Raises ``DataError`` for a name without an address, and for a folder that a run could not read.
    """
    folder = data_folder / _entry(name).folder
    try:
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return None
        if not folder.is_dir():
            raise DataError("it is not a folder")
        return check_folder(folder)
    except (DataError, OSError) as error:
        aside = f"mv {shlex.quote(str(folder))} {shlex.quote(f'{folder}.old')}"
        raise DataError(
            f"{folder} is in the way: {str(error).rstrip('.')}. '{aside}' puts it aside, then 'labkit fetch --data "
            f"{name}' brings the data set."
        ) from error


def plan(name: str, data_folder: Path) -> ArchivePlan:
    """Ask the server for the archive's size and first bytes, and the disk for its room; writes nothing.

    Raises ``DataError`` for a name without an address, for a server that is out of reach or refuses, and for an
    answer that is not a gzip archive.
    """
    entry = _entry(name)
    try:
        with _open(entry, "0-1") as answer:
            first = answer.read(2)
            size_bytes = _size_bytes(answer)
            version = f"{answer.headers.get('ETag') or answer.headers.get('Last-Modified')} {size_bytes}"
    except (OSError, http.client.HTTPException) as error:
        raise _data_error(entry, data_folder, error) from error
    if first != _GZIP:
        raise DataError(
            f"{name}: {entry.address} gives no gzip archive (it begins with {first!r}); it may have moved: open it in "
            "a browser, and ask who gives the course."
        )
    if size_bytes is not None and size_bytes > MOST_BYTES:
        raise DataError(
            f"{name}: {entry.address} gives {human_bytes(size_bytes)}, and more than {human_bytes(MOST_BYTES)} is not "
            "this data set; ask who gives the course."
        )
    # the rest of another version does not belong to this one's beginning
    part = data_folder / f"{entry.folder}.{hashlib.sha256(version.encode()).hexdigest()[:12]}.part"
    have_bytes = min(part.stat().st_size, size_bytes) if part.is_file() and size_bytes is not None else 0
    place = next(path for path in (data_folder, *data_folder.absolute().parents) if path.is_dir())
    return ArchivePlan(
        entry=entry, folder=data_folder / entry.folder, part=part, size_bytes=size_bytes, have_bytes=have_bytes,
        free_bytes=shutil.disk_usage(place).free,
    )  # fmt: skip


def check_room(planned: ArchivePlan) -> None:
    """Raise ``DataError`` if archive and unpacked data leave less than ``SPARE_BYTES`` of the disk free.

    The data is taken to be as large as its archive: photos do not shrink in gzip.
    """
    download_bytes = planned.download_bytes or 0
    unpacked_bytes = planned.size_bytes or 0
    if download_bytes + unpacked_bytes + SPARE_BYTES > planned.free_bytes:
        raise DataError(
            f"{planned.entry.name}: {human_bytes(download_bytes)} to download, {human_bytes(unpacked_bytes)} unpacked "
            f"(assumed) and {human_bytes(SPARE_BYTES)} to spare, but the disk of {planned.folder.parent} has "
            f"{human_bytes(planned.free_bytes)} free; make room, or set LABKIT_WORKSPACE to a workspace on a larger "
            "disk."
        )


def bring(planned: ArchivePlan) -> int:
    """Download what is missing, unpack and read it, and put it in its place by one rename; the number of samples.

    Interrupted, it leaves the part that came, and the next call resumes it where the server sends ranges. An
    archive that is damaged or something else is removed. Raises ``DataError``.
    """
    try:
        planned.part.parent.mkdir(parents=True, exist_ok=True)
        part = planned.part.open("ab")
    except OSError as error:
        raise _unwritten(planned, error) from error
    with part:
        _lock(planned, part)
        for other in planned.part.parent.glob(f"{planned.entry.folder}.*.part"):
            if other != planned.part:
                other.unlink(missing_ok=True)
        _download(planned, part)
        samples = _unpack(planned)
        planned.part.unlink(missing_ok=True)
    return samples


def _entry(name: str) -> DatasetEntry:
    entry = DATASETS.get(name)
    if entry is not None and entry.address:
        return entry
    if entry is not None:
        raise DataError(f"{name} ships with labkit; there is nothing to fetch.")
    known = with_address()
    raise DataError(f"labkit knows no address of a data set {name!r}; it has {', '.join(known)}.{nearest(name, known)}")


def _open(entry: DatasetEntry, span: str) -> http.client.HTTPResponse:
    """The server's answer to the question for a range of bytes; a web page is refused."""
    request = urllib.request.Request(entry.address, headers={"Range": f"bytes={span}", "User-Agent": "labkit"})
    answer = urllib.request.urlopen(request, timeout=SILENCE_S)
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        answer.close()
        raise DataError(
            f"{entry.name}: {entry.address} answers with a web page in place of the archive. It may ask for a login, "
            "or this network does: open it in a browser, and ask who gives the course."
        )
    return answer


def _size_bytes(answer: http.client.HTTPResponse) -> int | None:
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _lock(planned: ArchivePlan, part: BinaryIO) -> None:
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataError(f"{planned.entry.name}: another labkit writes {planned.part}; wait until it is done.") from None
    except OSError:
        pass  # a file system without locks


def _download(planned: ArchivePlan, part: BinaryIO) -> None:
    """Ask until all of the archive is in its part, with longer and longer waits."""
    for tried in range(1, TRIES + 1):
        try:
            return _receive(planned, part)
        except (OSError, http.client.HTTPException) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in _TRY_AGAIN
            if final or tried == TRIES:
                raise _data_error(planned.entry, planned.folder.parent, error) from error
        time.sleep(WAIT_S * 2 ** (tried - 1))
    return None


def _receive(planned: ArchivePlan, part: BinaryIO) -> None:
    """Write what one answer brings after what is there; ``OSError`` where it ends too early."""
    size_bytes = planned.size_bytes
    have_bytes = part.seek(0, os.SEEK_END)
    if size_bytes is None or have_bytes > size_bytes:
        have_bytes = part.truncate(0)
    elif have_bytes == size_bytes:
        return
    with _open(planned.entry, f"{have_bytes}-") as answer:
        resumes = answer.headers.get("Content-Range", "").startswith(f"bytes {have_bytes}-")
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT or not resumes:
            have_bytes = part.truncate(0)  # the server sends no ranges
        bar = tqdm(
            desc=planned.entry.name, total=size_bytes, initial=have_bytes, unit="B", unit_scale=True, disable=None,
            leave=False,
        )  # fmt: skip
        with bar:
            # what has arrived, and not a whole chunk: a connection that is cut loses nothing
            while chunk := answer.read1(_left_bytes(planned, have_bytes)):
                have_bytes += len(chunk)
                if have_bytes > MOST_BYTES:
                    raise _removed(planned, f"{planned.entry.address} gives more than {human_bytes(MOST_BYTES)}")
                try:
                    part.write(chunk)
                    part.flush()
                except OSError as error:
                    raise _unwritten(planned, error) from error
                bar.update(len(chunk))
    if size_bytes is not None and have_bytes < size_bytes:
        raise ConnectionError(f"it was cut after {human_bytes(have_bytes)} of {human_bytes(size_bytes)}")


def _left_bytes(planned: ArchivePlan, have_bytes: int) -> int:
    return _CHUNK_BYTES if planned.size_bytes is None else min(_CHUNK_BYTES, planned.size_bytes - have_bytes)


def _unpack(planned: ArchivePlan) -> int:
    """The number of samples of what now lies in ``planned.folder``."""
    address = planned.entry.address
    unpacked = planned.folder.with_name(f".{planned.folder.name}.unpacked")
    try:
        _remove(unpacked)  # of a call that was killed
        unpacked.mkdir()
        try:
            _extract(planned, unpacked)
            samples = check_folder(unpacked)
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            reason = f"what {address} gave is damaged or not safe to unpack ({error})"
            raise _removed(planned, reason) from error
        except DataError as error:
            reason = f"what {address} gave is not laid out as a run reads it"
            raise _removed(planned, f"{reason} ({str(error).replace(f' in {unpacked}', '').rstrip('.')})") from error
        unpacked.rename(planned.folder)
    except OSError as error:
        raise _unwritten(planned, error) from error
    finally:
        _remove(unpacked)
    return samples


def _extract(planned: ArchivePlan, unpacked: Path) -> None:
    """Unpack files and folders, without the one folder that they are all in, as ``tar --strip-components=1`` does.

    The tar's own end is not the archive's: reading on to that checks the checksum of all.
    """
    files = size_bytes = 0
    with gzip.open(planned.part) as packed:
        with tarfile.open(fileobj=packed, mode="r|") as tar:
            for member in tar:
                files += 1
                size_bytes += member.size
                if files > MOST_FILES or size_bytes > MOST_BYTES:
                    most = f"{MOST_FILES} files or {human_bytes(MOST_BYTES)}"
                    raise tarfile.TarError(f"it would unpack to more than {most}")
                if not (member.isreg() or member.isdir()):
                    raise tarfile.TarError(f"{member.name} is neither a file nor a folder")
                inside = "/".join(member.name.split("/")[1:])
                if not inside:
                    continue
                if shutil.disk_usage(unpacked).free < member.size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                tar.extract(member.replace(name=inside, deep=False), unpacked, filter="data")
        while chunk := packed.read(_CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > MOST_BYTES:
                raise tarfile.TarError("it has no end")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _removed(planned: ArchivePlan, reason: str) -> DataError:
    planned.part.unlink(missing_ok=True)
    name = planned.entry.name
    return DataError(
        f"{name}: {reason}; it was removed. Run 'labkit fetch --data {name}' to bring it again, and where that ends "
        "here too, ask who gives the course."
    )


def _unwritten(planned: ArchivePlan, error: OSError) -> DataError:
    """What an error of the disk means."""
    name, place = planned.entry.name, planned.folder.parent
    if error.errno in _FULL:
        return DataError(
            f"{name}: the disk of {place} is full; make room, then 'labkit fetch --data {name}' resumes "
            "after what came."
        )
    return DataError(f"{name} cannot be written in {place}: {error.strerror or error}; make that folder writable.")


def _data_error(entry: DatasetEntry, data_folder: Path, error: Exception) -> DataError:
    """What an error of the network means, in one line."""
    again = f"run 'labkit fetch --data {entry.name}' again, which resumes after what came"
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (404, 410):
            text = f"has no archive (HTTP {error.code}): it was moved or removed; ask who gives the course"
        elif error.code in (401, 403):
            text = f"refuses the archive (HTTP {error.code}); open it in a browser, and ask who gives the course"
        else:
            text = f"answers HTTP {error.code}; later {again}"
    else:
        said = getattr(error, "reason", error)
        text = (
            f"is out of reach ({str(said) or type(said).__name__}); check the network, then {again}. Or download it "
            f"on a machine that reaches it, copy it to {data_folder / entry.folder}.tar.gz here, and type: "
            f"{unpacking(entry, data_folder)}"
        )
        return DataError(f"{entry.name}: {entry.address} {text}")
    return DataError(f"{entry.name}: {entry.address} {text}.")
