"""Fetches a committed adapter: every file is verified against the manifest before any of them appears at its place."""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_operator.cli.errors import CommandError, Exit
from finetune_operator.cli.views.job import JobView
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.layout import MANIFEST_NAME
from finetune_trainer.contract.manifest import Manifest, ManifestFile
from finetune_trainer.contract.problem import problems_of
from finetune_trainer.contract.recipe.output import StorageSpec
from finetune_trainer.contract.uri import Scheme, Uri, parse_uri
from finetune_trainer.storage.base import Store
from finetune_trainer.storage.content import sha256_of
from finetune_trainer.storage.parallel import download_all
from finetune_trainer.storage.registry import open_store
from finetune_trainer.storage.timing import CHECKING

OnBytes = Callable[[int], None]


class Output:
    """The committed output of a job.

    Args:
        job: a job that has succeeded.
        endpoint: the S3 server's address as this machine reaches it; None for that of the job.

    Raises:
        CommandError: the storage cannot be used, or the manifest is not the one that the job reported.
    """

    def __init__(self, job: JobView, endpoint: str | None) -> None:
        uri = job.output("manifestUri")
        with _said():
            place = _s3(uri)
            self._store: Store = open_store(place, _storage(job.raw, endpoint), None, timing=CHECKING)
            content = self._store.read(place)
        if content is None:
            raise CommandError(f"{uri} is not there any more: the adapter was removed")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if digest != job.output("digest"):
            raise CommandError(
                f"{uri} has the digest {digest}, and the job reported {job.output('digest')}: somebody has replaced it"
            )
        try:
            self.manifest = Manifest.parse(content)
        except ValueError as error:
            raise CommandError(f"{uri}: {error}") from None
        self._run = _parent(place)

    def fetch(self, target: Path, *, merged: bool, on_bytes: OnBytes) -> bool:
        """Downloads the adapter's files, or those of the merged model.

        Args:
            target: the folder that is made.
            merged: take the merged model.
            on_bytes: called with the number of bytes that have come. Several threads call it.

        Returns:
            False if the folder was there already, with exactly these files; nothing is downloaded then.

        Raises:
            CommandError: the folder has other files, a file is not as the manifest says, or storage fails. No part of
                the folder is left.
        """
        folder = self.manifest.merged if merged else self.manifest.adapter
        if folder is None:
            raise CommandError("there is no merged model: the job had no output.merged")
        files, target = _relative(self.manifest.files, folder), target.absolute()
        if target.is_symlink() or target.exists():
            if target.is_dir() and any(target.iterdir()):
                if wrong := differences(target, files):
                    raise CommandError(f"{target} is there and is not this output ({wrong[0]}): name another --to")
                return False
            if not target.is_dir() or target.is_symlink():
                raise CommandError(f"{target} is there and no folder: name another --to")
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            part.mkdir(parents=True)
            with _said():
                self._download(files, self._run.child(folder), part, on_bytes)
            if wrong := differences(part, files):
                raise CommandError(f"{wrong[0]}: the download is thrown away; try again")
            os.replace(part, target)  # noqa: PTH105 (an empty folder at the place is replaced)
        except OSError as error:
            raise CommandError(f"{target}: {error.strerror}") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return True

    def _download(self, files: Mapping[str, ManifestFile], place: Uri, part: Path, on_bytes: OnBytes) -> None:
        stored = {
            item.uri: item
            for item in self._store.stat(Uri(scheme=place.scheme, authority=place.authority, path=f"{place.path}/"))
        }
        names = {str(place.child(name)): name for name in files}
        if lost := sorted(set(names) - set(stored)):
            raise CommandError(f"{lost[0]} is not there any more")
        for uri, name in names.items():
            if stored[uri].size != files[name].size:
                raise CommandError(
                    f"{uri} has {stored[uri].size} bytes, and the manifest says {files[name].size}: it was replaced"
                )
        download_all(
            self._store,
            [stored[uri] for uri in names],
            part,
            on_bytes,
            link=False,
            name=lambda item: names[item.uri],
        )


def differences(folder: Path, files: Mapping[str, ManifestFile]) -> list[str]:
    """What is different in a folder from a manifest's files, a sentence each; empty if nothing is.

    Args:
        folder: the folder.
        files: the files by their paths in it.
    """
    found = []
    here = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    found += [f"{name} is not a file of the output" for name in sorted(here - set(files))]
    for name, file in files.items():
        path = folder / name
        if name not in here:
            found.append(f"{name} is missing")
        elif path.is_symlink() or path.stat().st_size != file.size:
            found.append(f"{name} has another size than the manifest says")
        elif sha256_of(path) != file.sha256:
            found.append(f"{name} has another SHA-256 than the manifest says")
    return found


def _relative(files: list[ManifestFile], folder: str) -> dict[str, ManifestFile]:
    """The files of a folder of the run, by their paths in it.

    Raises:
        CommandError: there are none, or one is named twice.
    """
    inside = [file for file in files if file.path.startswith(f"{folder}/")]
    found = {file.path.removeprefix(f"{folder}/"): file for file in inside}
    if not found or len(found) != len(inside):
        raise CommandError(f"the manifest names no file of {folder}, or one of them twice")
    return found


def _storage(raw: Mapping[str, Any], endpoint: str | None) -> StorageSpec:
    """The job's storage, as this machine reaches it."""
    section = {**((raw.get("spec") or {}).get("storage") or {})} | ({"endpoint": endpoint} if endpoint else {})
    try:
        return StorageSpec.model_validate(section)
    except ValidationError as error:
        raise CommandError("; ".join(map(str, problems_of(error, "spec.storage"))), Exit.USAGE) from None


def _s3(uri: str) -> Uri:
    """The parsed place of a manifest.

    Raises:
        CommandError: it is not in S3.
    """
    try:
        place = parse_uri(uri)
    except ValueError as error:
        raise CommandError(f"the job's output has no usable place: {error}") from None
    if place.scheme is not Scheme.S3 or not place.path.endswith(f"/{MANIFEST_NAME}"):
        raise CommandError(f"{uri} is not a manifest in S3: fetch it yourself")
    return place


def _parent(place: Uri) -> Uri:
    return Uri(scheme=place.scheme, authority=place.authority, path=place.path.rpartition("/")[0])


@contextlib.contextmanager
def _said() -> Any:
    """Turns storage's errors into messages for somebody at a terminal."""
    try:
        yield
    except TrainerError as error:
        raise CommandError(
            f"{error.reason}: {error.message}\nKeys come from this machine: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or the AWS profile. If the job's endpoint is an address of the cluster, name one "
            "that works here with --endpoint",
            error.exit_code,
        ) from None
    except ModuleNotFoundError as error:
        missing = (error.name or "boto3").split(".")[0]
        raise CommandError(f"{missing} is not installed: pip install '.[cli]' in a checkout", Exit.USAGE) from None
