"""Bytes and counts in words."""


def human_bytes(count: int | float) -> str:
    """``"12.34 MiB"``: bytes in the binary unit that keeps the number below 1024."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.2f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def counted(count: int, noun: str) -> str:
    """``"1 run"``, ``"2 runs"``: a count with what is counted, of which ``noun`` is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def unit_of(*numbers: int | float | None) -> tuple[str, int]:
    """GiB, or MiB where all of these are below one."""
    return ("GiB", 2**30) if max((n or 0 for n in numbers), default=0) >= 2**30 else ("MiB", 2**20)
