"""Refuse an image whose CUDA compiler and torch are of different major versions: DeepSpeed would refuse to compile."""

import re
import shutil
import subprocess
import sys

HELP = "Change docker/requirements-cuda.txt, or build with --build-arg CUDA=no for a machine without a GPU."


def problem(torch_cuda: str | None, nvcc_says: str) -> str | None:
    """Why ``torch.version.cuda`` and what ``nvcc --version`` prints do not fit; None when they do."""
    if torch_cuda is None:
        return "this torch was built without CUDA"
    release = re.search(r"release (\d+)\.(\d+)", nvcc_says)
    if release is None:
        return f"no CUDA release in what nvcc says: {nvcc_says!r}"
    if release[1] != torch_cuda.split(".")[0]:
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
