"""Data: the emoji in the package, folders in Hugging Face layouts, damaged files, and the loaders."""

import json
import os
import pickle
import sys
import zipfile

import datasets
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from labkit import assets
from labkit.config.datasets import DATASETS, FOOD, DatasetEntry
from labkit.config.errors import ConfigError
from labkit.config.schema import RunConfig
from labkit.train.data import DataError, EmojiZip, FolderDataset, build_loader, check_folder, load_samples, packaged

COLOURS = ["red", "green", "blue", "black"]


def config(**keys):
    return RunConfig(
        model_name="tiny/blip2-opt-small", capacity_gib=1, **({"num_workers": 0, "weights": "random"} | keys)
    )


def write_zip(path, rows=3, data=None):
    """A small zip in the layout of the package's; ``data`` stands for the first image."""
    with zipfile.ZipFile(path, "w") as archive:
        names = [f"images/{i}.png" for i in range(rows)]
        lines = [json.dumps({"file_name": name, "text": f"picture {name}"}) for name in names]
        archive.writestr("metadata.jsonl", "\n".join(lines), zipfile.ZIP_DEFLATED)
        for i, name in enumerate(names):
            with archive.open(name, "w") as member:
                if i == 0 and data is not None:
                    member.write(data)
                else:
                    Image.new("RGB", (4, 4), COLOURS[i]).save(member, "PNG")
    return path


def read_all(path):
    samples = EmojiZip(path)
    return [samples[i] for i in range(len(samples))]


def as_bytes(samples):
    return [(image.tobytes(), caption) for image, caption in samples]


@pytest.mark.slow
def test_the_package_has_1852_emoji_of_64_px_with_english_names():
    emoji = EmojiZip(assets.FLUENT_EMOJI)
    assert len(emoji) == 1852
    samples = [emoji[i] for i in range(len(emoji))]
    assert {(image.mode, image.size) for image, _ in samples} == {("RGB", (64, 64))}
    assert all(caption.startswith("a 3d render of ") for _, caption in samples)
    assert len({caption for _, caption in samples}) > 1800
    assert len({image.tobytes() for image, _ in samples}) > 1800
    assert "a 3d render of red apple" in {caption for _, caption in samples}


@pytest.mark.slow
def test_food_and_the_rest_are_the_whole_without_one_missing_or_twice():
    whole, food, rest = (packaged(f"fluent_emoji{part}") for part in ("", "_food", "_rest"))
    assert (len(food), len(rest)) == (128, 1724)
    names = [row["file_name"] for row in food.rows + rest.rows]
    assert sorted(names) == sorted(row["file_name"] for row in whole.rows)
    assert {row["group"] for row in food.rows} == {FOOD}
    assert FOOD not in {row["group"] for row in rest.rows}
    place = [row["file_name"] for row in whole.rows].index(food.rows[5]["file_name"])
    assert as_bytes([food[5]]) == as_bytes([whole[place]])


def test_no_caption_of_food_is_another_pictures():
    texts = [row["text"] for row in packaged("fluent_emoji").rows]
    assert all(texts.count(row["text"]) == 1 for row in packaged("fluent_emoji_food").rows)


