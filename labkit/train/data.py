"""Data: (image, caption) pairs from a registered data set or a folder, and the loaders."""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from labkit import assets
from labkit.config.datasets import DATASETS, DatasetEntry, find_dataset
from labkit.config.extras import missing
from labkit.config.schema import RunConfig
from labkit.train.errors import DataError

DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, ValueError, RuntimeError)
"""Errors that zipfile, zlib, json and Pillow raise for damaged bytes."""

WORKER_TIMEOUT_S = 600.0
"""How long a loader worker may be silent: far longer than a batch takes on a slow disk."""


class EmojiZip(Dataset):
    """An image folder in one zip: ``metadata.jsonl`` names the images, their captions and groups.

    An ``entry`` of the data registry may take a part of the groups. The zip is read into memory, so that loader
    workers, which are forked, do not share a file position.
    """

    def __init__(self, path: Path, entry: DatasetEntry | None = None) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        try:
            with zipfile.ZipFile(path) as archive:
                lines = archive.read("metadata.jsonl").decode().splitlines()
            rows = [json.loads(line) for line in lines]
            self.rows = [row for row in rows if entry is None or entry.takes(row.get("group"))]
        except FileNotFoundError:
            raise DataError(f"{path} is missing; 'git checkout' it, or install the package again.") from None
        except DAMAGED as error:
            raise DataError(f"{path} is damaged ({error}); restore it with 'git checkout {path.name}'.") from error

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        row = self.rows[index]
        try:
            if self._zip is None:
                self._zip = zipfile.ZipFile(io.BytesIO(self.path.read_bytes()))
            data = self._zip.read(row["file_name"])  # checks the CRC
            return Image.open(io.BytesIO(data)).convert("RGB"), row["text"]
        except DAMAGED as error:
            raise DataError(f"{self.path} is damaged at {row['file_name']} ({error}); restore the file.") from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_zip": None}


