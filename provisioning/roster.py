"""A class list: who gets which node."""

import csv
from dataclasses import dataclass
from pathlib import Path

from provisioning import public_key
from provisioning.booking import check_netid
from provisioning.errors import UsageError

COLUMNS = ("netid", "node", "public_key")


@dataclass(frozen=True)
class Student:
    """One line of a class list."""

    netid: str
    node: str
    public_key: str = ""
    """Lets the student open a tunnel with a key of their own; empty: only who made the node gets in."""


def read_class(path: Path, node: str | None) -> list[Student]:
    """The students of a CSV file with the columns netid, node and public_key; ``node`` where a line names none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            if "netid" not in (reader.fieldnames or ()) or set(reader.fieldnames) - set(COLUMNS):
                raise UsageError(
                    f"{path} must start with the line 'netid,node,public_key'; the last two may be missing."
                )
            lines = [(reader.line_num, {key: (value or "").strip() for key, value in row.items()}) for row in reader]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error, AttributeError):
        raise UsageError(f"{path} is not a CSV file of text. Save it as CSV in UTF-8.") from None
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
    return Student(row["netid"], chosen, public_key.read(key, f"{where}: public_key of {row['netid']}") if key else "")


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
