"""Changes the end of an image archive instead of writing the whole archive.

The trainer's layers have almost 7 GB and change with the requirements. Our code has 1 MB and changes all the time. In
an archive in the format of `docker save`, the layers come first, in the image's order. A new build keeps the layers
that have not changed: the file is cut after them, and only the rest is written.

buildah, which exports the image, skips a blob whose file is in the OCI layout already. It looks only at the presence
and the size of the file. So the layout first gets a sparse file for each layer that the archive holds, which takes no
disk space. Layers are identified by the digest of their uncompressed bytes (`diff_ids`).
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, cast

_BLOCK = 512
_COPY_BYTES = 1 << 22
_GZIP_MAGIC = b"\x1f\x8b"

Exporter = Callable[[Path], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer in an archive.

    Attributes:
        digest: SHA-256 of the uncompressed bytes, in hexadecimal.
        size: number of uncompressed bytes.
        end: offset after the layer's last block in the archive.
    """

    digest: str
    size: int
    end: int


def write(archive: Path, name: str, *, save: Exporter, export: Exporter, scratch: Path) -> int:
    """Writes an image into `archive`. Returns the number of bytes written.

    During the change the archive has another name. So a reader finds the old archive, none or the new one. An archive
    that cannot be used is replaced.

    Args:
        archive: the file, which may exist.
        name: the image's name.
        save: writes the whole image as an archive into a file.
        export: writes the image as an OCI layout into a folder, without the blobs that are there.
        scratch: folder for temporary files.
    """
    partial = archive.with_name(archive.name + ".partial")
    partial.unlink(missing_ok=True)
    held = leading_layers(archive)
    if held:
        archive.rename(partial)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            written = _update(partial, name, held, export, Path(folder))
        if written is not None:
            partial.rename(archive)
            return written
        partial.unlink()
    save(partial)
    partial.replace(archive)
    return archive.stat().st_size


def leading_layers(archive: Path) -> list[Layer]:
    """Returns the layers at the start of an archive. Empty when it is missing, damaged or in another format."""
    found: list[Layer] = []
    with suppress(OSError, tarfile.TarError, LookupError, ValueError), tarfile.open(archive, "r:") as tar:
        members = list(tar)
        [image] = json.loads(_member(tar, "manifest.json"))
        for member, name in zip(members, image["Layers"], strict=False):
            if member.name != name or not member.isfile() or not name.endswith(".tar"):
                break
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
            found.append(Layer(digest=name.removesuffix(".tar"), size=member.size, end=end))
    return found


def _update(partial: Path, name: str, held: list[Layer], export: Exporter, layout: Path) -> int | None:
    """Changes the end of the archive. Returns the number of bytes written, or None when no layer can be kept."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    for layer in held:
        with (blobs / layer.digest).open("wb") as file:
            file.truncate(layer.size)
    export(layout)
    manifest = _json(blobs, _json(layout, "index.json")["manifests"][0]["digest"])
    configuration = (blobs / _hex(manifest["config"]["digest"])).read_bytes()
    wanted = [_hex(digest) for digest in json.loads(configuration)["rootfs"]["diff_ids"]]
    same = takewhile(lambda pair: pair[0].digest == pair[1], zip(held, wanted, strict=False))
    kept = [layer for layer, _ in same]
    moved = {layer.digest for layer in held[len(kept) :]} & set(wanted)
    if not kept or moved:
        return None  # the export lacks a layer whose position has changed: its bytes are only in the old archive
    start = kept[-1].end
    with partial.open("r+b") as file:
        file.truncate(start)
        file.seek(start)
        # tarfile.open has no argument for the buffer's size, and its 16 KiB are slow for gigabytes.
        with tarfile.TarFile(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, copybufsize=_COPY_BYTES) as tar:
            for digest, blob in list(zip(wanted, manifest["layers"], strict=True))[len(kept) :]:
                _add_layer(tar, digest, blobs / _hex(blob["digest"]), scratch=layout)
            configuration_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
            _add(tar, configuration_name, configuration)
            layers = [f"{digest}.tar" for digest in wanted]
            image = [{"Config": configuration_name, "RepoTags": [name], "Layers": layers}]
            _add(tar, "manifest.json", json.dumps(image).encode())
        return file.tell() - start


def _add_layer(tar: tarfile.TarFile, digest: str, blob: Path, *, scratch: Path) -> None:
    """Adds a layer without compression, because the archive is imported on the same machine."""
    with tempfile.TemporaryFile(dir=scratch) as plain:
        with blob.open("rb") as packed:
            compressed = packed.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        with cast("BinaryIO", gzip.open(blob)) if compressed else blob.open("rb") as content:
            shutil.copyfileobj(content, plain, _COPY_BYTES)
        blob.unlink()
        entry = tarfile.TarInfo(f"{digest}.tar")
        entry.size = plain.tell()
        plain.seek(0)
        tar.addfile(entry, plain)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise LookupError(name)
    return file.read()


def _json(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / _hex(name)).read_bytes())
    return content


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
