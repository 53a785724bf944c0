"""GPUs by name: what they hold, what they leave to a program, what they can do and what an hour costs.

Sources. Total memory: the "total capacity" in public out-of-memory messages of torch on that GPU (93.10 GiB on H100
NVL, 139.80 on H200, 47.53 on A6000, 23.67 on A5000, 15.61 on A4000, 31.73 and 15.77 on V100; 23.69 on RTX 3090 Ti is a
field note's); it differs by a percent with driver and ECC. A100: 79.15, as in the memory planner's notes. The CUDA
context: 0.55 GiB, from the same notes. So what is usable is assumed for all of them, until somebody measures it.
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

LEAST_BYTES, MOST_BYTES = GIB, 1024 * GIB
"""Sizes that a GPU given by its size may have."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU. ``memory_bytes`` as it is sold (2**30 bytes to a GB), ``usable_bytes`` what torch can reserve.

    ``usable_is`` says how that is known. ``compute_capability`` is None for a GPU of which only the size is known;
    ``bf16`` is then taken to be there, as on all GPUs since 2020. ``price_per_hour_usd`` is None where no source
    gives one, and ``price_source`` says which does.
    """

    name: str
    memory_bytes: int
    usable_bytes: int
    usable_is: Literal["assumed", "measured"] = "assumed"
    compute_capability: tuple[int, int] | None
    bf16: bool
    price_per_hour_usd: float | None = None
    price_source: str | None = None


def _gpu(
    name: str, sold_gb: int, total_gib: float, capability: tuple[int, int], price_per_hour_usd: float | None = None
) -> Gpu:
    return Gpu(
        name=name, memory_bytes=sold_gb * GIB, usable_bytes=int(total_gib * GIB) - CONTEXT_BYTES,
        compute_capability=capability, bf16=capability >= (8, 0), price_per_hour_usd=price_per_hour_usd,
        price_source=None if price_per_hour_usd is None else "rental clouds, January 2025",
    )  # fmt: skip


_ALL = (
    _gpu("h200-141gb", 141, 139.80, (9, 0)),
    _gpu("h100-94gb", 94, 93.10, (9, 0)),  # the NVL
    _gpu("a100-80gb", 80, 79.15, (8, 0), 1.64),
    _gpu("a6000-48gb", 48, 47.53, (8, 6), 0.76),
    _gpu("v100-32gb", 32, 31.73, (7, 0)),
    _gpu("rtx3090ti-24gb", 24, 23.69, (8, 6)),
    _gpu("a5000-24gb", 24, 23.67, (8, 6), 0.36),
    _gpu("a4000-16gb", 16, 15.61, (8, 6), 0.32),
    _gpu("v100-16gb", 16, 15.77, (7, 0)),
)
GPUS: dict[str, Gpu] = {gpu.name: gpu for gpu in _ALL}

_UNITS = {"gib": GIB, "gb": GB}
_SIZE = re.compile(r"([+-]?(?:[0-9.]+(?:e[+-]?[0-9]+)?|nan|inf|infinity)) *(gib|gb)", re.IGNORECASE)


def find_gpu(name: str) -> Gpu:
    """The GPU called ``name``, or one of a size: ``24GiB`` (2**30 bytes each) or ``24GB`` (10**9 bytes each).

    Case does not count. A size is the whole memory, and the CUDA context is taken off it; a card sold as 24 GB has
    24 GiB. Raises ``ConfigError`` with the nearest name for anything else, and for a size below 1 GiB or above 1 TiB.
    """
    word = name.strip().lower() if isinstance(name, str) else ""
    if word in GPUS:
        return GPUS[word]
    if size := _SIZE.fullmatch(word):
        return _of_size(name, *size.groups())
    raise ConfigError(
        f"gpu={name!r} is not a known GPU ({', '.join(GPUS)}), nor a size such as 24GiB.{nearest(word, GPUS)}"
    )


def has_bf16(name: str) -> bool:
    """Whether the GPU of this name or size has bf16; nothing says that a profile named otherwise has none."""
    try:
        return find_gpu(name).bf16
    except ConfigError:
        return True


def missing_bf16(config: "RunConfig") -> str | None:
    """The key and value of a run that a GPU without bf16 cannot do; None for a run that it can."""
    if config.precision.startswith("bf16"):
        return f"precision={config.precision}"
    return "use_qlora=true" if config.use_qlora else None  # whose 4-bit weights are multiplied in bf16


def refusal(config: "RunConfig", gpu: str) -> str | None:
    """Why the GPU called ``gpu`` cannot do a run, by its compute capability; None when it can or nobody knows it."""
    known = GPUS.get(gpu.lower())
    if known is not None and not known.bf16 and (value := missing_bf16(config)):
        return f"{value} needs bf16, which {known.name} does not have; set precision=16-mixed."
    return None


def is_size(name: str) -> bool:
    """Whether this is meant as a size and not as a name, be it one that a GPU can have or not."""
    return _SIZE.fullmatch(name.strip().lower()) is not None


def _of_size(name: Any, number: str, unit: str) -> Gpu:
    try:
        size_bytes = float(number) * _UNITS[unit]
    except ValueError:  # dots in odd places
        size_bytes = float("nan")
    if not LEAST_BYTES <= size_bytes <= MOST_BYTES:  # NaN is neither
        raise ConfigError(f"gpu={name!r} is not the size of a GPU; a number from 1GiB to 1024GiB is needed.")
    return Gpu(
        name=number.lstrip("+") + {"gib": "GiB", "gb": "GB"}[unit], memory_bytes=int(size_bytes),
        usable_bytes=int(size_bytes) - CONTEXT_BYTES, compute_capability=None, bf16=True,
    )  # fmt: skip
