"""GPUs by name: what they hold, what they leave to a program, what they can do and what an hour costs.

Sources. Total memory: the "total capacity" in public out-of-memory messages of torch on that GPU (178.35 GiB on B200,
139.80 on H200, 94.97 on RTX PRO 6000, 94.50 on GH200's H100, 93.10 on H100 NVL, 79.11 on H100, 47.53 on A6000, 44.40 on
L40, 44.39 on L40S, 44.34 on A40, 31.73 and 15.77 on V100, 31.36 on RTX 5090, 23.69 on RTX 3090, 23.67 on A5000, 23.64
on RTX 4090, 22.38 on P40, 22.06 on A10G, 22.03 on L4, 21.99 on A10, 15.61 on A4000, 14.56 on T4, 10.92 on GTX 1080 Ti,
10.76 on RTX 2080 Ti, 9.78 on RTX 3080; 23.69 on RTX 3090 Ti is a field note's); it differs by a percent with driver and
ECC. A100 of 80 GB: 79.15, as in the memory planner's notes; of 40 GB: 39.39, by deviceQuery (42298834944 bytes). Titan
RTX: the 24219 MiB of nvidia-smi. What torch cannot reserve: the CUDA context, code that is loaded at its first use,
handles of cuBLAS and cuDNN (cuBLAS' workspaces are reserved by torch, and planned). Public out-of-memory messages say
what a process holds besides torch's own: 0.59 to 0.75 GiB on H100 NVL, 0.50 on H100, 0.51 on H200 and on A100 of 80 GB,
0.49 on that of 40, 0.50 on L40S, at the moment they were written. A quarter of a GiB above that is left, so that the
last kernels and a second handle have room: 1 GiB on Hopper, 0.75 on Ampere and Ada. On all others 1 GiB is assumed. How
much the quarter has to be is assumed too, and so is what is usable, until it is measured.
Compute capability: NVIDIA's table (developer.nvidia.com/cuda-gpus); tensor cores have bf16 from 8.0 on.
Prices: dollars an hour in rental clouds, January 2025, of the course's comparison of approaches.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labkit.config.errors import ConfigError, nearest

if TYPE_CHECKING:
    from labkit.config.schema import RunConfig

GIB = 2**30
GB = 10**9

CONTEXT_BYTES = int(0.55 * GIB)
"""Taken by the CUDA context of one process before torch allocates anything; assumed, not measured."""

ROOM_BYTES = GIB
"""Left on a GPU to all that is not torch's allocator: context, code and handles; assumed, see above."""

_ROOMS = {8: int(0.75 * GIB)}
"""The same where public messages say that less will do, by the major version of the compute capability."""

