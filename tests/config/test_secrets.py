"""Secrets are found by name, by place and by look; other text is left as it is."""

import pickle

import pytest

from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.secrets import HIDDEN, child_environment, redact, redact_file
from labkit.config.workspace import Workspace

VALUE = "s3cr3t/+value."
HUB = "hf_" + "Ab1" * 11


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "WANDB_API_KEY", "JUPYTER_TOKEN", "JUPYTERHUB_API_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD",
     "openai_apikey", "OS_APPLICATION_CREDENTIAL_SECRET", "MY_KEY"],
)  # fmt: skip
def test_a_variable_that_is_named_like_a_secret_is_one(name, monkeypatch):
    monkeypatch.setenv(name, VALUE)
    assert redact(f"cannot open https://x/{VALUE}/y") == f"cannot open https://x/{HIDDEN}/y"
    assert name not in child_environment()


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "KEYBOARD_LAYOUT", "PATH_OF_IT", "EDITOR"])
def test_other_variables_are_none(name, monkeypatch):
    monkeypatch.setenv(name, VALUE)
    assert redact(VALUE) == VALUE
    assert child_environment()[name] == VALUE


def test_the_place_of_a_key_file_and_a_short_value_are_left_in_text(monkeypatch, tmp_path):
    monkeypatch.setenv("SSH_KEY_FILE", str(tmp_path))
    monkeypatch.setenv("SOME_KEY", "adamw")
    assert redact(f"adamw in {tmp_path}/data") == f"adamw in {tmp_path}/data"
    assert child_environment()["SSH_KEY_FILE"] == str(tmp_path)
    assert "SOME_KEY" not in child_environment()


def test_of_two_secrets_of_which_one_is_part_of_the_other_nothing_is_left(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "abcdefgh")
    monkeypatch.setenv("B_TOKEN", "abcdefgh-ijkl")
    assert redact("abcdefgh-ijkl abcdefgh") == f"{HIDDEN} {HIDDEN}"


@pytest.mark.parametrize("place", ["HF_HOME", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "HOME"])
def test_the_token_file_of_the_hub_is_read_where_the_hub_reads_it(place, monkeypatch, tmp_path):
    for name in ("HF_HOME", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    below = {"HF_HOME": "token", "HF_TOKEN_PATH": "", "XDG_CACHE_HOME": "huggingface/token"}
    path = tmp_path / "it" / below.get(place, ".cache/huggingface/token")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{VALUE}\n")
    monkeypatch.setenv(place, str(tmp_path / "it"))
    assert redact(VALUE) == HIDDEN


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"token {HUB}, refused", f"token {HIDDEN}, refused"),
        ("http://h:8888/lab?token=abc123&x=1", f"http://h:8888/lab?token={HIDDEN}&x=1"),
        ("--IdentityProvider.token=abc", f"--IdentityProvider.token={HIDDEN}"),
        ("https://me:pass@host/x", f"https://{HIDDEN}@host/x"),
        ("Authorization: Bearer abc.def-ghi", f"Authorization: Bearer {HIDDEN}"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_once(text, clean):
    assert redact(text) == clean
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    ["num_query_tokens=32", "loss_average=tokens", "pad_token='<pad>'", "git@host:x/y", "hf_hub_download", "a/b@c",
     "https://host/x@y", "bearer of", ""],
)  # fmt: skip
def test_other_text_is_left_as_it_is(text):
    assert redact(text) == text


def test_json_keeps_its_form_and_numbers_that_are_a_secrets_digits(monkeypatch):
    monkeypatch.setenv("PIN_KEY", "12345678")
    data = {"n": 12345678, "in": [{"text": "12345678"}, ("12345678", None)], "12345678": True}
    assert redact(data) == {"n": 12345678, "in": [{"text": HIDDEN}, (HIDDEN, None)], HIDDEN: True}


def test_a_file_is_cleaned_whole_and_one_without_secrets_is_not_touched(monkeypatch, tmp_path):
    log = tmp_path / "log.txt"
    redact_file(log)
    log.write_bytes(f"a\r\n{HUB}\n\xff".encode("latin-1"))
    redact_file(log)
    assert log.read_bytes() == f"a\r\n{HIDDEN}\n\xff".encode("latin-1")
    before = log.stat()
    redact_file(log)
    assert log.stat() == before
    assert list(tmp_path.iterdir()) == [log]


def test_a_file_that_cannot_be_cleaned_is_not_left_with_its_secret(monkeypatch, tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(HUB)
    (tmp_path / ".log.txt.partial").mkdir()  # where the clean file would be written
    redact_file(log)
    assert not log.exists()


def test_a_config_with_a_secret_is_refused_without_saying_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", VALUE)
    folder = tmp_path / HUB
    folder.mkdir()
    for typed in ({"dataset": str(folder)}, {"model_name": f"x/{VALUE}"}, {"lora_targets": f"q_proj,{HUB}"},
                  {"lr": HUB}, {VALUE: "1"}):  # fmt: skip
        with pytest.raises(ConfigError) as error:
            resolve(Workspace.find(), "reduced_batch", typed)
        assert HIDDEN in str(error.value)
        assert VALUE not in str(error.value)
        assert HUB not in str(error.value)
    experiment = tmp_path / f"{HUB}.yaml"
    experiment.write_text("base: baseline\nbatch_size: 4\n")
    with pytest.raises(ConfigError, match="the experiment's name"):
        resolve(Workspace.find(), str(experiment))


def test_an_error_of_a_config_can_be_sent_between_processes():
    error = pickle.loads(pickle.dumps(ConfigError(f"lr={HUB!r}")))
    assert str(error) == f"lr='{HIDDEN}'"
