"""The data registry: which data sets have a name, and where they lie."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from labkit.config.errors import ConfigError, nearest


@dataclass(frozen=True)
class DatasetEntry:
    """A registered data set; ``folder`` is looked for in ``workspace/data``, an empty one ships with the package.

    ``address`` gives a tar.gz with one folder in it, whose content is the data set. Of a packaged one ``groups`` are
    the only groups taken, ``without`` the groups left out; empty takes all.
    """

    name: str
    folder: str
    about: str
    address: str = ""
    groups: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def takes(self, group: str | None) -> bool:
        """Whether samples of this group belong to the data set."""
        return (not self.groups or group in self.groups) and group not in self.without


FOOD = "Food & Drink"
"""The group of the Fluent emoji that the base model has not seen."""


DATASETS = {
    entry.name: entry
    for entry in (
        DatasetEntry("fluent_emoji", "", "1,852 Fluent emoji of 64 px with English names (MIT); ships with labkit"),
        DatasetEntry("fluent_emoji_food", "", "the 128 of them that are food and drink", groups=(FOOD,)),
        DatasetEntry(
            "fluent_emoji_rest", "", "the other 1,724; the packaged base was trained on them", without=(FOOD,)
        ),
        DatasetEntry(
            "gourmetgram_caption", "gourmetgram_caption", "food photos with captions, for a GPU node",
            address="https://nyu.box.com/shared/static/g3qw3g5j7l8dkvyf02a9afuuo9grs3g3.gz",
        ),
    )
}  # fmt: skip


def by_hand(entry: DatasetEntry, data_folder: Path) -> str:
    """The shell's command that brings a data set without labkit."""
    archive = shlex.quote(f"{data_folder / entry.folder}.tar.gz")
    parent = shlex.quote(str(data_folder))
    return f"mkdir -p {parent} && curl -fLo {archive} {entry.address} && {unpacking(entry, data_folder)}"


def unpacking(entry: DatasetEntry, data_folder: Path) -> str:
    """The shell's command that unpacks an archive that lies beside the data set's folder."""
    folder = data_folder / entry.folder
    archive, folder = shlex.quote(f"{folder}.tar.gz"), shlex.quote(str(folder))
    return f"mkdir {folder} && tar -xzf {archive} --strip-components=1 -C {folder}"


def find_dataset(name: str, data_folder: Path) -> Path | None:
    """Where a data set lies: None for the one in the package, else a folder that exists.

    Raises ``ConfigError`` with the next step for a name that is neither registered nor a folder.
    """
    entry = DATASETS.get(name)
    if entry is not None and not entry.folder:
        return None
    candidates = [data_folder / entry.folder] if entry else [Path(name), data_folder / name]
    for candidate in candidates:
        if os.path.isdir(candidate):  # noqa: PTH112 - says no to a name that is too long, where Path raises
            return candidate
    if entry is not None:
        raise ConfigError(
            f"dataset={name!r} is not here: 'labkit fetch --data {name}' brings it into {candidates[0]}. "
            f"By hand: {by_hand(entry, data_folder)}"
        )
    raise ConfigError(
        f"dataset={name!r} is neither a registered name ({', '.join(DATASETS)}) nor a folder.{nearest(name, DATASETS)}"
    )
