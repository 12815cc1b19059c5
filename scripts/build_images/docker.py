"""Building with a Docker daemon: the usual case on a developer's machine."""

from pathlib import Path

from scripts.build_images.catalog import ROOT, Image, version
from scripts.build_images.steps import answers, run

DEFAULT_BASE = "python:3.12-slim-bookworm"
"""The Dockerfiles' own base."""


def available() -> bool:
    """Whether there is a daemon; the command alone says nothing."""
    return answers(["docker", "version", "--format", "{{.Server.Version}}"], seconds=10)


class Docker:
    """The engine."""

    def base(self, wanted: str | None) -> str:
        """Docker pulls what the Dockerfile names."""
        return wanted or DEFAULT_BASE

    def build(self, image: Image, *, base: str) -> None:
        """`docker build` (BuildKit, for the cache mounts)."""
        run(
            [
                "docker", "build", "--quiet", "--tag", image.tag, "--file", ROOT / image.dockerfile,
                "--build-arg", f"BASE={base}", "--build-arg", f"VERSION={version()}", ROOT,
            ]
        )  # fmt: skip

    def export(self, image: Image, archive: Path) -> int:
        """`docker save`, which has no way to leave out what the archive holds already."""
        partial = archive.with_name(archive.name + ".partial")
        run(["docker", "save", "--output", partial, image.tag])
        partial.replace(archive)
        return archive.stat().st_size

    def prune(self) -> None:
        """Left to the user: the daemon's cache is not ours alone."""
