"""A class list: who gets which node, and when."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from provisioning import public_key, times
from provisioning.booking import check_netid
from provisioning.errors import UsageError

COLUMNS = ("netid", "node", "public_key", "start", "length")


@dataclass(frozen=True)
class Student:
    """One line of a class list."""

    netid: str
    node: str
    public_key: str = ""
    """Lets the student open a tunnel with a key of their own; empty: only the maker of the node gets in."""
    start: datetime | None = None
    """When the student's time on the node begins; None: whenever it is asked for."""
    length: timedelta | None = None
    """How long it is; None: as long as the command says."""


def read_class(path: Path, node: str | None) -> list[Student]:
    """The students of a CSV file with the columns of ``COLUMNS``; ``node`` where a line names none."""
    lines = _rows(path)
    _check_twice(str(path), [(row["netid"], f"line {number}") for number, row in lines if row.get("netid")])
    students = [_student(path, number, row, node) for number, row in lines if any(row.values())]
    if not students:
        raise UsageError(f"{path} has no students. Add a line each below 'netid'.")
    return students


def _student(path: Path, number: int, row: dict[str, str], node: str | None) -> Student:
    where = f"{path}, line {number}"
    if not row["netid"]:
        raise UsageError(f"{where}: there is no netid. Fill it in, or delete the line.")
    chosen = row.get("node") or node
    if not chosen:
        raise UsageError(f"{where}: {row['netid']} has no node. Fill in the column, or give --node.")
    check_netid(row["netid"], f"{where}: ")
    key = row.get("public_key", "")
    key = public_key.read(key, f"{where}: public_key of {row['netid']}") if key else ""
    start = times.parse_start(row["start"], f"{where}: ") if row.get("start") else None
    length = times.parse_length(row["length"], f"{where}: ") if row.get("length") else None
    return Student(row["netid"], chosen, key, start, length)


def write_times(path: Path, slots: Mapping[str, tuple[str, datetime, timedelta]]) -> None:
    """Write node, start and length into the lines of these netIDs; everything else stays as it is.

    The file is replaced as a whole, or not at all.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for _, row in _rows(path):
        if row.get("netid") in slots:
            node, start, length = slots[row["netid"]]
            row |= {"node": node, "start": f"{start:%Y-%m-%dT%H:%M}+00:00", "length": times.written(length)}
        if any(row.values()):
            writer.writerow(row)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text.getvalue(), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}. Copy it to a folder of yours.") from None


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """All lines with their numbers, as they were written."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            if "netid" not in (reader.fieldnames or ()) or set(reader.fieldnames) - set(COLUMNS):
                raise UsageError(
                    f"{path} must start with the line '{','.join(COLUMNS)}', in small letters with commas; all but "
                    f"netid may be missing. It has {_shown(','.join(reader.fieldnames or ['nothing']))}."
                )
            return [(reader.line_num, {key: (value or "").strip() for key, value in row.items()}) for row in reader]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error, AttributeError):
        raise UsageError(f"{path} is not a CSV file of text. Save it as CSV in UTF-8.") from None


def _shown(text: str) -> str:
    """What a file has, short and printable."""
    short = text if len(text) <= 60 else f"{text[:60]}..."
    return f"'{''.join(letter if letter.isprintable() else '?' for letter in short)}'"


def read_netids(netids: list[str], node: str) -> list[Student]:
    """The students of netIDs as they were typed."""
    _check_twice("the command", [(netid, f"place {number}") for number, netid in enumerate(netids, 1)])
    for netid in netids:
        check_netid(netid)
    return [Student(netid, node) for netid in netids]


def _check_twice(where: str, netids: list[tuple[str, str]]) -> None:
    """``UsageError`` for one that is there twice: two would make and delete the same node at the same time."""
    places: dict[str, list[str]] = {}
    for netid, place in netids:
        places.setdefault(netid.casefold(), []).append(place)
    twice = {netid: found for netid, found in places.items() if len(found) > 1}
    if twice:
        named = "; ".join(f"{netid[:40]} more than once ({', '.join(found)})" for netid, found in sorted(twice.items()))
        shown = "".join(letter if letter.isprintable() else "?" for letter in named)
        raise UsageError(f"{where} has {shown}. Keep one each.")
