"""Which GPUs a build of torch has code for, by compute capability.

Binary code (``sm_80``) runs on GPUs of the same major version and an equal or later minor one; PTX (``compute_80``) is
compiled on the spot for any later GPU; an ``a`` at the end binds code to exactly one capability (CUDA C++ Programming
Guide, binary and PTX compatibility). What torch's own builds hold: the support matrix in RELEASE.md of
pytorch/pytorch, releases 2.11 to 2.13. Since 2.11 the build on PyPI is that for CUDA 13.0.
"""

import re

BUILDS = {
    "12.6": ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"),
    "12.8": ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"),
    "13.0": ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"),
    "13.2": ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"),
}
"""Architectures of torch's builds by their CUDA, on x86."""

LOCKED = "13.0"
"""CUDA of the build of the torch in requirements.txt."""

CAPABILITIES = {
    "k20": (3, 5), "k40": (3, 5), "k80": (3, 7), "kepler": (3, 5), "m40": (5, 2), "m60": (5, 2), "maxwell": (5, 2),
    "titanx": (5, 2), "gtx1080": (6, 1), "gtx1080ti": (6, 1), "1080ti": (6, 1), "titanxp": (6, 1), "p40": (6, 1),
    "p4": (6, 1), "p100": (6, 0), "pascal": (6, 0), "v100": (7, 0), "v100s": (7, 0), "titanv": (7, 0), "volta": (7, 0),
    "t4": (7, 5), "rtx2080": (7, 5), "rtx2080ti": (7, 5), "2080ti": (7, 5), "titanrtx": (7, 5), "turing": (7, 5),
    "rtx8000": (7, 5),
}  # fmt: skip
"""GPUs and families before Ampere as clusters name them, which have no bf16 (developer.nvidia.com/cuda-gpus)."""

_CODE = re.compile(r"(?P<kind>sm|compute)_(?P<major>\d+)(?P<minor>\d)(?P<only>[af]?)")


def has_code(architectures: list[str] | tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether a build with these ``architectures``, as ``torch.cuda.get_arch_list()`` says them, runs on a GPU."""
    return any(_runs(match, capability) for name in architectures if (match := _CODE.fullmatch(name)))


def _runs(match: re.Match[str], capability: tuple[int, int]) -> bool:
    built = int(match["major"]), int(match["minor"])
    if match["only"] == "a":
        return capability == built
    if match["kind"] == "compute" and not match["only"]:
        return capability >= built
    return capability[0] == built[0] and capability[1] >= built[1]


def without_code(architectures: list[str] | tuple[str, ...], capability: tuple[int, int], build: str) -> str | None:
    """Why a GPU cannot be used by torch, in one line; None where it can, or it is not known what torch holds."""
    known = [name for name in architectures if _CODE.fullmatch(name)]  # of a build for another maker's GPUs none
    if not known or has_code(known, capability):
        return None
    return (
        f"compute capability {capability[0]}.{capability[1]}: {build} has no code for it "
        f"({', '.join(architectures)}), whatever the precision"
    )


def capability_of(name: str) -> tuple[int, int] | None:
    """The capability of an older GPU by a cluster's name for it, ``v100-32g`` or ``tesla_v100`` say."""
    for word in re.split(r"[^a-z0-9]+", name.lower()):
        if found := CAPABILITIES.get(word):
            return found
    joined = re.sub(r"[^a-z0-9]+", "", name.lower())
    return CAPABILITIES.get(joined)