@pytest.mark.parametrize(("name", "size"), [("fluent_emoji_food", 128), ("fluent_emoji_rest", 1724)])
def test_a_run_can_be_trained_on_a_part(tmp_path, name, size):
    train, _ = load_samples(config(dataset=name, num_train_samples=None), tmp_path)
    assert len(train) == size
    whole = {row["text"] for row in packaged(name).rows}
    assert {train[i][1] for i in (0, size // 2, size - 1)} <= whole


def test_rows_without_a_group_belong_to_what_asks_for_none(tmp_path):
    path = write_zip(tmp_path / "small.zip")
    assert len(EmojiZip(path, DATASETS["fluent_emoji"])) == len(EmojiZip(path)) == 3
    assert len(EmojiZip(path, DatasetEntry("other", "", "", without=("a",)))) == 3
    assert len(EmojiZip(path, DatasetEntry("some", "", "", groups=("a",)))) == 0


def test_the_zip_carries_the_licences_of_both_sources():
    with zipfile.ZipFile(assets.FLUENT_EMOJI) as archive:
        notice = archive.read("LICENSE").decode()
        assert archive.testzip() is None
    assert "Copyright (c) Microsoft Corporation" in notice
    assert "Copyright (c) 2019 Mu-An Chiou" in notice
    assert notice.count("Permission is hereby granted, free of charge") == 2
    assert assets.FLUENT_EMOJI.with_name("NOTICE").read_text(encoding="utf-8") == notice


def test_a_missing_zip_is_named(tmp_path):
    with pytest.raises(DataError, match="gone.zip is missing"):
        EmojiZip(tmp_path / "gone.zip")


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_zip_is_named(tmp_path, kept):
    whole = assets.FLUENT_EMOJI.read_bytes()
    path = tmp_path / "short.zip"
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match="short.zip is damaged"):
        EmojiZip(path)


def test_a_folder_in_place_of_the_zip_is_named(tmp_path):
    with pytest.raises(DataError, match=tmp_path.name):
        EmojiZip(tmp_path)


def test_a_zip_without_metadata_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "bare.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(DataError, match="bare.zip is damaged"):
        EmojiZip(tmp_path / "bare.zip")


def test_a_damaged_image_is_named_and_the_others_are_read(tmp_path):
    path = write_zip(tmp_path / "small.zip", data=b"x" * 100)
    path.write_bytes(path.read_bytes().replace(b"x" * 100, b"x" * 99 + b"y"))
    samples = EmojiZip(path)
    assert samples[1][1] == "picture images/1.png"
    with pytest.raises(DataError, match=r"small.zip is damaged at images/0.png"):
        samples[0]


def test_a_member_that_is_no_image_is_named(tmp_path):
    samples = EmojiZip(write_zip(tmp_path / "small.zip", data=b"this is text"))
    with pytest.raises(DataError, match=r"small.zip is damaged at images/0.png"):
        samples[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # zipfile may warn about what a changed byte says
def test_no_changed_byte_of_a_zip_raises_anything_but_a_data_error(tmp_path):
    whole = write_zip(tmp_path / "whole.zip", rows=2).read_bytes()
    path, right = tmp_path / "changed.zip", as_bytes(read_all(tmp_path / "whole.zip"))
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert as_bytes(read_all(path)) == right, f"byte {place} gives other samples without an error"
        except DataError as error:
            assert "changed.zip" in str(error)
            refused += 1
    assert refused > len(whole) / 2


def test_a_zip_that_goes_away_during_the_run_is_named(tmp_path):
    path = write_zip(tmp_path / "small.zip")
    samples = EmojiZip(path)
    path.unlink()
    with pytest.raises(DataError, match="small.zip"):
        samples[0]


def test_the_zip_can_be_pickled_also_after_reading():
    emoji = EmojiZip(assets.FLUENT_EMOJI)
    first = emoji[0]
    again = pickle.loads(pickle.dumps(emoji))
    assert as_bytes([again[0]]) == as_bytes([first])


@pytest.mark.slow
@pytest.mark.parametrize("opened_before", [False, True])
def test_two_loader_workers_read_what_one_process_reads(opened_before):
    emoji = EmojiZip(assets.FLUENT_EMOJI)
    right = as_bytes(emoji[i] for i in range(len(emoji)))  # and leaves it open when the workers are forked
    if not opened_before:
        emoji = EmojiZip(assets.FLUENT_EMOJI)
    loader = DataLoader(emoji, batch_size=4, num_workers=2, collate_fn=as_bytes, multiprocessing_context="fork")
    assert [sample for batch in loader for sample in batch] == right


def two_columns(**others):
    images = [Image.new("RGB", (8, 8), colour) for colour in COLOURS]
    columns = {"image": images, "text": [f"a {colour} square" for colour in COLOURS]}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()).rename_columns(others)


@pytest.mark.parametrize("splits", [False, True])
def test_a_folder_of_save_to_disk_is_read(tmp_path, splits):
    saved = two_columns()
    if splits:
        saved = datasets.DatasetDict({"test": saved.select([0]), "train": saved})
    saved.save_to_disk(tmp_path / "saved")
    samples = FolderDataset(tmp_path / "saved")
    assert len(samples) == 4
    assert [samples[i][1] for i in range(4)] == ["a red square", "a green square", "a blue square", "a black square"]
    assert [samples[i][0].getpixel((0, 0)) for i in (0, 2)] == [(255, 0, 0), (0, 0, 255)]


def image_folder(folder, key="text"):
    folder.mkdir()
    lines = []
    for colour in COLOURS:
        Image.new("RGBA", (8, 8), colour).save(folder / f"{colour}.png")
        lines.append(json.dumps({"file_name": f"{colour}.png", key: f"a {colour} square"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_an_image_folder_with_metadata_is_read(tmp_path):
    samples = FolderDataset(image_folder(tmp_path / "squares"))
    assert {caption: image.getpixel((0, 0)) for image, caption in samples} == {
        "a red square": (255, 0, 0), "a green square": (0, 128, 0), "a blue square": (0, 0, 255),
        "a black square": (0, 0, 0),
    }  # fmt: skip
    assert {image.mode for image, _ in samples} == {"RGB"}


def test_a_folder_of_the_user_can_be_trained_on(tmp_path):
    image_folder(tmp_path / "squares")
    for name in (str(tmp_path / "squares"), "squares"):
        train, _ = load_samples(config(dataset=name, batch_size=4), tmp_path)
        assert {caption for _, caption in train} == {f"a {colour} square" for colour in COLOURS}


def test_wrong_columns_are_named_with_what_is_missing(tmp_path):
    two_columns(text="caption").save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"saved has columns .*caption.* lacks \['text'\]"):
        FolderDataset(tmp_path / "saved")
    with pytest.raises(DataError, match=r"lacks \['text'\]"):
        FolderDataset(image_folder(tmp_path / "squares", key="caption"))


def test_a_folder_without_the_library_that_reads_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"datasets is not installed: pip install 'labkit\[gpu\]'$"):
        FolderDataset(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="nothing cannot be read"):
        FolderDataset(tmp_path / "nothing")


def test_a_folder_is_checked_by_reading_it_as_a_run_does(tmp_path):
    two_columns().save_to_disk(tmp_path / "whole")
    assert check_folder(tmp_path / "whole") == 4
    two_columns().select([]).save_to_disk(tmp_path / "none")
    names = datasets.Dataset.from_dict({"image": ["red.png"], "text": ["a red square"]})
    names.save_to_disk(tmp_path / "names")
    for name, words in (("none", "none cannot be read"), ("names", "row 0 .* holds no image")):
        with pytest.raises(DataError, match=words):
            check_folder(tmp_path / name)


def test_splits_without_a_train_split_are_named(tmp_path):
    datasets.DatasetDict({"test": two_columns()}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="saved.*train"):
        FolderDataset(tmp_path / "saved")


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_data_file_is_named(tmp_path, kept):
    two_columns().save_to_disk(tmp_path / "saved")
    table = next((tmp_path / "saved").glob("*.arrow"))
    table.write_bytes(table.read_bytes()[:kept])
    with pytest.raises(DataError, match="saved cannot be read"):
        FolderDataset(tmp_path / "saved")


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_a_damaged_description_is_named(tmp_path, name):
    two_columns().save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / name).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="saved cannot be read"):
        FolderDataset(tmp_path / "saved")


