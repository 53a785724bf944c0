"""Records of older versions are read in the words of today, and what is not a record is left for the check of its
form."""

import copy
import hashlib
import json

import pytest

from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.ledger.old_words import record_today
from labkit.ledger.records import SCHEMA, Record
from labkit.ledger.shape import plain

MEMORY = {"source": "virtual GPU", "capacity_bytes": 100, "phases": []}
FALLBACK = {"overrides": {"batch_size": 8}, "environment": {}, "kind": "time", "cost": "little", "of": "x"}


def hash_of(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


@pytest.fixture
def then(ledger) -> dict:
    """A record as version 4 wrote it."""
    resolved = resolve(Workspace.find(), "six_full_split")
    with ledger.open_run(resolved, {}, {}) as folder:
        record = folder.read().to_dict()
    del record["fallback"]
    config = record["config"] | {"device": "virtual", "strategy": "layer_split"}
    rank = {"rank": 1, "device": "virtual GPU on x86_64 CPU", "status": "ok", "peak_bytes": 1, "memory": MEMORY}
    kept = {"kind": "virtual_gpu_full", "happened": "The virtual GPU was full.", "evidence": [], "next_steps": []}
    return record | {
        "schema": 4, "config": config, "config_hash": hash_of(config), "overrides": {"strategy": "layer_split"},
        "rung": FALLBACK, "device": "virtual GPU on x86_64 CPU", "memory": MEMORY, "ranks": [rank], "diagnosis": kept,
    }  # fmt: skip


def test_an_old_record_is_read_in_the_words_of_today(then):
    before = copy.deepcopy(then)
    record = Record.from_dict(then)
    assert then == before
    assert (record.schema, plain(record.fallback) | FALLBACK) == (SCHEMA, plain(record.fallback))
    assert (record.config["device"], record.config["strategy"]) == ("simulated", "pipeline")
    assert record.overrides == {"strategy": "pipeline"}
    assert record.config_hash == resolve(Workspace.find(), "six_full_split").config.hash
    assert record.memory.source == "simulated GPU"
    assert record.device == record.ranks[0].device == "simulated GPU on x86_64 CPU"
    assert record.ranks[0].memory.source == "simulated GPU"
    assert (record.diagnosis.kind, record.diagnosis.happened) == ("simulated_gpu_full", "The virtual GPU was full.")
    assert Record.from_dict(record.to_dict()) == record


def test_an_old_event_is_told_in_the_words_of_today(then):
    record = Record.from_dict(then | {"memory": None, "device": None})
    start = {"event": "start", "source": "virtual GPU", "capacity_bytes": 1, "device": "virtual GPU on a CPU"}
    record.apply(start | {"steps": 1, "versions": {}, "model": {}})
    assert (record.memory.source, record.device) == ("simulated GPU", "simulated GPU on a CPU")


def test_a_record_of_today_has_no_old_key(then):
    with pytest.raises(ValueError, match="'rung' is not known"):
        Record.from_dict(then | {"schema": SCHEMA, "memory": None, "ranks": []})


@pytest.mark.parametrize("key", ["config", "overrides", "diagnosis", "ranks", "device", "memory", "rung"])
@pytest.mark.parametrize("value", [None, 1, "virtual", [1], {"source": 1, "kind": 1, "device": 1}])
def test_a_value_of_another_form_is_left_to_the_check(then, key, value):
    record_today(then | {key: value})
    try:
        Record.from_dict(then | {key: value})
    except ValueError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("data", [None, 1, "x", [], {}])
def test_what_is_no_record_stays(data):
    assert record_today(data) == data
