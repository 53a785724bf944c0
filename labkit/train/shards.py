"""Shards: read safetensors files one tensor at a time, straight into memory of the wanted dtype and device.

The usual readers map the file. Tensors then stay views of one storage as large as the file, its pages count as memory
of the process, and a checkpoint in another dtype lies in memory twice. Here each tensor gets a storage of its own and
is filled from the file; only what must be converted, or carried to a GPU, goes through a small buffer.
"""

import ctypes
import json
import math
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from labkit.config.regular_file import open_regular
from labkit.memory.tracker import host
from labkit.train.errors import CheckpointError

BUFFER_BYTES = 8 * 2**20
"""Host memory that conversion and the way to a GPU take on top of the tensor itself."""

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_LONGEST_HEADER = 100 * 2**20
"""Bytes; the format's own limit. Without a limit, a damaged length would be read as exabytes."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: ``tensor[...]`` reads it, which is all that transformers' loader asks of a tensor.

    ``start`` is its first byte in the file. Floating point tensors arrive in ``target_dtype``, others as they are.
    """

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    target_dtype: torch.dtype
    device: torch.device

    def __getitem__(self, index: object) -> torch.Tensor:
        if index is not Ellipsis:
            raise TypeError(f"{self.name}: a stored tensor is read whole, with [...]")
        _trim_heap()
        dtype = self.target_dtype if self.dtype.is_floating_point else self.dtype
        # made where a tracker sees it: this is memory of the device
        tensor = torch.empty(self.shape, dtype=dtype, device=self.device)
        with host(), torch.no_grad():
            self._fill(tensor.view(-1))
        return tensor

    def _fill(self, flat: torch.Tensor) -> None:
        if not flat.numel():
            return
        with open_regular(self.path) as buffered:
            file = buffered.raw  # straight into the tensor
            file.seek(self.start)
            if flat.dtype == self.dtype and flat.device.type == "cpu":
                self._read(file, memoryview(flat.view(torch.uint8).numpy()))
                return
            buffer = bytearray(min(BUFFER_BYTES, flat.numel() * self.dtype.itemsize))
            piece = torch.frombuffer(buffer, dtype=self.dtype)
            for first in range(0, flat.numel(), piece.numel()):
                count = min(piece.numel(), flat.numel() - first)
                self._read(file, memoryview(buffer)[: count * self.dtype.itemsize])
                flat[first : first + count].copy_(piece[:count])

    def _read(self, file: object, into: memoryview) -> None:
        done = 0
        while done < len(into):  # one call reads 2 GiB at most
            got = file.readinto(into[done:])
            if not got:
                raise CheckpointError(f"{self.path} ends inside {self.name}; it was cut while it was read.")
            done += got


def stored_tensors(
    path: Path, target_dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name; only its header is read.

    Raises ``CheckpointError`` for a file that is cut, damaged or in another format. The message says what is wrong; the
    caller adds what to do.
    """
    try:
        opened = open_regular(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {_first_line(error)}") from None
    with opened as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            raise CheckpointError(f"{path} is damaged: its header does not fit into its {size:,} bytes")
        text = file.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        found = {
            name: _stored_tensor(path, name, entry, 8 + length, target_dtype, torch.device(device))
            for name, entry in entries.items()
        }
        spans = sorted(tuple(entry["data_offsets"]) for entry in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its header is not readable ({_first_line(error)})") from None
    end = 8 + length + max((end for _, end in spans), default=0)
    if end != size:
        what = "is cut" if end > size else "is damaged"
        raise CheckpointError(f"{path} {what}: its header speaks of {end:,} bytes, it has {size:,}")
    if any(before != start for (_, before), (start, _) in pairwise([(0, 0), *spans])):  # which the format forbids
        raise CheckpointError(f"{path} is damaged: its tensors overlap, or leave bytes that belong to none")
    return found


def _stored_tensor(
    path: Path, name: str, entry: dict, data_start: int, target_dtype: torch.dtype, device: torch.device
) -> StoredTensor:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} has dtype {entry['dtype']}")
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
        raise ValueError(f"{name} has a shape or a place that is not a list of counts")
    if end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {end - start} bytes for the shape {list(shape)}")
    return StoredTensor(path, name, dtype, shape, data_start + start, target_dtype, device)


_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None  # glibc has it


def _trim_heap() -> None:
    """Give the system back what quantizing the tensor before has freed.

    glibc keeps freed pieces of up to 32 MiB, and what is kept of a quantized layer lies between them: without this
    a 4-bit model takes more host memory while it is loaded than its weights in 16 bits.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