def test_a_damaged_image_in_a_folder_is_named(tmp_path):
    folder = image_folder(tmp_path / "squares")
    (folder / "green.png").write_bytes(b"no image")
    samples = FolderDataset(folder)
    with pytest.raises(DataError, match="squares holds no image"):
        [samples[i] for i in range(4)]


def test_a_row_without_a_caption_is_named(tmp_path):
    features = datasets.Features(image=datasets.Image(), text=datasets.Value("string"))
    rows = {"image": [Image.new("RGB", (8, 8))], "text": [None]}
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="row 0 of the data set in .*saved"):
        FolderDataset(tmp_path / "saved")[0]


def test_a_data_set_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="neither a registered name"):
        load_samples(config(dataset="fluent_emojis"), tmp_path)


def drawn(tmp_path, **keys):
    train, held_out = load_samples(config(**keys), tmp_path)
    return train.indices, held_out and held_out.indices


def test_the_seed_decides_the_samples(tmp_path):
    assert drawn(tmp_path, seed=1) == drawn(tmp_path, seed=1)
    assert drawn(tmp_path, seed=1) != drawn(tmp_path, seed=2)


def test_num_train_samples_cuts_and_empty_takes_all(tmp_path):
    train, held_out = drawn(tmp_path, num_train_samples=100)
    assert (len(train), len(set(train)), held_out) == (100, 100, None)
    assert sorted(drawn(tmp_path, num_train_samples=None)[0]) == list(range(1852))
    assert len(drawn(tmp_path, num_train_samples=5000)[0]) == 1852


