"""Weights: what is saved is what is loaded, in any dtype and from any shards, and what is wrong is said."""

import hashlib
import json
import shutil

import pytest
import safetensors.torch
import torch
from bitsandbytes.functional import dequantize_4bit
from checkpoint_errors import error_of
from folders import NAMES, save_tiny, write_large
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AddedToken, Blip2Config, Blip2Processor

from labkit import assets
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.inputs import Collator
from labkit.memory.tracker import Tracker
from labkit.train.adapters import add_lora
from labkit.train.build import build_model
from labkit.train.data import EmojiZip
from labkit.train.shards import stored_tensors
from labkit.train.step import step_loss
from labkit.train.weights import find_weights, load_model, load_processor, verify

torch.set_num_threads(1)

both = pytest.mark.parametrize("language", ["opt", "t5"])
DTYPES = {"32-true": torch.float32, "bf16-true": torch.bfloat16, "16-true": torch.float16}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Both backbones, saved whole and in shards, and the models that were saved."""
    root = tmp_path_factory.mktemp("saved")
    models = {language: save_tiny(root / language, language) for language in NAMES}
    for language, model in models.items():
        shutil.copytree(root / language, root / f"{language}-shards", ignore=shutil.ignore_patterns("*.safetensors"))
        model.save_pretrained(root / f"{language}-shards", max_shard_size="4MB")
    assert len(list((root / "opt-shards").glob("model-*.safetensors"))) > 2
    return root, models


@pytest.fixture
def folder(saved, tmp_path, request):
    """A copy of a folder that a test may damage; OPT in shards unless the test asks for another."""
    return shutil.copytree(saved[0] / getattr(request, "param", "opt-shards"), tmp_path / "checkpoint")


def config(folder, precision="32-true", **keys):
    # half precision is refused for the simulated GPU
    device = {"device": "cuda"} if precision.startswith("16") else {"capacity_gib": 1}
    return RunConfig(model_name=str(folder), precision=precision, **({"optim": "sgd"} | device | keys))


def batch_of(processor, model, samples=3):
    emoji = EmojiZip(assets.FLUENT_EMOJI)
    language = model.config.text_config.model_type
    collate = Collator(processor, language, 12, model.config.num_query_tokens, model.config.image_token_id)
    return collate([emoji[i] for i in range(samples)])


# -- what is saved is what is loaded


@pytest.mark.slow
@both
@pytest.mark.parametrize("shards", ["", "-shards"])
@pytest.mark.parametrize("precision", DTYPES)
def test_every_weight_is_the_saved_one_in_the_dtype_of_the_run(saved, language, shards, precision):
    root, models = saved
    model = load_model(config(root, precision), root / f"{language}{shards}", "cpu")
    expected, found = models[language].state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        assert torch.equal(found[key], weight.to(DTYPES[precision])), key
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.slow
@both
@pytest.mark.parametrize("file_dtype", [torch.bfloat16, torch.float16])
def test_a_file_in_half_precision_is_widened(tmp_path, language, file_dtype):
    model = save_tiny(tmp_path / "half", language, dtype=file_dtype)
    loaded = load_model(config(tmp_path), tmp_path / "half", "cpu")
    for key, weight in loaded.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, model.state_dict()[key].float()), key


@pytest.mark.slow
@both
def test_parameters_own_their_memory_and_can_be_trained(saved, language):
    root, _ = saved
    model = load_model(config(root), root / language, "cpu").train()
    for key, parameter in model.named_parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes, key
    batch = batch_of(load_processor(root / language, model.config), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = step_loss(model, batch)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    verify(root / language)  # the file is not what was trained
    again = load_model(config(root), root / language, "cpu")
    assert not torch.equal(again.query_tokens, model.query_tokens)


@pytest.mark.slow
@both
def test_the_loss_is_that_of_the_saved_model(saved, language):
    root, models = saved
    model = load_model(config(root), root / f"{language}-shards", "cpu")
    batch = batch_of(load_processor(root / language, model.config), model)
    with torch.no_grad():
        assert step_loss(model, batch)[0] == step_loss(models[language], batch)[0]


def test_t5_keeps_an_output_layer_of_its_own_also_where_it_equals_the_embedding(saved, tmp_path):
    root, _ = saved
    same = shutil.copytree(root / "t5", tmp_path / "same")
    tensors = safetensors.torch.load_file(same / "model.safetensors")
    tensors["language_model.lm_head.weight"] = tensors["language_model.shared.weight"].clone()
    safetensors.torch.save_file(tensors, same / "model.safetensors", {"format": "pt"})
    for folder in (root / "t5", same):
        model = load_model(config(root), folder, "cpu")
        assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
        for owner in (model, model.language_model):
            assert not [key for key in owner.all_tied_weights_keys if key.endswith("lm_head.weight")]


def test_opt_shares_its_output_layer(saved):
    model = load_model(config(saved[0]), saved[0] / "opt", "cpu")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.slow
@both
def test_the_dropout_key_reaches_a_loaded_model_as_it_does_a_random_one(saved, language):
    def rates(model):
        found = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
        for name, module in model.named_modules():
            found |= {(name, k): v for k, v in vars(module).items() if "dropout" in k and isinstance(v, float)}
        return found

    root, _ = saved
    for dropout in (None, 0.3):
        loaded = load_model(config(root, dropout=dropout), root / language, "cpu")
        random = build_model(config(NAMES[language], weights="random", dropout=dropout), "cpu")
        assert rates(loaded) == rates(random)


def test_a_tracker_sees_the_parameters_and_nothing_more(saved):
    root, _ = saved
    with Tracker() as tracker:
        model = load_model(config(root), root / "opt-shards", "cpu")
    rounded = sum(-(-p.nbytes // 512) * 512 for p in model.parameters())
    assert rounded <= tracker.allocated_bytes <= rounded + 4096
    largest = max(p.nbytes for p in model.parameters())
    assert tracker.peak_bytes <= rounded + largest


@pytest.mark.slow
@pytest.mark.parametrize("use_qlora", [False, True])
def test_a_device_that_is_too_small_is_out_of_memory_at_any_layer(saved, use_qlora):
    root, _ = saved
    run = config(root, "bf16-true", use_qlora=use_qlora)
    with Tracker() as tracker:
        load_model(run, root / "opt", "cpu")
    for capacity_bytes in range(tracker.peak_bytes // 20, tracker.peak_bytes - 10**5, tracker.peak_bytes // 20):
        with pytest.raises(torch.OutOfMemoryError), Tracker(capacity_bytes):
            load_model(run, root / "opt", "cpu")


@pytest.mark.slow
@both
@pytest.mark.parametrize("double_quant", [False, True])
def test_qlora_loads_in_4_bits_what_a_random_model_has_in_4_bits(saved, language, double_quant):
    root, models = saved
    keys = {"use_qlora": True, "double_quant": double_quant}
    loaded = load_model(config(root, "bf16-true", **keys), root / f"{language}-shards", "cpu")
    random = build_model(config(NAMES[language], "bf16-true", weights="random", **keys), "cpu")
    kinds = {name: (p.dtype, p.shape) for name, p in loaded.named_parameters()}
    assert kinds == {name: (p.dtype, p.shape) for name, p in random.named_parameters()}
    assert torch.uint8 in {dtype for dtype, _ in kinds.values()}
    errors = []
    for name, parameter in loaded.named_parameters():
        expected = models[language].get_parameter(name)
        state = getattr(parameter, "quant_state", None)
        if state is None:
            assert torch.equal(parameter, expected.bfloat16()), name
            continue
        assert state.nested == double_quant
        if expected.shape[1] % 64:
            continue  # bitsandbytes 0.50.2 reads such rows back wrongly on a CPU; the stored bytes are right
        errors.append(((dequantize_4bit(parameter, state).float() - expected).std() / expected.std()).item())
    assert 0 < max(errors) < 0.15  # 4 bits
    model = add_lora(loaded, config(root / f"{language}-shards", "bf16-true", **keys)).train()
    loss = step_loss(model, batch_of(load_processor(root / language, loaded.config), loaded))[0]
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reader_agrees_with_safetensors(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("labkit.train.shards.BUFFER_BYTES", 64)  # many pieces, the last one short
    tensors = {
        "scalar": torch.tensor(3.5), "empty": torch.empty(0, 4), "odd": torch.randn(7, 13).bfloat16(),
        "half": torch.randn(33).half(), "double": torch.randn(5, 3, 2).double(), "whole": torch.arange(50),
        "flags": torch.tensor([True, False]), "same": torch.randn(101).to(dtype),
    }  # fmt: skip
    path = tmp_path / "all.safetensors"
    safetensors.torch.save_file(tensors, path)
    stored = stored_tensors(path, dtype)
    assert stored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        expected = tensor.to(dtype) if tensor.is_floating_point() else tensor
        found = stored[name][...]
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected), name
    with pytest.raises(TypeError):
        stored["odd"][0]


@pytest.mark.slow
def test_the_large_folders_of_the_memory_test_are_ones_that_safetensors_reads(tmp_path):
    write_large(tmp_path / "large", torch.bfloat16, 10**8, 2)
    for path in (tmp_path / "large").glob("*.safetensors"):
        stored = stored_tensors(path, torch.bfloat16)
        with safetensors.safe_open(path, "pt") as file:
            for name in list(file.keys())[:20]:
                assert torch.equal(stored[name][...], file.get_tensor(name))


# -- where it is looked for


def test_a_folder_is_its_own_checkpoint_and_a_stand_in_has_none(saved):
    assert find_weights(str(saved[0] / "opt")) == saved[0] / "opt"
    assert "weights=random" in error_of(find_weights, "tiny/blip2-t5-large")
    assert find_weights("tiny/blip2-opt-base") == assets.BASE


def test_a_hub_name_is_looked_for_in_the_shared_cache_and_never_fetched(tmp_path, monkeypatch):
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    if hasattr(file_download, "HF_HUB_CACHE"):
        monkeypatch.setattr(file_download, "HF_HUB_CACHE", str(tmp_path))
    name = "Salesforce/blip2-opt-2.7b"
    line = error_of(find_weights, name)
    assert str(tmp_path) in line
    assert f"labkit fetch {name}" in line
    repository = tmp_path / "models--Salesforce--blip2-opt-2.7b"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert find_weights(name) == snapshot
    assert f"labkit fetch {name}" in error_of(verify, snapshot)  # an interrupted download


# -- what is wrong with it


@pytest.mark.parametrize("name", ["config.json", "model-00002-of-00005.safetensors", "tokenizer.json",
                                  "processor_config.json"])  # fmt: skip
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    line = error_of(verify, folder)
    assert name in line
    assert str(folder) in line


def test_missing_weights_are_named_also_where_only_pickles_are(folder):
    for path in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        path.unlink()
    assert "model.safetensors" in error_of(verify, folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert "*.bin" in error_of(verify, folder)


def cut(data):
    return data[:-100]


def nearly_nothing(data):
    return data[:5]


def longer(data):
    return data + b"\0\0"


def huge_header(data):
    return b"\xff" * 8 + data[8:]


def no_json(data):
    return data[:8] + b"?" * 20 + data[28:]


def other_shape(data):
    return data.replace(b'"shape":[320]', b'"shape":[319]', 1)


@pytest.mark.parametrize("damage", [cut, nearly_nothing, longer, huge_header, no_json, other_shape])
def test_a_damaged_shard_is_named_before_anything_is_loaded(folder, damage):
    path = folder / "model-00003-of-00005.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert path.name in error_of(load_model, config(folder), folder, "cpu")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"weight_map": 3}', '{"metadata": {}}'])
def test_an_index_that_is_none_is_named(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in error_of(verify, folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "processor_config.json", "tokenizer_config.json"])
def test_a_cut_json_file_is_named(folder, name):
    text = (folder / name).read_text()
    (folder / name).write_text(text[: len(text) // 2])
    assert name in error_of(verify, folder)


def test_checksums_are_held_against_every_file_they_name(folder):
    def digest(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    names = sorted(path.name for path in folder.iterdir())
    (folder / "SHA256SUMS").write_text("".join(f"{digest(folder / name)}  {name}\n" for name in names))
    verify(folder)
    path = folder / "model-00001-of-00005.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    line = error_of(verify, folder)
    assert path.name in line
    assert "sha256" in line
    (folder / "tokenizer_config.json").unlink()
    data[-1] ^= 1
    path.write_bytes(data)
    assert "tokenizer_config.json" in error_of(verify, folder)


def rewrite(folder, change):
    """Change the tensors of a folder that has one file."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["opt", "t5"], indirect=True)