class FolderDataset(Dataset):
    """A Hugging Face data set folder, as ``save_to_disk`` writes it or as ``load_dataset`` reads it.

    Needs the columns ``image`` and ``text``; the ``train`` split is taken where there are splits.
    """

    def __init__(self, folder: Path) -> None:
        if (reason := missing("datasets")) is not None:
            raise DataError(f"the data set in {folder} cannot be read: {reason}")
        import datasets

        datasets.disable_progress_bars()
        _refuse_odd_files(folder)
        try:
            saved = (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()
            found = datasets.load_from_disk(str(folder)) if saved else datasets.load_dataset(str(folder))
        # a zip among the files may be damaged too; a set that was saved without samples is an index that is none
        except (*DAMAGED, IndexError, datasets.exceptions.DatasetsError) as error:
            raise DataError(f"the data set in {folder} cannot be read: {error}") from error
        if isinstance(found, dict) and "train" not in found:
            raise DataError(f"the data set in {folder} has the splits {sorted(found)}; it lacks train. Rename one.")
        rows = found["train"] if isinstance(found, dict) else found
        lacking = {"image", "text"} - set(rows.column_names)
        if lacking:
            raise DataError(
                f"the data set in {folder} has columns {rows.column_names}; it lacks {sorted(lacking)}. Rename them."
            )
        self.folder = folder
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        try:
            row = self.rows[index]
            image, text = row["image"].convert("RGB"), row["text"]
        except (OSError, SyntaxError, AttributeError) as error:  # Pillow's errors, and a column without images
            raise DataError(f"row {index} of the data set in {self.folder} holds no image ({error}).") from error
        if not isinstance(text, str):
            raise DataError(f"row {index} of the data set in {self.folder} has no text but {text!r}.")
        return image, text


def _refuse_odd_files(folder: Path) -> None:
    """``DataError`` for a pipe, a socket or a device in a folder: reading it would block or never end."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent) / name for name in names):
            if path.exists() and not path.is_file():
                raise DataError(f"the data set in {folder} has {path.name}, which is not a file; take it out.")


def packaged(name: str) -> EmojiZip:
    """A registered data set that ships with the package."""
    return EmojiZip(assets.FLUENT_EMOJI, DATASETS[name])


def check_folder(folder: Path) -> int:
    """Read a data set's folder as a run reads it, its first sample too; the number of samples.

    Raises ``DataError``.
    """
    found = FolderDataset(folder)
    found[0]
    return len(found)


def load_samples(config: RunConfig, data_folder: Path) -> tuple[Dataset, Dataset | None]:
    """Training samples, and validation samples or None: drawn with the run's seed, so two runs see the same.

    Raises ``DataError`` when there are fewer training samples than one batch needs.
    """
    folder = find_dataset(config.dataset, data_folder)
    samples = packaged(config.dataset) if folder is None else _of_folder(config.dataset, folder)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(config.seed)).tolist()
    order = order[: config.num_train_samples]
    held_out = int(len(order) * config.val_fraction)
    if config.val_fraction and not held_out:
        raise DataError(f"val_fraction={config.val_fraction} of {len(order)} samples holds out none; raise it.")
    if len(order) - held_out < config.batch_size * config.shares:
        on = f" on each of {config.shares} devices" if config.shares > 1 else ""
        raise DataError(
            f"{len(order) - held_out} training samples do not fill one batch of batch_size={config.batch_size}{on}; "
            "raise num_train_samples or lower batch_size."
        )
    return Subset(samples, order[held_out:]), Subset(samples, order[:held_out]) if held_out else None


def _of_folder(name: str, folder: Path) -> FolderDataset:
    try:
        return FolderDataset(folder)
    except DataError as error:
        if name not in DATASETS:
            raise
        again = f"'labkit fetch --data {name}' says how to bring it again"
        raise DataError(f"{str(error).rstrip('.')}. {again}.") from error


class EpochOrder(Sampler[int]):
    """The order of the samples, drawn again for every epoch from the seed and the epoch alone.

    So a run that resumes in the middle of an epoch sees the samples that are left, and those only:
    ``first_epoch`` begins after ``done_samples``. Lightning calls ``set_epoch``.

    Of several ``ranks`` each takes its ``batch_size`` samples of every global batch: together they see the batches
    that one device with as large a batch sees.
    """

    def __init__(
        self, length: int, seed: int, first_epoch: int = 0, done_samples: int = 0, batch_size: int = 1, rank: int = 0,
        ranks: int = 1,
    ) -> None:  # fmt: skip
        self._length = length
        self._seed = seed
        self._batch_size, self._rank, self._ranks = batch_size, rank, ranks
        self._epoch = first_epoch
        self._done_samples = done_samples

    def set_epoch(self, epoch: int) -> None:
        """The epoch to draw next."""
        if epoch != self._epoch:
            self._epoch, self._done_samples = epoch, 0

    def __len__(self) -> int:
        if self._ranks == 1:
            return self._length
        return self._length // (self._batch_size * self._ranks) * self._batch_size

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self._length, generator=torch.Generator().manual_seed(self._seed + self._epoch))
        if self._ranks > 1:
            whole = len(self) * self._ranks
            order = order[:whole][self._done_samples :].view(-1, self._ranks, self._batch_size)[:, self._rank].flatten()
            return iter(order.tolist())
        return iter(order[self._done_samples :].tolist())


class EpochLoader(DataLoader):
    """A loader whose place is known from the trainer's progress; the two methods tell Lightning that it can resume."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the place was given to ``build_loader``."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


def build_loader(
    config: RunConfig, samples: Dataset, collate: Any, train: bool, first_epoch: int = 0, done_batches: int = 0,
    rank: int = 0,
) -> DataLoader:  # fmt: skip
    """The loader of a rank. Its workers decode and tokenize; training drops the last, smaller batch.

    Validation samples are not shared: every rank sees all of them, so that all know the same loss.

    A run that resumes begins in ``first_epoch`` after ``done_batches``. A worker that gives nothing for
    ``WORKER_TIMEOUT_S`` ends the run.
    """
    done_samples = done_batches * config.batch_size * config.shares
    order = EpochOrder(
        len(samples), config.seed, first_epoch, done_samples, config.batch_size, rank, config.shares
    ) if train else None  # fmt: skip
    return EpochLoader(
        samples,
        batch_size=config.batch_size,
        sampler=order,
        generator=torch.Generator().manual_seed(config.seed),
        drop_last=train,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        timeout=WORKER_TIMEOUT_S if config.num_workers else 0,
        pin_memory=config.on_cuda,
        collate_fn=collate,
    )