LEAST_BYTES, MOST_BYTES = 2 * GIB, 1024 * GIB
"""Sizes that a GPU given by its size may have."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU. ``memory_bytes`` as it is sold (2**30 bytes to a GB), ``usable_bytes`` what torch can reserve.

    ``room_bytes`` are those that CUDA counts beyond the usable ones. ``usable_is`` says how that is known.
    ``compute_capability`` is None for a GPU of which only the size is known; ``bf16`` is then taken to be there, as on
    all GPUs since 2020. ``price_per_hour_usd`` is None where no source gives one, and ``price_source`` says which does.
    """

    name: str
    memory_bytes: int
    usable_bytes: int
    room_bytes: int = ROOM_BYTES
    usable_is: Literal["assumed", "measured"] = "assumed"
    compute_capability: tuple[int, int] | None
    bf16: bool
    price_per_hour_usd: float | None = None
    price_source: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The keys of a run that say what its machine is."""
        capability = self.compute_capability
        return {
            "device": "cuda", "capacity_gib": self.usable_bytes / 2**30,
            "compute_capability": None if capability is None else float(f"{capability[0]}.{capability[1]}"),
        }  # fmt: skip


def _gpu(
    name: str, sold_gb: int, total_gib: float, capability: tuple[int, int], price_per_hour_usd: float | None = None
) -> Gpu:
    room_bytes = _ROOMS.get(capability[0], ROOM_BYTES)
    return Gpu(
        name=name, memory_bytes=sold_gb * GIB, usable_bytes=int(total_gib * GIB) - room_bytes, room_bytes=room_bytes,
        compute_capability=capability, bf16=capability >= (8, 0), price_per_hour_usd=price_per_hour_usd,
        price_source=None if price_per_hour_usd is None else "rental clouds, January 2025",
    )  # fmt: skip


_ALL = (
    _gpu("b200-180gb", 180, 178.35, (10, 0)),
    _gpu("h200-141gb", 141, 139.80, (9, 0)),
    _gpu("gh200-96gb", 96, 94.50, (9, 0)),
    _gpu("h100-80gb", 80, 79.11, (9, 0)),
    _gpu("h100-94gb", 94, 93.10, (9, 0)),  # the NVL
    _gpu("a100-80gb", 80, 79.15, (8, 0), 1.64),
    _gpu("a100-40gb", 40, 39.39, (8, 0)),
    _gpu("rtxpro6000-96gb", 96, 94.97, (12, 0)),
    _gpu("a6000-48gb", 48, 47.53, (8, 6), 0.76),
    _gpu("a40-48gb", 48, 44.34, (8, 6)),  # with ECC, as all below that have far less than they are sold with
    _gpu("l40s-48gb", 48, 44.39, (8, 9)),
    _gpu("l40-48gb", 48, 44.40, (8, 9)),
    _gpu("v100-16gb", 16, 15.77, (7, 0)),
    _gpu("v100-32gb", 32, 31.73, (7, 0)),
    _gpu("rtx5090-32gb", 32, 31.36, (12, 0)),
    _gpu("rtx4090-24gb", 24, 23.64, (8, 9)),
    _gpu("rtx3090ti-24gb", 24, 23.69, (8, 6)),
    _gpu("rtx3090-24gb", 24, 23.69, (8, 6)),
    _gpu("titanrtx-24gb", 24, 24219 / 1024, (7, 5)),
    _gpu("a5000-24gb", 24, 23.67, (8, 6), 0.36),
    _gpu("l4-24gb", 24, 22.03, (8, 9)),
    _gpu("a10-24gb", 24, 21.99, (8, 6)),
    _gpu("a10g-24gb", 24, 22.06, (8, 6)),
    _gpu("p40-24gb", 24, 22.38, (6, 1)),
    _gpu("a4000-16gb", 16, 15.61, (8, 6), 0.32),
    _gpu("t4-16gb", 16, 14.56, (7, 5)),
    _gpu("gtx1080ti-11gb", 11, 10.92, (6, 1)),
    _gpu("rtx2080ti-11gb", 11, 10.76, (7, 5)),
    _gpu("rtx3080-10gb", 10, 9.78, (8, 6)),
)
GPUS: dict[str, Gpu] = {gpu.name: gpu for gpu in _ALL}
"""By name. Of a kind that has several sizes, the one that clouds rent most stands first: a name without a size means
it."""

_UNITS = {"gib": GIB, "gb": GB}
_SIZE = re.compile(r"([+-]?(?:[0-9.]+(?:e[+-]?[0-9]+)?|nan|inf|infinity)) *(gib|gb)", re.IGNORECASE)

_MAKERS = frozenset({"nvidia", "geforce", "tesla", "quadro", "gpu", "graphics"})
_FORMS = frozenset(
    {"pcie", "sxm", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "gb", "gib", "g"}
)
_LIKE = {
    "rtxa6000": "a6000", "rtxa5000": "a5000", "rtxa4000": "a4000", "titanrtx": "titanrtx", "h100nvl": "h100-94gb",
    "h200nvl": "h200", "gh200480gb": "gh200", "rtxpro6000blackwell": "rtxpro6000",
    "rtxpro6000blackwellworkstationedition": "rtxpro6000", "rtxpro6000blackwellserveredition": "rtxpro6000",
}  # fmt: skip
"""What nvidia-smi or a shop calls a GPU whose name here is another."""

_OTHERS = re.compile(
    r"(amd|radeon|instinct|apple|intel|google)\b.*|mi[0-9]{2,3}[a-z]*|gfx[0-9a-f]+|rx *[0-9]{4}[a-z]*|gaudi.*|tpu.*|"
    r"trainium.*|inferentia.*|m[1-5]( pro| max| ultra)?"
)
"""Names of what is not a GPU of NVIDIA's."""

_PART = re.compile(r"mig\b|[0-9]g\.[0-9]+gb")
"""In the name of a part of a GPU, as MIG cuts it."""


