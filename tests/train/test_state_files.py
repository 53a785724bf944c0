"""State files: data comes back as it was, and what is more than data is refused by name and never made."""

import io
import os
import pickle
import random
import subprocess
import warnings

import pytest
import torch

from labkit.train.errors import CheckpointError
from labkit.train.state_files import MALFORMED, HostCheckpoints, read_state, reading

STATE = {
    "state_dict": {"a": torch.arange(12.0).view(3, 4), "b": torch.ones(2, dtype=torch.bfloat16)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3, 4)}}}],
    "random_state": {"python": (3, tuple(range(20)), None), "torch": torch.get_rng_state()}, "loops": {}, "epoch": 1,
}  # fmt: skip


class Called:
    """A pickle that calls something when it is read."""

    def __init__(self, function, *arguments):
        self._said = function, arguments

    def __reduce__(self):
        return self._said


class Mine:
    """A type that no one allowed."""


def written(value, form):
    """``value`` as torch writes it now or wrote it once, or as a bare pickle."""
    file = io.BytesIO()
    if form == "pickle":
        return pickle.dumps(value, protocol=2)
    torch.save(value, file, _use_new_zipfile_serialization=form == "zip")
    return file.getvalue()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("inside", [lambda bad: bad, lambda bad: {"epoch": 1, "loops": bad}, lambda bad: {(1, bad): 2}])
@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.system, "touch {}"), "posix.system"),
        ((eval, "open({!r}, 'w')"), "eval"),
        ((exec, "open({!r}, 'w')"), "exec"),
        ((os.mkdir, "{}"), "posix.mkdir"),
        ((subprocess.call, "touch"), "commands.call"),  # as pickles of Python 2 say it
        ((getattr, "x", "upper"), "getattr"),
        ((Mine,), f"{__name__}.Mine"),
    ],
)
def test_what_a_file_asks_for_is_named_and_not_called(tmp_path, form, inside, call, named):
    marker = str(tmp_path / "marker")
    filled = [a.format(marker) for a in call[1:]]
    saved = tmp_path / "step-000003"
    saved.mkdir()
    (saved / "state.ckpt").write_bytes(written(inside(Called(call[0], *filled)), form))
    with pytest.raises(CheckpointError) as refused:
        HostCheckpoints().load_checkpoint(saved / "state.ckpt")
    assert str(refused.value) == (
        f"{saved} is damaged (state.ckpt asks for {named}, which is not data; nothing of it was run); delete it to "
        "resume from the step before it."
    )
    assert not (tmp_path / "marker").exists()


def test_a_type_is_made_when_it_is_allowed_and_only_then(tmp_path):
    file = tmp_path / "state"
    torch.save({"a": Mine()}, file)
    assert isinstance(read_state(file, [Mine])["a"], Mine)
    with pytest.raises(ValueError, match="asks for .*Mine, which is not data"):
        read_state(file)  # nothing stays allowed


def test_data_comes_back(tmp_path):
    torch.save(STATE, tmp_path / "state.ckpt")
    found = HostCheckpoints().load_checkpoint(tmp_path / "state.ckpt")
    assert found.keys() == STATE.keys()
    assert torch.equal(found["state_dict"]["a"], STATE["state_dict"]["a"])
    assert found["random_state"]["python"] == STATE["random_state"]["python"]


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_bytes_that_changed_are_read_or_refused(tmp_path, form):
    whole, draw = written(STATE, form), random.Random(7)
    refused = 0
    for i in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 3, 50])):
            data[draw.randrange(min(len(data), 3000 if i % 2 else len(data)))] = draw.randrange(256)
        data = data[: draw.randrange(len(data))] if i % 5 == 0 else data
        (tmp_path / "state.ckpt").write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of what it is given
            try:
                with reading(tmp_path):
                    read_state(tmp_path / "state.ckpt")
            except CheckpointError as error:
                assert len(str(error).splitlines()) == 1
                refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("x"), torch.AcceleratorError("CUDA error: out of memory")],
    ids=["torch's", "CUDA's"],
)
def test_memory_that_runs_out_is_not_taken_for_damage(tmp_path, error):
    assert isinstance(error, MALFORMED)
    with pytest.raises(type(error)), reading(tmp_path):
        raise error


@pytest.mark.parametrize("content", [b"", b"PK", b"{}", b"\x80\x02.", b"\x80\x04]\x94."])
def test_what_is_no_file_of_torch_is_refused(tmp_path, content):
    (tmp_path / "state.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        HostCheckpoints().load_checkpoint(tmp_path / "state.ckpt")


def test_a_list_is_no_state(tmp_path):
    torch.save([1], tmp_path / "state.ckpt")
    with pytest.raises(CheckpointError, match=r"state.ckpt holds no state but list"):
        HostCheckpoints().load_checkpoint(tmp_path / "state.ckpt")
