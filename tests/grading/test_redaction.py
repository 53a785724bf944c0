"""No secret is in an archive: made-up ones of every kind, in sources, outputs, logs and records."""

import base64
import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.config.secrets import HIDDEN
from labkit.config.workspace import Workspace
from labkit.grading.archive import read_archive
from labkit.grading.redaction import Redaction
from labkit.grading.submit import gather, submit

ALNUM, HEX, UPPER = string.ascii_letters + string.digits, "0123456789abcdef", string.ascii_uppercase + string.digits
WORDS = ["loss", "fell", "{", "}", "a\tb", "\\", "é", "[1, 2]", "step 3:", "=", "# note", "''", "<b>", "&amp;", "x,"]


def of(alphabet, fewest, most=None):
    """Random text that has a digit and a letter, as generated keys have."""
    text = st.text(alphabet, min_size=fewest, max_size=most or fewest)
    return text.map(lambda value: f"{value[:-2]}{alphabet[10]}7")


KINDS = {
    "export": of(ALNUM, 12, 40).map(lambda v: (f"export WANDB_API_KEY={v}", v)),
    "wandb": of(HEX, 40).map(lambda v: (f"WANDB_API_KEY={v}", v)),
    "environ": of(HEX, 40).map(lambda v: (f'os.environ["WANDB_API_KEY"] = "{v}"', v)),
    "repr of the environment": of(ALNUM, 12).map(lambda v: (f"environ({{'A': 'b', 'MY_SECRET': '{v}', 'C': 'd'}})", v)),
    "magic": of(ALNUM, 20).map(lambda v: (f"%env HF_TOKEN={v}", v)),
    "magic with a blank": of(ALNUM, 20).map(lambda v: (f"%env HF_TOKEN {v}", v)),
    "OpenAI": of(ALNUM, 40).map(lambda v: (f"OPENAI_API_KEY=sk-{v}", f"sk-{v}")),
    "OpenAI, bare": of(ALNUM, 40).map(lambda v: (f"print('sk-proj-{v}')", v)),
    "GitHub": of(ALNUM, 36).map(lambda v: (f"git clone https://ghp_{v}@github.com/a/b", v)),
    "GitHub, bare": of(ALNUM, 36).map(lambda v: (f"ghp_{v}", v)),
    "GitHub, fine grained": of(ALNUM, 60).map(lambda v: (f"github_pat_{v}", v)),
    "Hugging Face": of(ALNUM, 34).map(lambda v: (f"hf_{v}", v)),
    "Slack": of(ALNUM.lower(), 24).map(lambda v: (f"xoxb-123456789012-{v}", v)),
    "password": of(ALNUM + "!%+-_.", 6, 20).map(lambda v: (f'password = "{v}"', v)),
    "password of a call": of(ALNUM, 6, 20).map(lambda v: (f"connect(host, user='me', passwd='{v}')", v)),
    "login": of(HEX, 40).map(lambda v: (f'wandb.login(key="{v}", relogin=True)', v)),
    "login by place": of(HEX, 40).map(lambda v: (f"wandb.login('{v}')", v)),
    "login over lines": of(HEX, 40).map(lambda v: (f'wandb.login(\n    key="{v}",\n)', v)),
    "wandb login": of(HEX, 40).map(lambda v: (f"!wandb login --relogin {v}", v)),
    "AWS id": of(UPPER, 16).map(lambda v: (f"AKIA{v}", v)),
    "AWS": of(ALNUM + "+/", 40).map(lambda v: (f"aws_secret_access_key = {v}", v)),
    "private key": of(ALNUM, 64).map(
        lambda v: (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{v}\n{v}=\n-----END OPENSSH PRIVATE KEY-----", v)
    ),
    "private key, cut": of(ALNUM, 64).map(lambda v: (f"-----BEGIN RSA PRIVATE KEY-----\n{v}\n{v[:40]}", v)),
    "URL": of(ALNUM, 8, 20).map(lambda v: (f"postgresql://me:{v}@db.example.org:5432/x", v)),
    "Jupyter": of(HEX, 48).map(lambda v: (f"http://127.0.0.1:8888/lab?token={v}&reset", v)),
    "bearer": of(ALNUM, 20).map(lambda v: (f'headers={{"Authorization": "Bearer {v}"}}', v)),
    "basic": of(ALNUM, 20).map(lambda v: (f"Authorization: Basic {v}==", v)),
    "header": of(HEX, 32).map(lambda v: (f'curl -H "X-API-Key: {v}" https://x.org', v)),
    "curl": of(ALNUM, 12).map(lambda v: (f"curl -u me:{v} https://x.org", v)),
    "option": of(ALNUM, 12).map(lambda v: (f"hf auth login --token {v}", v)),
    "netrc": of(HEX, 40).map(lambda v: (f"machine api.wandb.ai\n  login user\n  password {v}", v)),
    "Kaggle": of(HEX, 32).map(lambda v: (f'{{"username":"me","key":"{v}"}}', v)),
    "YAML": of(ALNUM, 24).map(lambda v: (f"client_secret: {v}", v)),
    "Google": of(ALNUM, 35).map(lambda v: (f"AIza{v}", v)),
    "HTML": of(ALNUM, 16).map(lambda v: (f"{SPAN}<span>&quot;{v}&quot;</span>", v)),
    "colours": of(ALNUM, 16).map(lambda v: (f"\x1b[0mapi_key\x1b[0m\x1b[34m=\x1b[0m\x1b[33m'{v}'\x1b[0m", v)),
    "JSON in text": of(ALNUM, 16).map(lambda v: (f'print("{{\\"password\\": \\"{v}\\"}}")', v)),
}  # fmt: skip
AROUND = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
SPAN = '<span class="n">api_key</span><span>=</span>'


def notebook(source, output):
    """A notebook of one cell, the source by lines and the output as one text."""
    shown = {"output_type": "stream", "name": "stdout", "text": output}
    cell = {"cell_type": "code", "source": source.splitlines(keepends=True), "outputs": [shown], "metadata": {}}
    return {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def assert_gone(data, value):
    text = data.decode()
    assert value not in text and value not in text.replace('",\n', "").replace("\\", "")
    assert HIDDEN in text


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_made_up_secret_is_gone_wherever_it_stands(kind, data):
    written, value = data.draw(KINDS[kind])
    text = f"{data.draw(AROUND)}\n{written}\n{data.draw(AROUND)}"
    whole = json.dumps(notebook(text, "nothing"), indent=1).encode()
    for member, given_in in (
        ("labs/a.ipynb", whole),
        ("labs/a.ipynb", json.dumps(notebook("x = 1", text)).encode()),
        ("labs/a.ipynb", whole[: whole.index(b'"outputs"')]),  # cut off: no JSON any more
        ("labs/a.ipynb", json.dumps(notebook(text, "")).encode("utf-16")),
        ("runs/tiny/a/b/log.txt", text.encode()),
        ("runs/tiny/a/b/events.jsonl", json.dumps({"event": "print", "text": json.dumps(text)}).encode() + b"\n"),
        ("runs/tiny/a/b/record.json", json.dumps({"reason": text}, indent=1).encode()),
    ):
        redaction = Redaction()
        assert_gone(redaction.clean(given_in, member), value)
        assert [line for line in redaction.said() if line.startswith(member)]


PERCENT = {"%000k7": True, "%Tr0ub4dor": True, "%s": False, "%PASSWORD%": False, "%(password)s": False}


@pytest.mark.parametrize(("value", "secret"), PERCENT.items())
def test_a_password_may_begin_as_a_placeholder_does(value, secret):
    given_in = f'password = "{value}"\n'.encode()
    assert (Redaction().clean(given_in, "runs/tiny/a/b/log.txt") != given_in) == secret


@settings(max_examples=60, deadline=None)
@given(value=st.text(ALNUM + "\"'\\/<>&é %+\n", min_size=8, max_size=30), before=AROUND, after=AROUND)
def test_the_value_of_a_secret_variable_is_gone_however_it_is_written(value, before, after):
    value = f"q{value}7"
    forms = [value, repr(value), json.dumps(value), json.dumps(json.dumps(value)), json.dumps({"a": [value]})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_TOKEN", value)
        for form in forms:
            data = json.dumps(notebook("1", f"{before} {form} {after}")).encode()
            clean = json.loads(Redaction().clean(data, "labs/a.ipynb"))["cells"][0]["outputs"][0]["text"]
            assert HIDDEN in clean
            assert not any(written[1:-1] in clean for written in forms[1:4])


def test_what_one_cell_sets_is_gone_where_another_prints_it_bare():
    key = "0a1b2c3d" * 5
    first, second = notebook(f'WANDB_API_KEY = "{key}"', ""), notebook("print(x)", f"it is {key}!")
    members = {"labs/b.ipynb": json.dumps(second).encode(), "labs/a.ipynb": json.dumps(first).encode(),
               "runs/tiny/x/y/log.txt": f"using {key}\n".encode()}  # fmt: skip
    redaction = Redaction()
    clean = redaction.again({name: redaction.clean(data, name) for name, data in members.items()})
    assert not [name for name, data in clean.items() if key.encode() in data]
    assert "labs/b.ipynb, cell 1: the same again" in redaction.said()


def test_a_word_that_was_taken_for_a_secret_somewhere_changes_no_run():
    """A run's own name as a password: it goes where it stands after ``password``, and nowhere else."""
    record = json.dumps({"experiment": "reduced_batch", "hash": "0a1b2c3d4e5f"}).encode()
    cell = notebook('password = "reduced_batch"\npwd = "0a1b2c3d4e5f"', "")
    members = {"runs/tiny/reduced_batch/y/record.json": record, "labs/a.ipynb": json.dumps(cell).encode()}
    redaction = Redaction()
    clean = redaction.again({name: redaction.clean(data, name) for name, data in members.items()})
    assert clean["runs/tiny/reduced_batch/y/record.json"] == record
    assert b"0a1b2c3d4e5f" not in clean["labs/a.ipynb"]


def test_data_that_are_named_like_a_secret_are_one():
    data = {
        "cells": [],
        "metadata": {"api_key": "abcdef", "pad_token": "<pad>", "token": "a1b2c3d4e5f6", "n_tokens": "12"},
    }
    clean = json.loads(Redaction().clean(json.dumps(data).encode(), "labs/a.ipynb"))
    assert clean["metadata"] == {"api_key": HIDDEN, "pad_token": "<pad>", "token": HIDDEN, "n_tokens": "12"}


HARMLESS = [
    "api_key = os.environ['WANDB_API_KEY']", "OpenAI(api_key=my_key)", "password = getpass.getpass()", "token=None",
    "pad_token = tokenizer.pad_token", 'tokenizer.pad_token = "<pad>"', 'IMAGE_TOKEN = "<image>"', "eos_token_id=50256",
    'lab.check(key="20261121-120000-0000beef")', "for key, value in record.items():", 'sorted(rows, key="loss")',
    "the secret: attention is all you need", "it uses Bearer authentication", "PWD=/home/jovyan/work",
    "SSH_KEY_FILE=/home/me/.ssh/id_ed25519", "sha256 = '" + "ab12" * 16 + "'", "commit e43ccca0" + "0a1b" * 8,
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3 ann@laptop", "mailto:ann@example.org", "https://host/x@y",
    '<div id="sk-container-id-1" class="sk-estimator-doc-link">', "git@github.com:a/b.git", "--num-query-tokens 32",
    '["password", "username"]', "def login(self, user): pass", "num_query_tokens: 32", "token: the smallest unit",
    base64.b64encode(bytes(range(256)) * 40).decode(),
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays_as_it_is(text):
    data = json.dumps(notebook(text, text)).encode()
    redaction = Redaction()
    assert redaction.clean(data, "labs/a.ipynb") == data
    assert redaction.said() == []


@pytest.fixture
def desk(student, tmp_path, monkeypatch):
    """A student's desk with one notebook: the folder of the notebooks."""
    monkeypatch.setenv("LABKIT_RUNS", str(student()))
    (tmp_path / "course" / "workspace" / "configs").mkdir(parents=True)
    (tmp_path / "course" / "workspace" / "configs" / "baseline.yaml").touch()
    monkeypatch.setenv("LABKIT_WORKSPACE", str(tmp_path / "course" / "workspace"))
    labs = tmp_path / "course" / "labs"
    labs.mkdir()
    return labs


@pytest.mark.slow
def test_the_student_is_told_where_and_her_own_file_is_untouched(desk, tmp_path):
    key = "gh" + "p_" + "a1B2" * 9
    data = json.dumps(notebook(f"token = '{key}'", f"{key}\n{key}")).encode()
    (desk / "a.ipynb").write_bytes(data)
    (desk / f"my {key}.ipynb").write_bytes(data)
    path, found = submit(Workspace.find(), "Ann", tmp_path / "a.tar.gz")
    assert (desk / "a.ipynb").read_bytes() == data
    assert key.encode() not in b"".join(found.members.values()) and key not in "".join(found.members)
    assert sorted(found.members)[1] == "labs/a.ipynb" and len(read_archive(path).notebooks) == 2
    (line,) = (line for line in found.lines() if "labs/a.ipynb" in line)
    assert line.casefold() == (
        "redacted in the archive, your own file is untouched: labs/a.ipynb, cell 1: github token x3"
    )


@pytest.mark.slow
def test_what_one_notebook_sets_is_gone_from_the_archive_where_another_file_has_it_bare(desk):
    key = "0a1b2c3d" * 5
    (desk / "a.ipynb").write_text(json.dumps(notebook(f'WANDB_API_KEY = "{key}"', "")))
    (desk / "b.ipynb").write_text(json.dumps(notebook("print(x)", f"it is {key}!")))
    with next(Workspace.find().runs.glob("tiny/baseline/*/log.txt")).open("a") as log:
        log.write(f"using {key}\n")
    found = gather(Workspace.find())
    assert {"labs/a.ipynb", "labs/b.ipynb"} <= found.members.keys()
    assert not [name for name, data in found.members.items() if key.encode() in data]
    assert "labs/b.ipynb, cell 1: the same again" in found.redacted


@pytest.mark.slow
def test_the_end_of_a_log_does_not_begin_with_half_a_secret(desk, monkeypatch):
    """What lies before the window that is read may have said that it is one."""
    log = next(Workspace.find().runs.glob("tiny/baseline/*/log.txt"))
    key = "0123456789abcdef" * 2**14
    for shift in (0, 7):
        log.write_text(f"password={key}\n" + "x" * (2**19 - 2**17 - shift) + "\nend\n")
        found = gather(Workspace.find())
        assert not [name for name, data in found.members.items() if b"0123456789abcdef" in data]
