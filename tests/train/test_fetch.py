"""Fetch: the real client of the hub against a hub on the loopback, in a child process with a cache of its own."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from folders import save_tiny
from hub import Hub, blob_of, is_large

pytestmark = pytest.mark.slow

MODEL = "Salesforce/blip2-opt-2.7b"
SMALL_DISK = """
import shutil, sys
from collections import namedtuple
whole = shutil.disk_usage("/")
shutil.disk_usage = lambda path: whole._replace(free=10**9 + {spare})
from labkit.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A sharded checkpoint as it lies on a hub, with files that no one here needs."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    save_tiny(folder, "opt", max_shard_size="6MB")
    for name in ("pytorch_model.bin", "model.fp16-00001-of-00001.safetensors", "pytorch_model.bin.index.json",
                 "README.md", "tf_model.h5.index.json", ".gitattributes"):  # fmt: skip
        (folder / name).write_bytes(b"{}")
    return folder


@pytest.fixture
def hub(stored, tmp_path):
    folder = shutil.copytree(stored, tmp_path / "on-the-hub")
    with Hub({MODEL: folder}) as hub:
        yield hub


def labkit(hub_url, home, *arguments, code=None, **environment):
    command = [sys.executable, *(["-c", code] if code else ["-m", "labkit.cli"]), *arguments]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    mine = {"HF_ENDPOINT": hub_url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(command, env=clean | mine | environment, capture_output=True, text=True, timeout=60)


def error_of(done):
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


def needed(folder):
    others = {"pytorch_model.bin", "README.md", ".gitattributes", "model.fp16-00001-of-00001.safetensors"}
    return sorted(p.name for p in folder.iterdir() if p.name not in others and ".index.json" not in p.name) + [
        "model.safetensors.index.json"
    ]


def test_a_fetch_brings_what_is_needed_once_and_a_run_finds_it(hub, tmp_path):
    home = tmp_path / "home"
    first = labkit(hub.url, home, "fetch", MODEL, "--json")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    (row,) = json.loads(first.stdout)
    source = hub.models[MODEL]
    assert sorted(hub.served) == sorted(needed(source))
    assert row["model"] == MODEL
    assert row["downloaded_bytes"] == sum((source / name).stat().st_size for name in needed(source))
    assert row["folder"].startswith(str(home / "hub"))
    again = labkit(hub.url, home, "fetch", MODEL)
    assert again.returncode == 0
    assert "0 bytes to download" in again.stdout
    assert str(home / "hub") in again.stdout
    assert len(hub.served) == len(needed(source))
    code = (
        "from labkit.train.weights import *; from labkit.config.schema import RunConfig;"
        f"folder = find_weights({MODEL!r}); model = load_model(RunConfig(capacity_gib=1), folder, 'cpu');"
        "load_processor(folder, model.config); print(folder)"
    )
    loaded = labkit(hub.url, home, code=code, HF_HUB_OFFLINE="1")
    assert loaded.stdout.strip() == row["folder"], loaded.stderr


def test_what_was_already_there_is_not_counted_and_not_brought_again(hub, tmp_path):
    home, source = tmp_path / "home", hub.models[MODEL]
    assert labkit(hub.url, home, "fetch", MODEL).returncode == 0
    (snapshot,) = (home / "hub").glob("models--*/snapshots/*")
    gone = snapshot / "model-00002-of-00003.safetensors"
    gone.resolve().unlink()
    gone.unlink()
    hub.served.clear()
    done = labkit(hub.url, home, "fetch", MODEL, "--json")
    (row,) = json.loads(done.stdout)
    assert hub.served == [gone.name]
    assert row["downloaded_bytes"] == (source / gone.name).stat().st_size


def test_a_file_that_is_not_what_the_hub_says_is_removed_and_brought_again_next_time(hub, tmp_path):
    home, name = tmp_path / "home", "model-00002-of-00003.safetensors"
    hub.damaged.add(name)
    line = error_of(labkit(hub.url, home, "fetch", MODEL))
    assert name in line
    assert f"labkit fetch {MODEL}" in line
    assert not list((home / "hub").rglob(name))
    assert not list((home / "hub").rglob(blob_of(hub.models[MODEL] / name)))
    hub.damaged.clear()
    hub.served.clear()
    assert labkit(hub.url, home, "fetch", MODEL).returncode == 0
    assert hub.served == [name]


def test_a_blob_that_was_damaged_in_the_cache_is_found(hub, tmp_path):
    home = tmp_path / "home"
    assert labkit(hub.url, home, "fetch", MODEL).returncode == 0
    (path,) = (home / "hub").rglob("model-00001-of-00003.safetensors")
    blob = path.resolve()
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert path.name in error_of(labkit(hub.url, home, "fetch", MODEL))
    assert not blob.exists()


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ((404, "RepoNotFound"), "check the name"), ((401, "RepoNotFound"), "HF_TOKEN"), ((401, None), "HF_TOKEN"),
        ((403, "GatedRepo"), "gated"), ((403, None), "HTTP 403"), ((500, None), "HTTP 500"),
    ],
)  # fmt: skip
def test_a_model_that_the_hub_does_not_give_out_is_one_line(tmp_path, refused, words):
    with Hub(refused={MODEL: refused}) as hub:
        line = error_of(labkit(hub.url, tmp_path / "home", "fetch", MODEL))
    assert MODEL in line
    assert words in line
    assert not (tmp_path / "home").exists()


