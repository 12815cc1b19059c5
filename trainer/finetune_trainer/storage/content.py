"""Checksums of local files: for a manifest, or to compare with what the source says.

The Hub gives the SHA-256 of large files and Git's object name of small ones. Its client compares sizes only, unless the
file came through Xet. A mirror or proxy that damages bytes would go unnoticed (huggingface_hub 1.x,
file_download.py: http_get). An S3 ETag is no checksum that a client can compute: only the size is compared.
"""

import hashlib
import re
from pathlib import Path

from finetune_trainer.contract.manifest import ManifestFile, SourceObject
from finetune_trainer.contract.uri import Scheme

_GIT_NAME = re.compile("[0-9a-f]{40}")
_CHUNK = 1 << 20


def damage(file: Path, source: SourceObject) -> str | None:
    """What is wrong with the file, as the rest of a sentence that begins with its name; None when nothing is.

    Raises:
        OSError: it cannot be read.
    """
    size = file.stat().st_size
    if size != source.size:
        return f"has {size} bytes, expected {source.size}"
    if source.sha256 is not None:
        return _differs("SHA-256", sha256_of(file), source.sha256)
    if source.uri.startswith(f"{Scheme.HF}://") and _GIT_NAME.fullmatch(source.etag or ""):
        return _differs("Git name", _git_name(file), source.etag or "")
    return None


def _differs(what: str, actual: str, expected: str) -> str | None:
    return None if actual == expected else f"has the {what} {actual}, expected {expected}"


def sha256_of(file: Path) -> str:
    """SHA-256 of the file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_under(folder: Path) -> list[Path]:
    """All files in the folder and below, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def manifest_entry(path: str, file: Path) -> ManifestFile:
    """The file with size and checksum, under the path that a manifest names it by."""
    return ManifestFile(path=path, size=file.stat().st_size, sha256=sha256_of(file))


def _git_name(file: Path) -> str:
    """SHA-1 of the content after Git's header (git-hash-object)."""
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
