"""Model files: what a model's folder holds, each file a regular one that lies in it, and an index that stays inside."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from labkit.config.catalogue.model_json import odd_count
from labkit.config.regular_file import open_regular, read_regular
from labkit.train.errors import CheckpointError
from labkit.train.shards import stored_tensors

WEIGHTS, INDEX, SUMS = "model.safetensors", "model.safetensors.index.json", "SHA256SUMS"

LONGEST_BYTES = 64 * 2**20
"""Largest JSON file, in bytes; the largest tokenizers have about half of it, and the index of the largest model 9
MB."""

_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_SHARD = re.compile(r"[^/\x00-\x1f]+\.safetensors")
_READ = re.compile(r".*\.(json|txt|model|jinja|safetensors)|" + SUMS)
"""Names of what is read of a folder: by labkit, and by transformers, which opens whatever bears such a name."""


def verify(folder: Path) -> None:
    """Check that a checkpoint is whole: config, every shard to its last byte, tokenizer, processor.

    Reads headers only. The files that a ``SHA256SUMS`` file names, if there is one, are compared with its checksums; in
    the Hugging Face cache nothing is hashed, because ``labkit fetch`` did that. Nothing outside the folder is read,
    except for the blobs of that cache. Raises ``CheckpointError``.
    """
    check_files(folder)
    for name in ("config.json", *shards(folder)):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} has no {name}; {remedy(folder)}.")
        if name.endswith(".safetensors"):
            try:
                stored_tensors(folder / name)
            except CheckpointError as error:
                raise CheckpointError(f"{error}; {remedy(folder)}.") from None
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES):
        choices = ", ".join(" with ".join(names) for names in _TOKENIZER_FILES)
        raise CheckpointError(f"{folder} has no tokenizer ({choices}); {remedy(folder)}.")
    if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
        raise CheckpointError(f"{folder} has no {' or '.join(_PROCESSOR_FILES)}; {remedy(folder)}.")
    for path in sorted(folder.glob("*.json")):
        if (odd := odd_count(read_json(path))) is not None:
            raise CheckpointError(f"{path} has {odd}; {remedy(folder)}.")
    if (folder / SUMS).exists():
        _check_sums(folder)


def check_files(folder: Path) -> None:
    """``CheckpointError`` for something that would be read, and is not a file or is a link to somewhere else."""
    # a snapshot in the Hugging Face cache links to files beside it
    own = [folder.resolve()] + ([folder.parents[1].resolve() / "blobs"] if _is_snapshot(folder) else [])
    for name in sorted(filter(_READ.fullmatch, os.listdir(folder))):  # noqa: PTH208 - names are looked at, not files
        path = folder / name
        try:
            open_regular(path).close()
        except FileNotFoundError:
            raise CheckpointError(f"{path} is a link that leads nowhere; {remedy(folder)}.") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}; {remedy(folder)}.") from None
        except ValueError as error:
            raise CheckpointError(f"{error}; {remedy(folder)}.") from None
        place = path.resolve()
        if not any(place.is_relative_to(inside) for inside in own):
            raise CheckpointError(f"{path} links to {place}, outside its folder; put the file itself there.")


def shards(folder: Path) -> list[str]:
    """Names of the weight files; ``CheckpointError`` if there are none that labkit reads, or they lie elsewhere."""
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists() and any(folder.glob("*.bin")):
            raise CheckpointError(f"{folder} has weights as *.bin only, and labkit reads safetensors; save it again.")
        return [WEIGHTS]
    index = read_json(folder / INDEX)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named:
        raise CheckpointError(f"{folder / INDEX} has no weight_map; {remedy(folder)}.")
    for weight, name in named.items():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise CheckpointError(
                f"{folder / INDEX} has {weight[:100]!r} in {name!r:.200}, which is not a safetensors file of its "
                f"folder; {remedy(folder)}."
            )
    return sorted(set(named.values()))


def read_json(path: Path) -> Any:
    """What a JSON file of a model's folder holds; ``CheckpointError`` for one that cannot be read."""
    try:
        return json.loads(read_regular(path, LONGEST_BYTES))
    except RecursionError:
        reason = "it nests too deep"
    except (OSError, ValueError) as error:
        reason = line(error)
    raise CheckpointError(f"{path} cannot be read: {reason}; {remedy(path.parent)}.")


def _check_sums(folder: Path) -> None:
    try:
        text = read_regular(folder / SUMS, LONGEST_BYTES).decode("utf-8")
    except ValueError as error:
        raise CheckpointError(f"{folder / SUMS} cannot be read: {line(error)}; {remedy(folder)}.") from None
    for entry in text.splitlines():
        expected, _, name = entry.strip().partition(" ")
        name = name.strip().removeprefix("*")
        if not name:
            continue
        if Path(name).name != name:
            raise CheckpointError(f"{folder / SUMS} names {name!r:.200}, outside its folder; {remedy(folder)}.")
        path = folder / name
        try:
            with open_regular(path) as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise CheckpointError(f"{folder} has no {path.name}, which {SUMS} names; {remedy(folder)}.") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {line(error)}; {remedy(folder)}.") from None
        if found != expected.lower():
            raise CheckpointError(
                f"{path} is damaged: its sha256 is {found[:12]}..., {SUMS} has {expected[:12]}...; {remedy(folder)}."
            )


def remedy(folder: Path) -> str:
    """What brings the files of a folder again, as the end of a sentence."""
    if _is_snapshot(folder):
        name = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        return f"'labkit fetch {name}' brings it again"
    return "copy the folder again from where it was saved"


def line(error: Exception) -> str:
    """An error's first line, without the full stop that the sentence around it has."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__


def _is_snapshot(folder: Path) -> bool:
    return folder.parent.name == "snapshots"  # the layout of the Hugging Face cache