@pytest.mark.parametrize("use_qlora", [False, True])
def test_missing_weights_are_never_drawn_at_random(folder, use_qlora):
    name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    rewrite(folder, lambda tensors: tensors.pop(name))
    line = error_of(load_model, config(folder, "bf16-true", use_qlora=use_qlora), folder, "cpu")
    assert name in line
    rewrite(folder, lambda tensors: [tensors.pop(k) for k in list(tensors) if k.startswith("qformer.encoder.layer.1")])
    assert "more" in error_of(load_model, config(folder), folder, "cpu")


@pytest.mark.parametrize("folder", ["t5"], indirect=True)
def test_the_embedding_does_not_stand_in_for_a_missing_output_layer_of_t5(folder):
    rewrite(folder, lambda tensors: tensors.pop("language_model.lm_head.weight"))
    assert "language_model.lm_head.weight" in error_of(load_model, config(folder), folder, "cpu")


@pytest.mark.parametrize("folder", ["opt", "t5"], indirect=True)
def test_weights_of_another_shape_are_named_with_both_shapes(folder):
    name = "language_projection.weight"
    shapes = []

    def narrow(tensors):
        shapes.append(list(tensors[name].shape))
        tensors[name] = tensors[name][:-1].clone()

    rewrite(folder, narrow)
    line = error_of(load_model, config(folder), folder, "cpu")
    assert name in line
    assert str(shapes[0]) in line
    assert str([shapes[0][0] - 1, shapes[0][1]]) in line


