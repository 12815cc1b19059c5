"""Finds and removes the mounts below a folder: volumes and root file systems of pods, network namespaces."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from localcluster.errors import ClusterError

_MNT_DETACH = 2
_ESCAPE = re.compile(r"\\([0-7]{3})")


def below(folder: Path) -> list[Path]:
    """Returns the mount points below a folder, the deepest and latest first."""
    prefix = f"{folder}/"
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), line.split()[4])
        if point.startswith(prefix):
            points.append(Path(point))
    return points[::-1]


def unmount_below(folder: Path) -> None:
    """Unmounts everything below a folder.

    Raises:
        ClusterError: a mount cannot be removed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for point in below(folder):
        if libc.umount2(os.fsencode(point), 0) != 0:
            # A busy mount: a lazy unmount removes it when its last user ends.
            libc.umount2(os.fsencode(point), _MNT_DETACH)
    if stay := below(folder):
        raise ClusterError(f"cannot unmount {', '.join(map(str, stay))}")
