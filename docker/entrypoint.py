"""The container's first program: gives the workspace the files that it lacks, then becomes the given command.

    python entrypoint.py jupyter lab

LABKIT_FETCH holds words for ``labkit fetch``: weights that are downloaded while Jupyter is up already.
"""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

SHIPPED = Path("/opt/labkit/workspace")


def copy_missing(source: Path, target: Path) -> list[Path]:
    """Copy what ``target`` lacks of the files in ``source``, and say which. What is there is never touched."""
    copied = []
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir() or os.path.lexists(place):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        # under another name first: half a file would be taken for the student's at the next start
        part = place.with_name(f".{place.name}.part")
        shutil.copyfile(path, part)
        part.rename(place)
        copied.append(place)
    return copied


def make_token(folder: Path) -> Path:
    """A token for this start, in a file that only its user can read.

    Jupyter writes a token that it made itself to its log; it writes a given one nowhere.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a server that ran here before the container started again
    folder.mkdir(parents=True, mode=0o700)
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(24))
    return path


def main(command: list[str]) -> None:
    """Prepare the workspace and run ``command`` in place of this program."""
    workspace = Path(os.environ["LABKIT_WORKSPACE"])
    cache = Path(os.environ["XDG_CACHE_HOME"])
    try:
        for folder in (Path.home(), cache):
            folder.mkdir(parents=True, exist_ok=True)
        copied = copy_missing(SHIPPED, workspace)
    except OSError as error:
        sys.exit(
            f"problem: the workspace is not ready: {error}. User {os.getuid()} of the container must be able to write "
            f"in {workspace}, and there must be room"
        )
    print(f"workspace: {len(copied)} new files, all others as they were", flush=True)
    if not os.environ.keys() & {"JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE"}:
        os.environ["JUPYTER_TOKEN_FILE"] = str(make_token(Path(os.environ["JUPYTER_RUNTIME_DIR"])))
    if wanted := os.environ.get("LABKIT_FETCH"):
        with (cache / "fetch.log").open("w") as log:
            subprocess.Popen(["labkit", "fetch", *wanted.split()], stdout=log, stderr=subprocess.STDOUT)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