# -- model and processor belong together


def edit(path, **values):
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | values))


@both
def test_a_processor_is_accepted_with_its_own_model(saved, language):
    root, models = saved
    processor = load_processor(root / language, Blip2Config.from_pretrained(root / language))
    assert isinstance(processor, Blip2Processor)
    assert processor.num_query_tokens == models[language].config.num_query_tokens


def test_opt_and_t5_do_not_take_each_others_tokenizer(saved, tmp_path):
    root, _ = saved
    for language, other in (("opt", "t5"), ("t5", "opt")):
        line = error_of(load_processor, root / other, Blip2Config.from_pretrained(root / language))
        assert str(root / other) in line
        assert "tokenizer" in line
        assert "an empty text" in line


def text_changes(**values):
    return {"text_config": values}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (text_changes(pad_token_id=7), "pads"),
        (text_changes(bos_token_id=7), "[7]"),
        (text_changes(vocab_size=900), "900"),
        ({"image_token_index": 50}, "ordinary word"),
        ({"image_token_index": 5000}, "5000"),
    ],
    ids=["pad", "start", "more tokens than rows", "placeholder is a word", "placeholder without a row"],
)
def test_a_wrong_tokenizer_is_refused_with_the_difference(saved, changes, said):
    model_config = Blip2Config.from_pretrained(saved[0] / "opt")
    for key, value in changes.items():
        if key == "text_config":
            for inner, number in value.items():
                setattr(model_config.text_config, inner, number)
        else:
            setattr(model_config, key, value)
    assert said in error_of(load_processor, saved[0] / "opt", model_config)


