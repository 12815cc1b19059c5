"""The memory of this process: its peak, its limit, and whether freed memory is kept.

What it takes is read from the files of Linux, as text.
"""

import ctypes
import re
from pathlib import Path

_KIB = 1 << 10
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""


def peak_process_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Highest resident memory of the process so far; None where the system does not say.

    Not getrusage's ru_maxrss: a process inherits that from the one that started it, across exec.
    """
    return _kilobytes(status, "VmHWM")


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """What the process may take: the container's limit (cgroup 2 or 1), or the machine's memory if that is less."""
    limits = [
        _number(root / "sys/fs/cgroup/memory.max"),
        _number(root / "sys/fs/cgroup/memory/memory.limit_in_bytes"),
        _kilobytes(root / "proc/meminfo", "MemTotal"),
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed for what is allocated next, instead of giving it back to the system.

    A step of training frees and allocates the same gigabytes again and again, and every page that comes fresh from
    the system is cleared first: up to a tenth of a small model's time, by how blocks happen to lie in the heap. The
    peak stays as it is.

    Returns:
        Whether it does now; only glibc has the settings (mallopt(3)).
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    # Their largest values: 32 MiB is the most that glibc takes for the one, and an int's end for the other.
    return bool(set_option(_MMAP_THRESHOLD, 32 << 20)) and bool(set_option(_TRIM_THRESHOLD, (1 << 31) - 1))


def _number(file: Path) -> int | None:
    """The file's number; None when it says `max`, or is not there."""
    text = _text(file).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _kilobytes(file: Path, name: str) -> int | None:
    match = re.search(rf"^{name}:\s*([0-9]+) kB$", _text(file), re.MULTILINE)
    return int(match[1]) * _KIB if match else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
