"""Builds images with a Docker daemon, the usual case on a developer's machine."""

from pathlib import Path

from scripts.build_images.catalog import ROOT, Image, version
from scripts.build_images.steps import answers, run

DEFAULT_BASE = "python:3.12-slim-bookworm"
"""The base image that the Dockerfiles name."""


def available() -> bool:
    """Returns True when a daemon answers. The command may exist without a daemon."""
    return answers(["docker", "version", "--format", "{{.Server.Version}}"], seconds=10)


class Docker:
    """The Docker engine."""

    def base(self, wanted: str | None) -> str:
        """Returns `wanted`, or the Dockerfiles' base image, which Docker pulls."""
        return wanted or DEFAULT_BASE

    def build(self, image: Image, *, base: str) -> None:
        """Runs `docker build` with BuildKit, which has cache mounts."""
        run(
            [
                "docker", "build", "--quiet", "--tag", image.tag, "--file", ROOT / image.dockerfile,
                "--build-arg", f"BASE={base}", "--build-arg", f"VERSION={version()}", ROOT,
            ]
        )  # fmt: skip

    def export(self, image: Image, archive: Path) -> int:
        """Runs `docker save`, which always writes the whole image."""
        partial = archive.with_name(archive.name + ".partial")
        run(["docker", "save", "--output", partial, image.tag])
        partial.replace(archive)
        return archive.stat().st_size

    def prune(self) -> None:
        """Does nothing: other projects use the daemon's cache too."""
