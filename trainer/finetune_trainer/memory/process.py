"""The memory of this process: what it has taken at most, and what it may take. The files of Linux, read as text."""

import re
from pathlib import Path

_KIB = 1 << 10


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


def _number(file: Path) -> int | None:
    """The file's number; None when it says `max`, or is not there."""
    text = _text(file).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _kilobytes(file: Path, name: str) -> int | None:
    found = re.search(rf"^{name}:\s*([0-9]+) kB$", _text(file), re.MULTILINE)
    return int(found[1]) * _KIB if found else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
