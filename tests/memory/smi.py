"""An nvidia-smi that says what it is told to, as the real one prints it."""

import os
from pathlib import Path

from labkit.memory.nvidia_smi import FIELDS

H100 = "0, GPU-8f1b3c44-0000-4000-8000-000000000000, NVIDIA H100 NVL, 95830, 512, 580.95.05, 9.0, Disabled"
OLD = "1, GPU-8f1b77aa-0000-4000-8000-000000000001, Tesla V100-PCIE-32GB, 32768, 7, 580.95.05, 7.0, [N/A]"
CUT = "0, GPU-b614723c-0000-4000-8000-000000000002, NVIDIA A100-SXM4-80GB, 81920, 100, 580.95.05, 8.0, Enabled"
# as public logs have it (MIG user guide, and clusters' guides)
PARTS = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-b614723c-0000-4000-8000-000000000002)
  MIG 3g.40gb     Device  0: (UUID: MIG-dc34c2fd-4bd7-52ad-a6d0-645dcd1794e4)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-ec4c3916-65fa-5948-b9b5-9f21a2ddfcc0)
  MIG 1c.2g.20gb Device 2: (UUID: MIG-GPU-b614723c-0000-4000-8000-000000000002/9/0)
"""


def script(*gpus: str, parts: str = "") -> str:
    """What such a program does, for ``sh``."""
    listed = "\n".join(gpus)
    return f'case "$1" in --query-gpu={FIELDS}) echo "{listed}";; -L) printf "{parts}";; *) exit 2;; esac'


def install(folder: Path, monkeypatch, *gpus: str, parts: str = "", text: str | None = None) -> None:
    """Put it in front of all others."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{text or script(*gpus, parts=parts)}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