def test_what_differs_in_real_checkpoints_is_no_reason_to_refuse(saved):
    model_config = Blip2Config.from_pretrained(saved[0] / "opt")
    model_config.text_config.eos_token_id = 50118  # Salesforce's OPT models say so, their tokenizer ends with 2
    model_config.text_config.vocab_size = 1024  # rows are padded to a round number
    processor = load_processor(saved[0] / "opt", model_config)
    assert processor.tokenizer.eos_token_id != 50118
    assert model_config.image_token_index == processor.tokenizer.convert_tokens_to_ids("<image>")


def without_placeholder(folder):
    """Take ``<image>`` out of the tokenizer, as in processors that older releases saved."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    index = data["model"]["vocab"].pop("<image>")
    data["model"]["vocab"]["<unused>"] = index
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "<image>"]
    path.write_text(json.dumps(data))
    edit(folder / "processor_config.json", num_query_tokens=None)


def test_an_open_placeholder_is_taken_from_the_tokenizer(folder):
    model_config = Blip2Config.from_pretrained(folder)
    model_config.image_token_index = None
    load_processor(folder, model_config)
    assert model_config.image_token_index == 4


def test_an_open_placeholder_takes_a_spare_row_of_the_embedding(folder):
    without_placeholder(folder)
    model_config = Blip2Config.from_pretrained(folder)
    model_config.image_token_index = None
    assert "row for the placeholder" in error_of(load_processor, folder, model_config)
    model_config.image_token_index = None
    model_config.text_config.vocab_size = 1024
    processor = load_processor(folder, model_config)
    assert model_config.image_token_index == 1000
    assert processor.tokenizer.convert_ids_to_tokens(1000) == "<image>"


@pytest.mark.parametrize("folder", ["opt", "t5"], indirect=True)
def test_a_processor_that_inserts_no_placeholders_gives_batches_that_have_them(folder):
    edit(folder / "processor_config.json", num_query_tokens=None)
    model = load_model(config(folder), folder, "cpu")
    processor = load_processor(folder, model.config)
    assert processor.num_query_tokens is None
    plain = processor(images=Image.new("RGB", (56, 56)), text="a red apple", return_tensors="pt")
    assert (plain["input_ids"] == model.config.image_token_id).sum() == 0
    batch = batch_of(processor, model)
    placeholders = (batch["input_ids"] == model.config.image_token_id).sum(1)
    assert placeholders.tolist() == [model.config.num_query_tokens] * 3
    with torch.no_grad():
        loss = step_loss(model, batch)[0]
        other = step_loss(model, batch | {"pixel_values": batch["pixel_values"].flip(0)})[0]
    assert loss != other


def test_a_processor_of_the_older_layout_is_read(saved, tmp_path):
    """Older releases wrote preprocessor_config.json; Salesforce's checkpoints have it."""
    folder = shutil.copytree(saved[0] / "opt", tmp_path / "old")
    data = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(data["image_processor"]))
    verify(folder)
    model_config = Blip2Config.from_pretrained(folder)
    processor = load_processor(folder, model_config)
    assert processor.num_query_tokens is None
    assert processor.image_processor.size["height"] == architecture(NAMES["opt"]).image_px


