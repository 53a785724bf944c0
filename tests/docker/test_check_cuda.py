"""Torch's CUDA and the compiler's: as DeepSpeed compares them, or no image."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripts import loaded

SCRIPT = Path(__file__).parents[2] / "docker" / "check_cuda.py"
NVCC = """\
nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2025 NVIDIA Corporation
Built on Wed_Aug_20_01:58:59_PM_PDT_2025
Cuda compilation tools, release 13.0, V13.0.88
Build cuda_13.0.r13.0/compiler.36424714_0
"""


@pytest.fixture
def check():
    return loaded(SCRIPT)


@pytest.mark.parametrize(
    ("torch_cuda", "nvcc", "says"),
    [
        ("13.0", NVCC, None),
        ("13.1", NVCC, "torch is made for CUDA 13.1, and nvcc is of CUDA 13.0"),
        ("13.0.2", NVCC, None),
        ("12.8", NVCC.replace("13.0", "12.4"), None),  # within 12 a minor version more or less is no matter
        ("12.8", NVCC, "torch is made for CUDA 12.8, and nvcc is of CUDA 13.0"),
        ("13.0", NVCC.replace("13.", "12."), "torch is made for CUDA 13.0, and nvcc is of CUDA 12.0"),
        (None, NVCC, "this torch was built without CUDA"),
        ("13.0", "Segmentation fault", "no CUDA release in what nvcc says: 'Segmentation fault'"),
    ],
)
def test_the_versions_fit_or_it_is_said(check, torch_cuda, nvcc, says):
    assert check.problem(torch_cuda, nvcc) == says


def test_deepspeed_says_the_same_of_every_pair(check, monkeypatch):
    builder = pytest.importorskip("deepspeed.ops.op_builder.builder")
    monkeypatch.delenv("DS_SKIP_CUDA_CHECK", raising=False)
    releases = [*itertools.chain(*builder.cuda_minor_mismatch_ok.values()), "13.0", "13.1"]
    for torch_cuda in releases:
        monkeypatch.setattr(builder.torch.version, "cuda", torch_cuda)
        for release in releases:
            major, minor = map(int, release.split("."))
            monkeypatch.setattr(builder, "installed_cuda_version", lambda name="", found=(major, minor): found)
            try:
                fits = builder.assert_no_cuda_mismatch()
            except builder.CUDAMismatchException:
                fits = False
            assert (check.problem(torch_cuda, f"release {release}, V{release}.1") is None) == fits


@pytest.mark.slow
def test_without_a_compiler_the_next_step_is_said():
    env = os.environ | {"PATH": "/nonexistent"}
    done = subprocess.run([sys.executable, "-W", "ignore", str(SCRIPT)], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no nvcc on PATH. Change docker/requirements-cuda.txt, or build with" in done.stderr
