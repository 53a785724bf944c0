"""Model files: nothing outside a model's folder is read, and what is not a file is refused at once."""

import json
import os
import shutil
import socket

import pytest
import torch
from checkpoint_errors import error_of
from folders import save_tiny

from labkit.config.catalogue.models import architecture
from labkit.config.errors import ConfigError
from labkit.train.errors import CheckpointError
from labkit.train.model_files import INDEX, shards, verify
from labkit.train.shards import stored_tensors
from labkit.train.weights import load_processor

SHARD = "model-00002-of-00003.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model in shards."""
    folder = tmp_path_factory.mktemp("saved") / "opt"
    save_tiny(folder, "opt", max_shard_size="8MB")
    assert (folder / SHARD).exists()
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["../other.safetensors", "/tmp/other.safetensors", "sub/../../other.safetensors", "sub/other.safetensors", "..",
     ".", "", "model\0.safetensors", "pytorch_model.bin", "config.json", 3, None, ["model.safetensors"], {}, True,
     1e999],
)  # fmt: skip
def test_an_index_that_names_what_is_no_file_of_its_folder_is_refused(folder, name):
    shutil.copy(folder / SHARD, folder.parent / "other.safetensors")
    index = json.loads((folder / INDEX).read_text())
    first = next(iter(index["weight_map"]))
    index["weight_map"][first] = name
    (folder / INDEX).write_text(json.dumps(index))
    for call in (verify, shards):
        assert f"{INDEX} has {first!r} in " in error_of(call, folder)


@pytest.mark.slow
@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": "x"}, [], None, 1])
def test_an_index_without_a_map_is_refused(folder, index):
    (folder / INDEX).write_text(json.dumps(index))
    assert f"{INDEX} has no weight_map" in error_of(shards, folder)


def test_a_shard_that_an_index_names_and_no_one_has_is_named(folder):
    (folder / SHARD).unlink()
    assert f"has no {SHARD}" in error_of(verify, folder)


def test_an_index_of_millions_of_entries_is_not_read(folder):
    with (folder / INDEX).open("w") as file:
        file.write('{"weight_map": {')
        file.seek(200 * 2**20)
        file.write("}}")
    assert f"{INDEX} has over 64 MiB" in error_of(shards, folder)


@pytest.mark.parametrize(
    "name", ["config.json", INDEX, SHARD, "tokenizer.json", "chat_template.jinja", "added_tokens.json"]
)
def test_a_link_out_of_the_folder_is_refused_and_a_link_inside_is_not(folder, name):
    target = folder.parent / "elsewhere"
    if (folder / name).exists():
        (folder / name).rename(target)
    else:
        target.write_text("{}")
    (folder / name).symlink_to(target)
    assert f"{name} links to {target}, outside its folder" in error_of(verify, folder)
    (folder / name).unlink()
    target.rename(folder / f"{name}.real")
    (folder / name).symlink_to(f"{name}.real")
    if name != "chat_template.jinja":
        verify(folder)


