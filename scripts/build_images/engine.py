"""What a program that builds images must do. Docker and buildah fit it."""

from pathlib import Path
from typing import Protocol

from scripts.build_images.catalog import Image


class Engine(Protocol):
    """Builds images and writes them into archives."""

    def base(self, wanted: str | None) -> str:
        """The base image to build on: `wanted`, or one that this engine can have. Its name changes with its content.

        Raises:
            BuildError: none can be had.
        """
        ...

    def build(self, image: Image, *, base: str) -> None:
        """Builds and tags an image; layers that did not change are taken from the cache."""
        ...

    def export(self, image: Image, archive: Path) -> int:
        """Writes the built image as an archive. Returns the number of bytes written."""
        ...

    def prune(self) -> None:
        """Removes what earlier builds of these images left."""
        ...