@pytest.mark.parametrize("val_fraction", [0.1, 0.25, 0.5])
def test_held_out_samples_are_not_trained_on(tmp_path, val_fraction):
    train, held_out = drawn(tmp_path, num_train_samples=200, val_fraction=val_fraction)
    assert len(held_out) == 200 * val_fraction
    assert not set(train) & set(held_out)
    assert sorted(train + held_out) == sorted(drawn(tmp_path, num_train_samples=200)[0])


def test_too_few_samples_for_one_batch_are_refused(tmp_path):
    assert len(drawn(tmp_path, num_train_samples=64, batch_size=64)[0]) == 64
    with pytest.raises(DataError, match="63 training samples do not fill one batch of batch_size=64"):
        load_samples(config(num_train_samples=63, batch_size=64), tmp_path)
    with pytest.raises(DataError, match="54 training samples"):
        load_samples(config(num_train_samples=60, val_fraction=0.1, batch_size=64), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_drops_the_last_smaller_batch_and_validation_keeps_it(num_workers):
    samples, keys = list(range(20)), config(batch_size=8, num_workers=num_workers)
    train = [len(batch) for batch in build_loader(keys, samples, list, train=True)]
    validation = [batch for batch in build_loader(keys, samples, list, train=False)]
    assert train == [8, 8]
    assert [len(batch) for batch in validation] == [8, 8, 4]
    assert sum(validation, []) == samples


def epochs_of(loader) -> list[list[int]]:
    """The first batch of the first two epochs, as Lightning asks for them."""
    found = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        found.append(next(iter(loader)))
    return found


def test_training_shuffles_by_the_seed_again_in_every_epoch():
    samples = list(range(64))
    first, again, other = (build_loader(config(batch_size=64, seed=s), samples, list, train=True) for s in (1, 1, 2))
    epochs = epochs_of(first)
    assert sorted(epochs[0]) == sorted(epochs[1]) == samples
    assert epochs[0] != epochs[1]
    assert epochs[0] not in (samples, epochs_of(other)[0])
    assert epochs == epochs_of(again)


@pytest.mark.parametrize("done_batches", [0, 1, 3])
def test_a_loader_that_resumes_gives_what_is_left_of_the_epoch_and_then_whole_ones(done_batches):
    samples, keys = list(range(64)), config(batch_size=16, seed=1)
    whole = build_loader(keys, samples, list, train=True)
    rest = build_loader(keys, samples, list, train=True, first_epoch=1, done_batches=done_batches)
    whole.sampler.set_epoch(1)
    rest.sampler.set_epoch(1)
    assert list(rest) == list(whole)[done_batches:]
    assert len(rest) == len(whole)
    for loader in (whole, rest):
        loader.sampler.set_epoch(2)
    assert list(rest) == list(whole)


def test_the_order_of_samples_does_not_depend_on_the_batch_size():
    samples = list(range(64))
    whole, parts = (build_loader(config(batch_size=size), samples, list, train=True) for size in (64, 16))
    assert sum(parts, []) == sum(whole, [])


def test_a_pipe_in_a_folder_of_data_stops_no_one(tmp_path):
    folder = image_folder(tmp_path / "squares")
    os.mkfifo(folder / "more.csv")
    with pytest.raises(DataError, match=r"has more.csv, which is not a file"):
        FolderDataset(folder)


def test_code_and_pickles_in_a_folder_of_data_are_not_run(tmp_path):
    marker = tmp_path / "marker"
    folder = image_folder(tmp_path / "squares")
    (folder / "other.py").write_text(f"open({str(marker)!r}, 'w')\n")
    for name in ("rows.pkl", "rows.npy", "rows.pt", "state.bin"):
        (folder / name).write_bytes(b"cposix\nsystem\n(S'touch " + bytes(marker) + b"'\ntR.")
    FolderDataset(folder)
    (folder / "other.py").rename(folder / "squares.py")  # once the name of a script that made the data
    with pytest.raises(DataError, match=r"cannot be read: .*squares.py"):
        FolderDataset(folder)
    assert not marker.exists()
