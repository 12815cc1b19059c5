"""The Protocol of a program that builds images. Docker and buildah implement it."""

from pathlib import Path
from typing import Protocol

from scripts.build_images.catalog import Image


class Engine(Protocol):
    """Builds images and writes them into archives."""

    def base(self, wanted: str | None) -> str:
        """Returns the base image: `wanted`, or one that this engine can get. Its name changes with its content.

        Raises:
            BuildError: there is none.
        """
        ...

    def build(self, image: Image, *, base: str) -> None:
        """Builds and tags an image. Unchanged layers come from the cache."""
        ...

    def export(self, image: Image, archive: Path) -> int:
        """Writes the built image as an archive. Returns the number of bytes written."""
        ...

    def prune(self) -> None:
        """Removes the layers of earlier builds of these images."""
        ...
