"""Shares the images of one node with another without reading or writing their gigabytes.

Nobody writes to the folder of an unpacked layer. So the other node's layer is made of hard links to the same files.
containerd itself prepares and commits the snapshots, under the names by which it finds unpacked layers. Then an import
of manifest and configuration alone makes the image.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from localcluster.commands import run
from localcluster.pause_image import tar_archive

_MANIFESTS = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    }
)
_INDEX_NAME = "io.containerd.image.name"
"""The annotation by which an import names an image of an OCI archive."""


class Runtime(Protocol):
    """The part of a node's container runtime that is used here."""

    def ctr(self, *arguments: str) -> str:
        """Runs containerd's client in the namespace of Kubernetes. Returns its output."""
        ...


@dataclass(frozen=True)
class Image:
    """A name and the digest of its manifest."""

    name: str
    media_type: str
    digest: str


def images(runtime: Runtime) -> list[Image]:
    """Returns the images of a node by name, without images of several platforms."""
    rows = [line.split()[:3] for line in runtime.ctr("images", "ls").splitlines()[1:]]
    return [Image(*row) for row in rows if row[1] in _MANIFESTS]


def share(source: Runtime, target: Runtime) -> list[str]:
    """Gives the images of `source` to `target`. Both must be on one file system.

    Returns:
        The names of the images that the target lacked.
    """
    there = images(target)
    missing = [image for image in images(source) if is_proper(image.name) and image not in there]
    for image in missing:
        _share(image, source, target)
    return [image.name for image in missing]


def is_proper(name: str) -> bool:
    """Returns True for a name that a pod would use. Digests and ids are other names of the same images."""
    return "@" not in name and not name.startswith("sha256:")


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Returns the snapshot names of an image's layers (OCI image specification, "ChainID").

    Each name covers the layer and all layers below it.
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        below = f"{chain[-1]} {diff_id}".encode() if chain else None
        chain.append(f"sha256:{hashlib.sha256(below).hexdigest()}" if below else diff_id)
    return chain


def _share(image: Image, source: Runtime, target: Runtime) -> None:
    manifest = source.ctr("content", "get", image.digest)
    config_digest = json.loads(manifest)["config"]["digest"]
    config = source.ctr("content", "get", config_digest)
    chain = chain_ids(json.loads(config)["rootfs"]["diff_ids"])
    there = {line.split()[0] for line in target.ctr("snapshots", "ls").splitlines()[1:]}
    parent: str | None = None
    for folder, name in zip(_layers(source, chain[-1]), chain, strict=True):
        if name not in there:
            key = f"shared-{name}"
            fresh = _upper(target.ctr("snapshots", "prepare", "--target=/", key, *([parent] if parent else [])))
            run(["cp", "--archive", "--link", f"{folder}/.", fresh], timeout=300)
            target.ctr("snapshots", "commit", name, key)
        parent = name
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        archive.write(_archive(image, {image.digest: manifest.encode(), config_digest: config.encode()}))
        archive.flush()
        target.ctr("images", "import", "--snapshotter", "overlayfs", archive.name)


def _layers(runtime: Runtime, top: str) -> list[str]:
    """Returns the folders of an image's layers, the lowest first."""
    key = f"look-{top}"
    try:
        [mount] = runtime.ctr("snapshots", "view", "--target=/", key, top).splitlines()
    finally:
        runtime.ctr("snapshots", "rm", key)
    # With a single layer, the mount is a bind mount of its folder.
    return _option(mount, "lowerdir").split(":")[::-1] if " overlay " in mount else [mount.split()[3]]


def _upper(mount: str) -> str:
    """Returns the folder for the files of a prepared snapshot."""
    return _option(mount, "upperdir") if " overlay " in mount else mount.split()[3]


def _option(mount: str, name: str) -> str:
    """Returns an option of a printed `mount` command."""
    options = dict(option.partition("=")[::2] for option in mount.rsplit(maxsplit=1)[-1].split(","))
    return options[name]


def _archive(image: Image, blobs: dict[str, bytes]) -> bytes:
    """Returns an OCI archive of an image without its layers."""
    descriptor: dict[str, Any] = {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(blobs[image.digest]),
        "annotations": {_INDEX_NAME: image.name},
    }
    files = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode(),
        **{f"blobs/{digest.replace(':', '/')}": content for digest, content in blobs.items()},
    }
    return tar_archive(files, mode=0o644)
