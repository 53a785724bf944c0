"""Torch's CUDA and the compiler's: same major version, or no image."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    spec = importlib.util.spec_from_file_location("check_cuda", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("torch_cuda", "nvcc", "says"),
    [
        ("13.0", NVCC, None),
        ("13.1", NVCC, None),  # a minor version more or less is no matter to DeepSpeed
        ("12.8", NVCC, "torch is made for CUDA 12.8, and nvcc is of CUDA 13.0"),
        ("13.0", NVCC.replace("13.", "12."), "torch is made for CUDA 13.0, and nvcc is of CUDA 12.0"),
        (None, NVCC, "this torch was built without CUDA"),
        ("13.0", "Segmentation fault", "no CUDA release in what nvcc says: 'Segmentation fault'"),
    ],
)
def test_only_the_major_version_counts(check, torch_cuda, nvcc, says):
    assert check.problem(torch_cuda, nvcc) == says


def test_without_a_compiler_the_next_step_is_said():
    env = os.environ | {"PATH": "/nonexistent"}
    done = subprocess.run([sys.executable, "-W", "ignore", str(SCRIPT)], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no nvcc on PATH. Change docker/requirements-cuda.txt, or build with" in done.stderr