def find_gpu(name: str) -> Gpu:
    """The GPU called ``name``, or one of a size: ``24GiB`` (2**30 bytes each) or ``24GB`` (10**9 bytes each).

    A name is taken as people type it and as nvidia-smi prints it: ``a100-80gb``, ``A100 80GB``, ``v100-32``, ``4090``,
    ``NVIDIA A100-SXM4-40GB``. Without a size it is the first of that kind in ``GPUS``; ``gpus_named`` has the others. A
    size alone is the whole memory, and ``ROOM_BYTES`` are taken off it; a card sold as 24 GB has 24 GiB. Raises
    ``ConfigError`` with the nearest name for anything else, and for a size below 2 GiB or above 1 TiB.
    """
    if found := gpus_named(name):
        return found[0]
    close = nearest(" ".join(_words(name)), [*GPUS, *_kinds()]) if isinstance(name, str) else ""
    raise ConfigError(f"gpu={name!r} is not a known GPU ({', '.join(GPUS)}), nor a size such as 24GiB.{close}")


def gpus_named(name: str) -> list[Gpu]:
    """Every GPU that ``name`` may mean, the likeliest first; none for a name that is not known.

    Raises ``ConfigError`` for a size that no GPU has, and for what another maker than NVIDIA sells.
    """
    word = " ".join(name.lower().split()) if isinstance(name, str) else ""
    if word in GPUS:
        return [GPUS[word]]
    if size := _SIZE.fullmatch(word):
        return [_of_size(name, *size.groups())]
    if _OTHERS.fullmatch(word):
        raise ConfigError(
            f"gpu={name!r} is not NVIDIA's, and labkit plans with CUDA's allocator; a size, such as 192GiB, plans for "
            "a GPU of NVIDIA's that large."
        )
    if _PART.search(word):
        raise ConfigError(f"gpu={name!r} is a part of a GPU; give the part's size, such as 20GiB for a 3g.20gb.")
    words = _words(word)
    for count in range(len(words), 0, -1):
        kind = _LIKE.get("".join(words[:count]), "".join(words[:count]))
        found = [GPUS[kind]] if kind in GPUS else _kinds().get(kind, [])
        if found:
            return _of_that_size(found, words[count:])
    return []


def _words(name: str) -> list[str]:
    return [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part and part not in _MAKERS]


def _kinds() -> dict[str, list[Gpu]]:
    """GPUs by the name of their kind, also without ``rtx`` and ``gtx``: ``4090`` for ``rtx4090``."""
    kinds: dict[str, list[Gpu]] = {}
    for gpu in _ALL:
        kind = gpu.name.rpartition("-")[0]
        for short in dict.fromkeys((kind, kind.removeprefix("rtx").removeprefix("gtx"))):
            kinds.setdefault(short, []).append(gpu)
    return kinds


def _of_that_size(found: list[Gpu], words: list[str]) -> list[Gpu]:
    """Those that fit what stands after the name of their kind; none where it says something that is not known."""
    for word in words:
        if size := re.fullmatch(r"([0-9]+)(?:gb|gib|g)?", word):
            found = [gpu for gpu in found if gpu.memory_bytes == int(size[1]) * GIB]
        elif word not in _FORMS:
            return []
    return found


def has_bf16(name: str) -> bool:
    """Whether the GPU of this name or size has bf16; nothing says that a profile named otherwise has none."""
    try:
        return find_gpu(name).bf16
    except ConfigError:
        return True


def missing_bf16(config: "RunConfig") -> str | None:
    """The key and value of a run that a GPU without bf16 cannot do; None for a run that it can."""
    if config.dtypes.bf16:
        return f"precision={config.precision}"
    return "use_qlora=true" if config.use_qlora else None  # whose 4-bit weights are multiplied in bf16


def unsuitable(config: "RunConfig", gpu: str) -> str | None:
    """Why the GPU called ``gpu`` cannot do a run, by its compute capability; None when it can or that is not known."""
    if not has_bf16(gpu) and (value := missing_bf16(config)):
        return f"{value} needs bf16, which {find_gpu(gpu).name} does not have; set precision=16-mixed."
    return None


def _of_size(name: Any, number: str, unit: str) -> Gpu:
    try:
        size_bytes = float(number) * _UNITS[unit]
    except ValueError:  # dots in odd places
        size_bytes = float("nan")
    if not LEAST_BYTES <= size_bytes <= MOST_BYTES:  # NaN is neither
        raise ConfigError(f"gpu={name!r} is not the size of a GPU; a number from 2GiB to 1024GiB is needed.")
    return Gpu(
        name=number.lstrip("+") + {"gib": "GiB", "gb": "GB"}[unit], memory_bytes=int(size_bytes),
        usable_bytes=int(size_bytes) - ROOM_BYTES, compute_capability=None, bf16=True,
    )  # fmt: skip
