"""Students: real work of one, and the same work as others would have done it at other times."""

import gzip
import io
import json
import random
import shutil
import tarfile
from datetime import datetime, timedelta
from pathlib import Path

from labkit.config.workspace import Workspace
from labkit.grading import archive
from labkit.grading.submit import gather
from labkit.lab.lab import Lab
from labkit.lab.lesson import LABS
from labkit.lab.session import Session

NOTEBOOKS = len(LABS)


def do_labs():
    """Two labs as a careful student does them: predict, run, look, check. Three short runs in the ledger of now."""
    one = Lab("00_setup")
    one.ask("share_of_parameters", 18)
    one.run("reduced_batch", max_steps=2)
    one.check()
    two = Lab("01_where_memory_goes")
    two.ask("does_it_fit", "out of memory")
    two.ask("adam_state", 3)
    two.run("baseline")
    Session.run(two, "baseline", batch_size=8, max_steps=2)  # as in a terminal: no question is open there
    two.ask("highest_moment", "optimizer step")
    two.check()


def another(source: Path, target: Path, number: int) -> Path:
    """The ledger as another student has it, who did the same so many hours later: own ids, own times."""
    shift, chance = timedelta(hours=number), random.Random(number)
    ids = {}
    for config in sorted(source.glob("*/*/*/config.json")):
        old = config.parent
        made = datetime.fromisoformat(json.loads(config.read_text())["record"]["created"]) + shift
        ids[old.name] = f"{made:%Y%m%d-%H%M%S}-{chance.getrandbits(32):08x}"
        new = target / old.relative_to(source).parent / ids[old.name]
        new.mkdir(parents=True)
        for name in ("config.json", "record.json"):
            data = json.loads((old / name).read_text())
            data.get("record", data).update(id=new.name, created=made.isoformat(timespec="seconds"))
            (new / name).write_text(json.dumps(data, indent=1))
        late, lines = shift.total_seconds(), []
        for line in (old / "events.jsonl").read_text().splitlines():
            event = json.loads(line)
            late += chance.uniform(0, 0.02)
            lines.append(json.dumps(event | {"time": event["time"] + late}) + "\n")
        (new / "events.jsonl").write_text("".join(lines))
        shutil.copy(old / "log.txt", new)
    lines = []
    for line in (source / "answers.jsonl").read_text().splitlines():
        entry = json.loads(line)
        entry["time"] = (datetime.fromisoformat(entry["time"]) + shift).isoformat(timespec="seconds")
        if "runs" in entry:
            entry["runs"] = {name: ids.get(run, run) for name, run in entry["runs"].items()}
        lines.append(json.dumps(entry) + "\n")
    (target / "answers.jsonl").write_text("".join(lines))
    return target


def hand_in(ledger: Path, name: str, path: Path, monkeypatch) -> Path:
    """What ``labkit submit`` makes of a ledger."""
    monkeypatch.setenv("LABKIT_RUNS", str(ledger))
    found = gather(Workspace.find())
    with path.open("wb") as file:
        archive.write_archive(file, name, found.members, found.left_out)
    return path


def member(name, kind=tarfile.REGTYPE, link="", size=None):
    """The header of a member that no honest program writes."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    if size is not None:
        made.size = size
    return made


def packed(path: Path, *members) -> Path:
    """A .tar.gz of names or headers, each with bytes."""
    with gzip.open(path, "wb", 6) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            header = member(name) if isinstance(name, str) else name
            if header.type == tarfile.REGTYPE:
                header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def manifest(name="Eve", **more) -> bytes:
    """A manifest that lists nothing."""
    facts = {"format": 1, "labkit": "0.1.0", "name": name, "created": "2026-11-21T12:00:00+00:00", "members": {}}
    return json.dumps(facts | more).encode()
