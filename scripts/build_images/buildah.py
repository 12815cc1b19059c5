"""Builds images without a daemon: with buildah, whose storage is in the user's cache.

It works without a registry, user namespaces and systemd: RUN steps run in a chroot (`--isolation chroot`). The host's
CA bundle and package cache are mounted during a step and are in no layer.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from scripts.build_images import archive as image_archive
from scripts.build_images import debian_base
from scripts.build_images.catalog import ROOT, Image, version
from scripts.build_images.docker import DEFAULT_BASE
from scripts.build_images.steps import BuildError, answers, run, step

_PULL_SECONDS = 30
_UV_CACHE_INSIDE = "/var/cache/uv"
_CA_INSIDE = "/run/build/ca-certificates.crt"


def available() -> bool:
    """Returns True when buildah is installed."""
    return shutil.which("buildah") is not None


class Buildah:
    """The buildah engine.

    Args:
        home: folder for storage, state and temporary files. It must be on a disk, not in memory.
        environment: the caller's environment.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._scratch = home / "tmp"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._environment = {**environment, "TMPDIR": str(self._scratch)}
        self._command: list[str | Path] = [
            "buildah", "--root", home / "storage", "--runroot", home / "run", "--storage-driver", "overlay",
        ]  # fmt: skip
        self._mounts = _Mounts.of(environment)

    def base(self, wanted: str | None) -> str:
        """Returns `wanted`, or the Dockerfiles' base image from a registry, or else a Debian that is made here."""
        self._run("rm", "--all")  # A killed build leaves containers, which keep layers mounted.
        if wanted:
            return wanted
        made = debian_base.name()
        if self._has(made):
            return made
        if self._has(DEFAULT_BASE) or self._pulls(DEFAULT_BASE):
            return DEFAULT_BASE
        if not debian_base.available():
            raise BuildError(
                f"{DEFAULT_BASE} cannot be pulled and mmdebstrap is missing: install it, or name a local image with "
                "--base"
            )
        with step(f"making the base image {made} from Debian's packages, once"):
            debian_base.make(made, scratch=self._scratch, buildah=self._run)
        return made

    def build(self, image: Image, *, base: str) -> None:
        """Runs `buildah build` with its layer cache."""
        self._run(
            "build", "--quiet", "--layers", "--force-rm", "--isolation", "chroot", "--format", "oci",
            "--tag", image.tag, "--build-arg", f"BASE={base}", "--build-arg", f"VERSION={version()}",
            *self._mounts.options, "--file", ROOT / image.dockerfile, ROOT,
        )  # fmt: skip

    def export(self, image: Image, archive: Path) -> int:
        """Writes an archive with uncompressed layers. Changes only the end of an existing archive where possible."""

        def save(path: Path) -> str:
            return self._run("push", "--quiet", image.tag, f"docker-archive:{path}:{image.tag}")

        def export(layout: Path) -> str:
            return self._run("push", "--quiet", image.tag, f"oci:{layout}:{image.tag}")

        return image_archive.write(archive, image.tag, save=save, export=export, scratch=self._scratch)

    def prune(self) -> None:
        """Removes images without a name on which no named image is based."""
        self._run("rmi", "--prune")

    def _run(self, *arguments: str | Path) -> str:
        return run([*self._command, *arguments], environment=self._environment)

    def _has(self, name: str) -> bool:
        return answers([*map(str, self._command), "inspect", "--type", "image", name], seconds=30)

    def _pulls(self, name: str) -> bool:
        # With the transport, because for a short name buildah would search the registries of its configuration.
        return answers([*map(str, self._command), "pull", "--quiet", f"docker://{name}"], seconds=_PULL_SECONDS)


class _Mounts:
    """The host's CA bundle and package cache, as options of `buildah build`."""

    def __init__(self, options: list[str]) -> None:
        self.options = options

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "_Mounts":
        cache = Path(environment.get("UV_CACHE_DIR") or user_cache(environment) / "uv")
        cache.mkdir(parents=True, exist_ok=True)
        options = ["--volume", f"{cache}:{_UV_CACHE_INSIDE}", "--build-arg", f"UV_CACHE_DIR={_UV_CACHE_INSIDE}"]
        bundle = environment.get("SSL_CERT_FILE", "")
        if bundle and Path(bundle).is_file():
            options += ["--volume", f"{bundle}:{_CA_INSIDE}:ro", "--build-arg", f"SSL_CERT_FILE={_CA_INSIDE}"]
        return cls(options)


def user_cache(environment: Mapping[str, str]) -> Path:
    """Returns the user's cache folder."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def can_install() -> bool:
    """Returns True on a Debian where this process is root."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def install(environment: Mapping[str, str]) -> None:
    """Installs buildah and mmdebstrap from the distribution."""
    quiet = {**environment, "DEBIAN_FRONTEND": "noninteractive"}
    with step("installing buildah and mmdebstrap"):
        run(["apt-get", "update", "--quiet=2"], environment=quiet)
        packages = ["buildah", "mmdebstrap"]
        run(["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *packages], environment=quiet)