def test_a_folder_that_is_a_link_itself_is_read(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    verify(tmp_path / "link")


def test_the_blobs_of_the_hub_cache_are_its_own_and_other_files_there_are_not(folder, tmp_path):
    repository = tmp_path / "models--some--model"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    (repository / "blobs").mkdir()
    folder.rename(snapshot)
    for i, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(repository / "blobs" / str(i))
        path.symlink_to(f"../../blobs/{i}")
    verify(snapshot)
    (repository / "refs").mkdir()
    (repository / "blobs" / "0").rename(repository / "refs" / "0")
    first = min(snapshot.iterdir())
    first.unlink()
    first.symlink_to("../../refs/0")
    assert f"{first.name} links to {repository / 'refs' / '0'}, outside" in error_of(verify, snapshot)
    first.unlink()
    first.symlink_to("../../blobs/0")
    assert f"{first.name} is a link that leads nowhere" in error_of(verify, snapshot)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
@pytest.mark.parametrize(
    "name", ["config.json", INDEX, SHARD, "tokenizer_config.json", "generation_config.json", "SHA256SUMS"]
)
def test_what_is_no_file_is_refused_and_no_one_waits(folder, name, kind, monkeypatch):
    (folder / name).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "pipe":
                os.mkfifo(folder / name)
            case "folder":
                (folder / name).mkdir()
            case "device":
                (folder / name).symlink_to("/dev/zero")
            case "socket":
                monkeypatch.chdir(folder)
                listener.bind(name)
        assert f"{name} is a {kind}" in error_of(verify, folder)
    if name == "config.json":
        with pytest.raises(ConfigError, match=f"config.json is a {kind}"):
            architecture(str(folder))
    if name == SHARD:
        with pytest.raises(CheckpointError, match=f"{SHARD} is a {kind}"):
            stored_tensors(folder / SHARD)


def test_a_config_of_two_gigabytes_is_not_read(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(2 * 2**30)
    assert "config.json has over" in error_of(verify, folder)
    with pytest.raises(ConfigError, match="config.json has over"):
        architecture(str(folder))


@pytest.mark.parametrize("name", ["../config.json", "/etc/hostname", "sub/x"])
def test_checksums_are_of_files_of_the_folder(folder, name):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    assert f"SHA256SUMS names {name!r}, outside its folder" in error_of(verify, folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json", "extra.json"])
@pytest.mark.parametrize("more", [{"extra_ids": 10**9}, {"a": [{"num_labels": 10**9}]}, {"extra_ids": 1e999}])
def test_a_number_that_transformers_makes_a_list_of_has_a_limit_in_every_file(folder, name, more):
    path = folder / name
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | {"extra_ids": 100}))
    verify(folder)
    path.write_text(json.dumps(before | more))
    assert f"{name} has " in (told := error_of(verify, folder)) and "a whole number up to 65,536" in told


def test_a_json_file_that_nests_without_end_is_named(folder):
    (folder / "added_tokens.json").write_text("[" * 100_000)
    assert "added_tokens.json cannot be read: it nests too deep" in error_of(verify, folder)


def test_code_that_a_folder_brings_is_refused_and_not_asked_for(folder, monkeypatch):
    marker = folder.parent / "marker"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Tokenizer: pass\nclass Processor: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    from labkit.families.blip2.family import Blip2Family

    config = Blip2Family().config(architecture("tiny/blip2-opt-small"))
    for name, auto in (
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Tokenizer", None]}),
        ("processor_config.json", {"AutoProcessor": "evil.Processor"}),
        ("config.json", {"AutoModel": "evil.Tokenizer", "AutoConfig": "evil.Tokenizer"}),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": auto, "tokenizer_class": "Own"}))
        try:
            load_processor(folder, config)
        except CheckpointError as error:
            assert len(str(error).splitlines()) == 1
    assert not marker.exists()


def header(entries, size):
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    return len(text).to_bytes(8, "little") + text + b"\0" * size


def tensor(start, end, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "entries",
    [
        {"a": tensor(0, 8), "b": tensor(0, 8)}, {"a": tensor(0, 6), "b": tensor(4, 8)},
        {"a": tensor(0, 3), "b": tensor(4, 8)}, {"a": tensor(1, 8)}, {"a": tensor(0, 8, [-2, -4])},
        {"a": tensor(0, 8, [8.0])}, {"a": tensor(0, 8, [True, 8])}, {"a": tensor(0.0, 8.0, [8])},
        {"a": tensor(0, 8, [float("nan")])}, {"a": tensor(0, 8, ["8"])}, {"a": tensor(-8, 0, [8])}, {"a": []},
        {"a": tensor(0, 8, [2**70])}, b"[" * 90_000,
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(tmp_path, entries):
    path = tmp_path / "model.safetensors"
    path.write_bytes(header(entries, 8))
    with pytest.raises(CheckpointError, match="model.safetensors is (damaged|cut)"):
        stored_tensors(path)


def test_empty_tensors_and_any_order_are_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(header({"b": tensor(4, 8), "none": tensor(4, 4), "a": tensor(0, 4), "end": tensor(8, 8)}, 8))
    assert {name: t[...].numel() for name, t in stored_tensors(path).items()} == {"a": 4, "b": 4, "none": 0, "end": 0}
    assert stored_tensors(path)["a"][...].dtype == torch.uint8
