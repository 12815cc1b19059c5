"""Checksums of local files: for a manifest, and to find damaged files.

The Hub gives the SHA-256 of large files and Git's object name of small ones. Its client compares sizes only, unless the
file came through Xet (huggingface_hub 1.x, file_download.py: http_get). So the client does not notice a mirror or proxy
that damages bytes. A client cannot compute an S3 ETag: for S3 only the size is compared.
"""

import hashlib
import re
from pathlib import Path

from finetune_trainer.contract.manifest import ManifestFile, SourceObject
from finetune_trainer.contract.uri import Scheme

_GIT_NAME = re.compile("[0-9a-f]{40}")
_CHUNK = 1 << 20


def damage(file: Path, source: SourceObject) -> str | None:
    """Compares a file with its source. Returns the difference in words, or None when file and source agree.

    A message consists of the file's name and these words: "has 3 bytes, expected 4".

    Raises:
        OSError: the file cannot be read.
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
    """Returns the SHA-256 of the file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_under(folder: Path) -> list[Path]:
    """Returns all files in the folder and its subfolders, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def manifest_entry(path: str, file: Path) -> ManifestFile:
    """Returns the manifest's entry of a file: its size, its SHA-256, and the path that the manifest gives it."""
    return ManifestFile(path=path, size=file.stat().st_size, sha256=sha256_of(file))


def _git_name(file: Path) -> str:
    """Returns Git's object name: the SHA-1 of Git's header and the content (git-hash-object)."""
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
