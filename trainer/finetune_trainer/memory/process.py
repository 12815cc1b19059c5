"""The host memory of this process: its peak, its limit, and a setting of the C library.

Peak and limit are read from Linux's /proc and /sys.
"""

import ctypes
import re
from pathlib import Path

_KIB = 1 << 10
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""


def peak_process_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """Highest resident memory of the process so far, in bytes; None if the system does not report it.

    getrusage's ru_maxrss is not used: a process inherits its value from the parent process, across exec.
    """
    return _kilobytes(status, "VmHWM")


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """The memory limit of the process in bytes; None if the system does not report one.

    It is the container's limit (cgroup 2 or 1), or the machine's memory if that is less.
    """
    limits = [
        _number(root / "sys/fs/cgroup/memory.max"),
        _number(root / "sys/fs/cgroup/memory/memory.limit_in_bytes"),
        _kilobytes(root / "proc/meminfo", "MemTotal"),
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def keep_freed_memory() -> bool:
    """Sets the C library to keep freed memory for later allocations instead of returning it to the system.

    Every training step frees and allocates the same gigabytes, and the system clears every page that it gives out. That
    takes up to a tenth of a small model's time; the share depends on the layout of the heap. The peak of the memory
    does not change.

    Returns:
        Whether the setting was applied. Only glibc has it (mallopt(3)).
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    # The largest values: glibc accepts at most 32 MiB for M_MMAP_THRESHOLD and an int for M_TRIM_THRESHOLD.
    return bool(set_option(_MMAP_THRESHOLD, 32 << 20)) and bool(set_option(_TRIM_THRESHOLD, (1 << 31) - 1))


def _number(file: Path) -> int | None:
    """The number in the file; None if the file has `max` or is missing."""
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