def test_a_hub_out_of_reach_is_one_line(tmp_path):
    with Hub() as hub:
        pass  # its port is free again
    line = error_of(labkit(hub.url, tmp_path / "home", "fetch", MODEL))
    assert "out of reach" in line
    assert hub.url in line


def test_offline_mode_is_one_line(hub, tmp_path):
    assert "HF_HUB_OFFLINE=1" in error_of(labkit(hub.url, tmp_path / "home", "fetch", MODEL, HF_HUB_OFFLINE="1"))
    assert not hub.served


def test_a_disk_without_room_is_refused_before_anything_is_written(hub, tmp_path):
    source, home = hub.models[MODEL], tmp_path / "home"
    size = sum((source / name).stat().st_size for name in needed(source))
    line = error_of(labkit(hub.url, home, "fetch", MODEL, code=SMALL_DISK.format(spare=size - 1)))
    assert "make room" in line
    assert str(home) in line
    assert not hub.served
    assert not home.exists()
    assert labkit(hub.url, home, "fetch", MODEL, code=SMALL_DISK.format(spare=size)).returncode == 0


def test_a_repository_without_safetensors_is_named(hub, tmp_path):
    for path in hub.models[MODEL].glob("*.safetensors"):
        path.unlink()
    assert "safetensors" in error_of(labkit(hub.url, tmp_path / "home", "fetch", MODEL))
    assert not hub.served


def test_one_whole_file_is_preferred_to_shards(hub, tmp_path):
    (hub.models[MODEL] / "model.safetensors").write_bytes(b"x")
    assert labkit(hub.url, tmp_path / "home", "fetch", MODEL).returncode == 0
    assert [name for name in hub.served if name.endswith(".safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["tiny/blip2-opt-small", "."])
def test_what_is_not_on_the_hub_is_not_asked_for(hub, tmp_path, name):
    assert "nothing to fetch" in error_of(labkit(hub.url, tmp_path / "home", "fetch", name))


def test_a_profile_fetches_every_checkpoint_of_its_experiments_once(stored, tmp_path):
    names = ["Salesforce/blip2-opt-2.7b", "Salesforce/blip2-opt-6.7b", "Salesforce/blip2-flan-t5-xxl"]
    with Hub(dict.fromkeys(names, stored)) as hub:
        done = labkit(hub.url, tmp_path / "home", "fetch", "--profile", "h100-94gb", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["model"] for row in json.loads(done.stdout)] == names
    large = sum(is_large(stored / name) for name in hub.served)
    assert large == 3 * len(list(stored.glob("model-*.safetensors")))
