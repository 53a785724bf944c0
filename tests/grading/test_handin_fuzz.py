"""Three hundred submissions that no one would write: each is a row, and its sheet prints."""

import copy
import json
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.config.workspace import Workspace
from labkit.grading.archive import Submission
from labkit.grading.grade import Row, judged
from labkit.grading.judge import Judge
from labkit.grading.sheet import as_csv, details, facts, table
from labkit.grading.work import read_work

pytestmark = pytest.mark.slow

COUNT = 300
ODD = st.sampled_from([
    None, True, False, 0, -1, 1, 10**20, -(10**20), 0.5, 1e308, -1e308, "", "ok", "oom", "running", "x" * 1000,
    "\x1b[2J",
    "\ud800", "../../etc/passwd", "=1+1", [], {}, [[]], {"a": None}, [None], ["a"], {"\x00": 1}, "2026-11-21T12:00:00",
    "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+23:59", "cuda", "tiny", "baseline", [1e308, 1e308], "NaN",
])  # fmt: skip


def places(data, path=()):
    """The way to every value of JSON, the innermost too."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(data, path, value):
    """A copy with another value, or without one, at a place."""
    made = copy.deepcopy(data)
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return made


def test_any_value_anywhere_gives_a_row_and_a_sheet(real_ledger):
    texts = {"answers.jsonl": (real_ledger / "answers.jsonl").read_bytes()}
    for path in real_ledger.glob("tiny/*/*/*.json*"):
        texts[f"runs/{path.relative_to(real_ledger)}"] = path.read_bytes()
    judge, seen = Judge(Workspace.find()), Counter()
    parsed = {name: [json.loads(line) for line in data.splitlines()] if name.endswith("l") else json.loads(data)
              for name, data in texts.items()}  # fmt: skip
    spots = {name: sorted(places(data), key=len) for name, data in parsed.items()}

    @settings(derandomize=True, deadline=None, database=None, max_examples=COUNT,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(data=st.data(), name=st.sampled_from(sorted(texts)), value=ODD | st.just(...))
    def take(data, name, value):
        top = data.draw(st.booleans())  # phases are most of a record, and its other fields matter more
        fitting = [spot for spot in spots[name] if len(spot) <= 2] if top else spots[name]
        wild = changed(parsed[name], data.draw(st.sampled_from(fitting)), value)
        text = "".join(json.dumps(one) + "\n" for one in wild) if name.endswith("l") else json.dumps(wild)
        submission = Submission(
            name="Eve",
            created=datetime.now(UTC),
            labkit="0.1.0",
            texts=texts | {name: text.encode()},
            sha256={},
            listed={},
        )
        row = judged(judge, read_work(submission), "a.tar.gz", 2.0, datetime.now(UTC))
        assert isinstance(row, Row)
        for said in (table([row]), details(row), as_csv([row]), json.dumps(facts(row))):
            assert all(c.isprintable() or c == "\n" for c in said)
        assert 0 <= row.right <= len(row.given) and row.passed <= 4 and row.gpu_minutes < 10**5
        seen["signs" if row.signs else "none"] += 1

    take()
    assert seen["signs"] > COUNT / 3
