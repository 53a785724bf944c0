"""Fetch: bring a checkpoint from the Hugging Face hub into the shared cache, after a look at sizes and disk."""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from labkit.config.catalogue.models import is_tiny
from labkit.memory.units import human_bytes
from labkit.train.errors import CheckpointError

SPARE_BYTES = 10**9
"""Bytes that must stay free on the disk after a download."""

_WHOLE = "model.safetensors"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SIDE_FILE = re.compile(r"[^/]+\.(json|txt|model|jinja)")
_OTHER_FORMAT = re.compile(r".*\.(bin|h5|msgpack)\.index\.json")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on the hub; ``sha256`` only where the hub has one, which it does for weights."""

    name: str
    size_bytes: int
    blob: str
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class FetchPlan:
    """What a fetch would do: ``files`` is all that the checkpoint needs, ``download_bytes`` what is not here yet."""

    model: str
    commit: str
    files: tuple[RemoteFile, ...]
    cache: Path
    download_bytes: int
    free_bytes: int


def plan(model_name: str) -> FetchPlan:
    """Ask the hub what a model's checkpoint consists of, and the disk for its room; downloads nothing.

    Raises ``CheckpointError`` for a model that the hub does not give out, for a hub that is out of reach or switched
    off, and for a repository without safetensors.
    """
    if is_tiny(model_name) or os.path.isdir(model_name):  # noqa: PTH112 - see is_folder in the catalogue
        raise CheckpointError(f"{model_name} is not on the hub; there is nothing to fetch.")
    cache = Path(constants.HF_HUB_CACHE)
    try:
        info = HfApi().model_info(model_name, revision=constants.DEFAULT_REVISION, files_metadata=True)
    except (OSError, HTTPError, HFValidationError) as error:
        raise _fetch_error(model_name, error) from error
    remote = {
        s.rfilename: RemoteFile(
            name=s.rfilename, size_bytes=s.size or 0, blob=s.lfs.sha256 if s.lfs else s.blob_id or "",
            sha256=s.lfs.sha256 if s.lfs else None,
        )
        for s in info.siblings or []
    }  # fmt: skip
    files = tuple(remote[name] for name in _needed(model_name, list(remote)))
    missing = sum(file.size_bytes for file in files if not _is_here(model_name, info.sha, file))
    free = shutil.disk_usage(next(p for p in (cache, *cache.absolute().parents) if p.is_dir())).free
    return FetchPlan(
        model=model_name, commit=info.sha, files=files, cache=cache, download_bytes=missing, free_bytes=free
    )


def check_room(plans: Sequence[FetchPlan]) -> None:
    """Raise ``CheckpointError`` if all of them together leave less than ``SPARE_BYTES`` of the disk free."""
    missing = sum(planned.download_bytes for planned in plans)
    if missing and missing + SPARE_BYTES > plans[0].free_bytes:
        names = ", ".join(planned.model for planned in plans if planned.download_bytes)
        raise CheckpointError(
            f"{names}: {human_bytes(missing)} to download and {human_bytes(SPARE_BYTES)} to spare, but the disk of "
            f"{plans[0].cache} has {human_bytes(plans[0].free_bytes)} free; make room, or set HF_HOME to a folder on a "
            "larger disk."
        )


def download(planned: FetchPlan) -> Path:
    """Bring what is missing, check all weights against the hub's checksums; the folder of the checkpoint.

    Finished files are kept when a download is interrupted, and the next one continues with the others. A file whose
    content is not what the hub says is removed. Raises ``CheckpointError``.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        folder = snapshot_download(
            planned.model, revision=constants.DEFAULT_REVISION, allow_patterns=[file.name for file in planned.files]
        )
    except (OSError, HTTPError) as error:
        raise _fetch_error(planned.model, error) from error
    for file in planned.files:
        _check(planned.model, Path(folder) / file.name, file)
    return Path(folder)


def _needed(model_name: str, names: list[str]) -> list[str]:
    """Names of config, tokenizer, processor and safetensors weights, of one set of weights only."""
    weights = [_WHOLE] if _WHOLE in names else sorted(name for name in names if _SHARD.fullmatch(name))
    if not weights:
        raise CheckpointError(
            f"{model_name} has no safetensors weights on the hub, and labkit loads no other format; take another "
            "model, or set weights=random."
        )
    sides = [name for name in names if _SIDE_FILE.fullmatch(name) and not _OTHER_FORMAT.fullmatch(name)]
    return sorted(sides) + weights


def _is_here(model_name: str, commit: str, file: RemoteFile) -> bool:
    if isinstance(try_to_load_from_cache(model_name, file.name, revision=commit), str):
        return True
    # a file that an older commit has too lies in the cache under its content's name
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{model_name.replace('/', '--')}" / "blobs"
    return bool(file.blob) and (blobs / file.blob).is_file()


def _check(model_name: str, path: Path, file: RemoteFile) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} did not arrive; run 'labkit fetch {model_name}' again.")
    if file.sha256 is None:
        return
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != file.sha256:
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)  # where there are no links, they are one
        raise CheckpointError(
            f"{model_name}: {file.name} is damaged (its sha256 is {found[:12]}..., the hub has {file.sha256[:12]}...); "
            f"it was removed from the cache. Run 'labkit fetch {model_name}' to bring it again."
        )


def _fetch_error(model_name: str, error: Exception) -> CheckpointError:
    """What an error of the hub's client means, in one line."""
    where = constants.ENDPOINT
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OfflineModeIsEnabled):
        text = "cannot be fetched: HF_HUB_OFFLINE=1 keeps this machine off the hub; unset it, or copy the cache here"
    elif isinstance(error, GatedRepoError):
        text = f"is gated: ask for access on {where}/{model_name}, then set HF_TOKEN"
    elif isinstance(error, RepositoryNotFoundError | HFValidationError):
        text = f"is not on {where}, or not for you; check the name, and set HF_TOKEN if it is private"
    elif isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        text = f"is refused by {where} (HTTP {error.response.status_code}); set HF_TOKEN to a token that may read it"
    elif isinstance(error, HfHubHTTPError):
        text = f"cannot be fetched: {where} answers HTTP {error.response.status_code}; try again later"
    elif isinstance(error, HTTPError):
        text = f"cannot be fetched: {where} is out of reach ({type(error).__name__}); check the network and HF_ENDPOINT"
    else:
        lines = str(error).strip().splitlines()
        text = f"cannot be fetched: {lines[0] if lines else type(error).__name__}; run the command again to resume"
    return CheckpointError(f"{model_name} {text}.")
