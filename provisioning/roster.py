"""A class list: who gets which node."""

import csv
from dataclasses import dataclass
from pathlib import Path

from provisioning.errors import UsageError

COLUMNS = ("netid", "node", "public_key")
KEY_TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")


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
    students = [_student(path, number, row, node) for number, row in lines if any(row.values())]
    netids = [student.netid for student in students]
    twice = sorted({netid for netid in netids if netids.count(netid) > 1})
    if twice:
        raise UsageError(f"{path} has {', '.join(twice)} more than once. Keep one line each.")
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
    key = row.get("public_key", "")
    if key and (not key.startswith(KEY_TYPES) or len(key.split()) < 2):
        raise UsageError(f"{where}: public_key of {row['netid']} is none. It starts like 'ssh-ed25519 AAAA'.")
    return Student(row["netid"], chosen, key)
