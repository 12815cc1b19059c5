"""The programs prometheus and promtool: those on PATH, or from Debian's package, unpacked into the user's cache."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "prometheus"


class NoPrometheusError(Exception):
    """The programs cannot be had. The message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Paths of the two programs."""

    prometheus: Path
    promtool: Path

    def tool(self, *arguments: str | Path, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Runs promtool. Whether it succeeded is in the result."""
        command = [self.promtool, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def programs() -> Programs:
    """The two programs. Nothing is installed in the system.

    Raises:
        NoPrometheusError: they are not on PATH, and the package cannot be downloaded.
    """
    found = shutil.which("prometheus"), shutil.which("promtool")
    if found[0] and found[1]:
        return Programs(prometheus=Path(found[0]), promtool=Path(found[1]))
    folder = _cache() / "usr/bin"
    if not (folder / "promtool").exists():
        _unpack(_cache())
    return Programs(prometheus=folder / "prometheus", promtool=folder / "promtool")


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "finetune-operator" / "debian" / PACKAGE


def _unpack(target: Path) -> None:
    """Downloads the package and unpacks it; a folder that is there is always whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        folder.chmod(0o755)  # apt downloads as a user of its own
        try:
            subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, capture_output=True, text=True)
            [package] = folder.glob("*.deb")
            subprocess.run(["dpkg", "-x", package, folder / "unpacked"], check=True, capture_output=True, text=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            detail = getattr(error, "stderr", None) or error
            raise NoPrometheusError(
                f"put prometheus and promtool on PATH, or run this on Debian after `apt-get update`: {detail}"
            ) from None
        try:
            (folder / "unpacked").rename(target)
        except OSError:
            if not (target / "usr/bin/promtool").exists():  # another process was not quicker
                raise
