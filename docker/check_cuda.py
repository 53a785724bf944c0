"""Refuse an image whose CUDA compiler and torch do not fit: DeepSpeed would refuse to compile its CPU optimizer."""

import re
import shutil
import subprocess
import sys

ANY_MINOR = ("10", "11", "12")
"""Major versions within which the minor versions may differ for DeepSpeed; of CUDA 13 they must be the same.

DeepSpeed 0.19, op_builder/builder.py: ``cuda_minor_mismatch_ok``, whose list within these is complete.
"""

HELP = "Change docker/requirements-cuda.txt, or build with --build-arg CUDA=no for a machine without a GPU."


def problem(torch_cuda: str | None, nvcc_says: str) -> str | None:
    """Why ``torch.version.cuda`` and the output of ``nvcc --version`` do not fit for DeepSpeed; None when they do."""
    if torch_cuda is None:
        return "this torch was built without CUDA"
    release = re.search(r"release (\d+)\.(\d+)", nvcc_says)
    if release is None:
        return f"no CUDA release in what nvcc says: {nvcc_says!r}"
    major, minor = torch_cuda.split(".")[:2]
    if release[1] != major or (release[2] != minor and major not in ANY_MINOR):
        return f"torch is made for CUDA {torch_cuda}, and nvcc is of CUDA {release[1]}.{release[2]}"
    return None


def main() -> None:
    """Ask torch and nvcc; ends with 1 when they do not fit."""
    import torch

    nvcc = shutil.which("nvcc")
    if nvcc is None:
        sys.exit(f"problem: there is no nvcc on PATH. {HELP}")
    says = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    reason = problem(torch.version.cuda, says)
    if reason is not None:
        sys.exit(f"problem: {reason}. {HELP}")
    print(f"torch {torch.__version__} and {nvcc}: CUDA {torch.version.cuda}")


if __name__ == "__main__":
    main()