def test_a_word_more_than_the_embedding_has_rows_is_refused(folder):
    processor = Blip2Processor.from_pretrained(folder)
    processor.tokenizer.add_tokens([AddedToken("<new>", special=True)])
    processor.save_pretrained(folder)
    assert "1001 tokens" in error_of(load_processor, folder, Blip2Config.from_pretrained(folder))


# -- as real checkpoints have it


@pytest.mark.parametrize("kept", ["both", "lm_head", "embed_tokens"])
@pytest.mark.parametrize("folder", ["opt"], indirect=True)
def test_a_shared_layer_may_be_stored_under_either_name_or_both(saved, folder, kept):
    head, table = "language_model.lm_head.weight", "language_model.model.decoder.embed_tokens.weight"

    def change(tensors):
        tensors["qformer.embeddings.position_ids"] = torch.arange(512)[None]  # old files have it, models do not
        if kept != "embed_tokens":
            tensors[head] = tensors[table].clone()
        if kept == "lm_head":
            del tensors[table]

    rewrite(folder, change)
    model = load_model(config(folder), folder, "cpu")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert torch.equal(model.state_dict()[head], saved[1]["opt"].state_dict()[head])


def test_the_tokenizer_files_that_salesforce_has_for_opt_are_read(folder):
    """GPT-2's two files, one mark for start and end, and a config.json that leaves the placeholder open."""
    (folder / "tokenizer.json").unlink()
    (folder / "processor_config.json").unlink()
    vocab = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocab |= {c: i for i, c in enumerate(sorted(ByteLevel.alphabet()), 4)}
    mark = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    marks = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    tokenizer = {key: mark | {"content": content} for key, content in marks.items()}
    tokenizer |= {"add_bos_token": True, "errors": "replace", "tokenizer_class": "GPT2Tokenizer"}
    images = {
        "image_processor_type": "BlipImageProcessor", "processor_class": "Blip2Processor", "do_resize": True,
        "size": {"height": 56, "width": 56}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
    }  # fmt: skip
    (folder / "merges.txt").write_text("#version: 0.2\n")
    for name, data in (
        ("vocab.json", vocab), ("tokenizer_config.json", tokenizer), ("preprocessor_config.json", images)
    ):  # fmt: skip
        (folder / name).write_text(json.dumps(data))
    edit(folder / "config.json", image_token_index=None)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(folder / "config.json", text_config=text | {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 50118})
    model = load_model(config(folder), folder, "cpu")
    processor = load_processor(folder, model.config)
    assert model.config.image_token_index == model.config.image_token_id == len(vocab)
    batch = batch_of(processor, model)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids[:, :9].tolist() == [[len(vocab)] * 8 + [2]] * 3
    assert all(row[m == 1][-1] == 2 and (row[m == 0] == 1).all() for row, m in zip(ids, mask, strict=True))
    step_loss(model, batch)[0].backward()
    assert model.vision_model.embeddings.patch_embedding.weight.grad.abs().sum() > 0
