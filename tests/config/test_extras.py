"""Extras: what is said of a library that a small installation does not have."""

import sys

import pytest

from labkit.config.extras import EXTRAS, missing, missing_for
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace


@pytest.mark.parametrize("library", EXTRAS)
def test_a_library_that_is_not_there_is_named_with_the_command_that_installs_it(library, monkeypatch):
    assert missing(library) is None  # all are in requirements.txt
    monkeypatch.setitem(sys.modules, library, None)
    assert missing(library) == f"{library} is not installed: pip install 'labkit[{EXTRAS[library]}]'"


def test_only_a_run_with_offload_lacks_deepspeed(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    configs = {name: resolve(Workspace.find(), name).config for name in ("xxl_cpu_offload", "xxl_qlora")}
    assert missing_for(configs["xxl_qlora"]) is None
    assert missing_for(configs["xxl_cpu_offload"]) == (
        "optim=deepspeed_cpu with strategy=deepspeed_stage_2_offload: deepspeed is not installed: "
        "pip install 'labkit[gpu]'"
    )
    monkeypatch.delitem(sys.modules, "deepspeed")
    assert missing_for(configs["xxl_cpu_offload"]) is None
