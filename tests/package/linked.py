"""The wheel in an environment that has what it declares and nothing else, made of links to what is installed here."""

import csv
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from io import BytesIO
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from provisioning import project

SDIST = "from setuptools import build_meta; import sys; build_meta.build_sdist(sys.argv[1])"
ENTRY = "import importlib.metadata as m, sys; sys.exit(m.entry_points(group='console_scripts')['labkit'].load()())"
RUN_S = 600.0
"""An end to a command that hangs."""


def source(folder: Path) -> Path:
    """What provisioning sends to a node: the package is built there."""
    with tarfile.open(fileobj=BytesIO(project.archive(project.ROOT)[0])) as tar:
        tar.extractall(folder, filter="data")
    return folder


def wheel(source: Path, folder: Path) -> Path:
    """The wheel of the source distribution of ``source``, built without a network; both lie in ``folder``."""
    subprocess.run([sys.executable, "-c", SDIST, folder], cwd=source, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder, sdist], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def closure(requires: Sequence[str], extras: Sequence[str] = ()) -> dict[str, metadata.Distribution]:
    """What is installed here of requirements and of what these require, by name."""
    found: dict[str, metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), extra) for line in requires for extra in ("", *extras)]
    while waiting:
        need, of_extra = waiting.pop()
        name = canonicalize_name(need.name)
        if name == "labkit" or (need.marker and not need.marker.evaluate({"extra": of_extra})):
            continue
        found[name] = metadata.distribution(name)
        for extra in ("", *need.extras):
            if (name, extra) not in done:
                done.add((name, extra))
                waiting += [(Requirement(line), extra) for line in found[name].requires or []]
    return found


class Linked:
    """An environment with the wheel, and the command in it: in an empty folder, with an empty home."""

    def __init__(self, folder: Path, wheel: Path, without: Sequence[str] = ()) -> None:
        self.folder, self.home, self.here, self.temporary = folder, folder / "home", folder / "here", folder / "tmp"
        for empty in (self.home, self.here, self.temporary):
            empty.mkdir(parents=True)
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        (self.site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(self.site)
        (info,) = self.site.glob("labkit-*.dist-info")
        self.requires = metadata.PathDistribution(info).requires or []
        self.libraries = {name: one for name, one in closure(self.requires).items() if name not in without}
        for one in self.libraries.values():
            _link(one, self.site)
        self.before = set(self.files(self.site))

    @staticmethod
    def files(folder: Path) -> Iterator[str]:
        """Names of the files below a folder, those behind links left out."""
        for parent, _, names in os.walk(folder):
            yield from (str(Path(parent, name).relative_to(folder)) for name in names)

    def run(self, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """``labkit WORDS``, as its entry point starts it."""
        python = self.folder / "venv" / "bin" / "python"
        # nothing is written into the libraries, which are this environment's too
        env = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(self.home), "TMPDIR": str(self.temporary),
               "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
               "COLUMNS": "160", **environment}  # fmt: skip
        return subprocess.run([python, "-c", ENTRY, *words], cwd=cwd or self.here, env=env, capture_output=True,
                              text=True, timeout=RUN_S)  # fmt: skip

    def written(self) -> set[str]:
        """What the commands have left, without the libraries' own caches: names in the home, full names of others."""
        kept = {name for name in self.files(self.home) if not name.startswith((".cache/torch", ".cache/huggingface"))}
        others = {str(folder / name) for folder in (self.here, self.temporary) for name in self.files(folder)}
        return kept | others | {str(self.site / name) for name in set(self.files(self.site)) - self.before}


def _link(one: metadata.Distribution, site: Path) -> None:
    """Link what a distribution has in site-packages: whole folders, or files where it shares the folder."""
    shared = _shared()
    wanted = {name if name.partition("/")[0] in shared else name.partition("/")[0] for name in _recorded(one)}
    for name in wanted:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).symlink_to(str(one.locate_file(name)))


def _recorded(one: metadata.Distribution) -> list[str]:
    """Names in site-packages as the installer has recorded them; ``files`` would look for each of 100,000."""
    rows = csv.reader((one.read_text("RECORD") or "").splitlines())
    return [row[0] for row in rows if row and not row[0].startswith(("..", "/", "__pycache__"))]


@cache
def _shared() -> set[str]:
    """Entries of site-packages in which more than one distribution has files."""
    tops = Counter(top for one in metadata.distributions() for top in {n.partition("/")[0] for n in _recorded(one)})
    return {top for top, count in tops.items() if count > 1}
