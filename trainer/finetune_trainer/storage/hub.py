"""Models of the Hugging Face Hub, read-only, through huggingface_hub's own cache.

`stat` resolves a revision to a commit and records it with every file. From then on that commit is read, even if the
branch moves. Without a network (HF_HUB_OFFLINE, or a mounted cache) the snapshot in the cache is used as it is.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote

from huggingface_hub import constants, hf_hub_download, is_offline_mode, snapshot_download
from huggingface_hub.errors import FileMetadataError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but only by a lazy __all__
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)
from pydantic import Field, ValidationError

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.contract.wire import TolerantWire
from finetune_trainer.runtime.log import event
from finetune_trainer.storage.base import ByteCount, ObjectNotFoundError
from finetune_trainer.storage.content import damage, sha256_of
from finetune_trainer.storage.hub_errors import HubUnavailableError, known_reasons
from finetune_trainer.storage.hub_session import counter, make_strict
from finetune_trainer.storage.hub_token import HubToken
from finetune_trainer.storage.low_speed_limit import LowSpeedLimit
from finetune_trainer.storage.partial import partial_file
from finetune_trainer.storage.retry import LOG_ONLY, LatePause, Retryable, RetryNotifier, RetryPolicy

DEFAULT_REVISION = "main"
_ANSWER_SECONDS = 30.0
"""How long the Hub may be silent; the client itself would wait for ever (huggingface_hub:hf_api.py, model_info)."""
_RETRY = RetryPolicy(
    # Without an answer, or without a further piece of a file.
    seconds=90.0,
    tries=6,
    longest_pause=15.0,
    late_pause=LatePause.KEEP,
    # The Hub counts its limits over five minutes, and another attempt may come then.
    longest_retry_after=60.0,
)
_UNREACHABLE_TRIES = 4
"""How long an unreachable Hub is retried: usually the network is closed, or its name is wrong."""
_LOW_SPEED_LIMIT = LowSpeedLimit()
_SHA256_DIGITS = 64


class _Lfs(TolerantWire):
    sha256: str


class _Sibling(TolerantWire):
    name: str = Field(alias="rfilename")
    size: int
    blob_id: str
    lfs: _Lfs | None = None


class _ModelInfo(TolerantWire):
    """What is read of the Hub's description of a model at a revision (`/api/models/…?blobs=true`)."""

    sha: str
    siblings: list[_Sibling] = Field(default_factory=list)


class HubStore:
    """Hub models at one revision. Objects are `hf://org/name/file`.

    Args:
        revision: branch, tag or commit; None is the main branch.
        token: access token of a gated model; None leaves it to the client (HF_TOKEN, a login).
        cache: the Hub cache; None is the client's own place.
        sleep: waits that many seconds.
        low_speed_limit: the slowest answer.
        notifier: reports what is being waited for.
    """

    def __init__(
        self,
        *,
        revision: str | None = None,
        token: HubToken | None = None,
        cache: Path | None = None,
        sleep: Callable[[float], object] = time.sleep,
        low_speed_limit: LowSpeedLimit = _LOW_SPEED_LIMIT,
        notifier: RetryNotifier = LOG_ONLY,
    ) -> None:
        make_strict(low_speed_limit)
        self._revision = revision
        self._token = token
        self._cache = cache
        policy = replace(_RETRY, sleep=sleep, notifier=notifier)
        self._retry = replace(policy, unreachable=replace(policy, tries=_UNREACHABLE_TRIES))

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """See `Store.stat`. One request for the whole model; offline, the cached snapshot's files."""
        repo, file = _split(uri)
        objects = (
            self._cached(repo)
            if is_offline_mode()
            else self._retry.call(lambda: self._listed(repo), retryable=_retryable)
        )
        wanted = f"hf://{repo}/{file}".rstrip("/")
        objects = [item for item in objects if item.uri == wanted or item.uri.startswith(wanted + "/")]
        if not objects:
            raise ObjectNotFoundError(f"{_what(repo, file, self._revision)}: the Hub's model has no such file")
        return sorted(objects, key=lambda item: item.uri)

    def open(self, source: SourceObject) -> BinaryIO:
        """See `Store.open`. The file is fetched into the cache first."""
        return cast("BinaryIO", self._checked(source, _uncounted, None).open("rb"))

    def download(self, source: SourceObject, target: Path, on_bytes: ByteCount, *, link: bool = True) -> None:
        """See `Store.download`. A link goes into the client's cache: weights take their space once."""
        if link:
            with partial_file(target) as partial:
                partial.symlink_to(self._checked(source, on_bytes, None))
            return
        folder = _made(target.parent)
        with tempfile.TemporaryDirectory(prefix=".hub-", dir=folder) as own, partial_file(target) as partial:
            # Offline, the client looks for a file in its cache only when it is not to put it elsewhere.
            file = self._checked(source, on_bytes, None if is_offline_mode() else Path(own))
            if file.is_relative_to(Path(own).resolve()):
                file.replace(partial)
            else:
                shutil.copyfile(file, partial)

    def read(self, uri: Uri) -> bytes | None:
        """See `Store.read`."""
        try:
            return self._retry.call(lambda: self._fetched(uri, self._revision), retryable=_retryable).read_bytes()
        except ObjectNotFoundError:
            return None

    def upload(self, path: Path, uri: Uri, on_bytes: ByteCount) -> None:  # noqa: ARG002 (the Protocol's)
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def create(self, uri: Uri, content: bytes) -> None:  # noqa: ARG002
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:  # noqa: ARG002
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def delete(self, uri: Uri) -> None:
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def delete_folder(self, uri: Uri) -> None:
        """Refused: the Hub is only read."""
        raise _read_only(uri)

    def _listed(self, repo: str) -> list[SourceObject]:
        """The model's files, by the Hub. HfApi.model_info asks the same, but only once and without a time limit."""
        token = self._token.read() if self._token else None
        with known_reasons(_what(repo, "", self._revision), token=token is not None):
            answer = get_session().get(
                f"{constants.ENDPOINT}/api/models/{repo}/revision/{quote(self._revision or DEFAULT_REVISION, safe='')}",
                headers=build_hf_headers(token=token),
                params={"blobs": "true"},
                timeout=_ANSWER_SECONDS,
            )
            hf_raise_for_status(answer)
            try:
                info = _ModelInfo.model_validate_json(answer.content)
            except ValidationError as error:
                raise FileMetadataError(f"no model's description at {answer.url}") from error
        return [
            SourceObject(
                uri=f"hf://{repo}/{item.name}",
                size=item.size,
                etag=item.blob_id,
                sha256=item.lfs.sha256 if item.lfs else None,
                revision=info.sha,
            )
            for item in info.siblings
        ]

    def _checked(self, source: SourceObject, on_bytes: ByteCount, folder: Path | None) -> Path:
        """The file, which is what the Hub told of; one that is not is fetched once more, and no third time.

        The client goes on within a file when the connection ends or is silent. Not when it is reset, nor when the Hub
        answers 5xx: then the file begins anew here (huggingface_hub:file_download.py, http_get).
        """
        uri, wrong = source.location, None
        for _ in range(2):
            file = self._fetched_with_retries(uri, source.revision, on_bytes, folder, anew=wrong is not None)
            wrong = damage(file, source)
            if wrong is None:
                return file
            if is_offline_mode():
                break
            event("damaged", level=logging.WARNING, message=f"{uri} {wrong}")
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"{_what(*_split(uri), source.revision)} {wrong}: the local cache, or what answers for the Hub, damages "
            "it; check HF_ENDPOINT and the proxy",
        )

    def _fetched_with_retries(
        self, uri: Uri, revision: str | None, on_bytes: ByteCount, folder: Path | None, *, anew: bool
    ) -> Path:
        last = time.monotonic()

        def came(count: int) -> None:
            nonlocal last
            last = time.monotonic()
            on_bytes(count)

        def fetch() -> Path:
            return self._fetched(uri, revision, came, folder=folder, anew=anew).resolve()

        return self._retry.call(fetch, retryable=_retryable, last_progress=lambda: last)

    def _fetched(
        self,
        uri: Uri,
        revision: str | None,
        on_bytes: ByteCount | None = None,
        *,
        folder: Path | None = None,
        anew: bool = False,
    ) -> Path:
        """The file in the cache, or in a folder of its own; what comes over the network is counted."""
        repo, file = _split(uri)
        token = self._token.read() if self._token else None
        with known_reasons(_what(repo, file, revision), token=token is not None):
            return Path(
                hf_hub_download(
                    repo,
                    file,
                    revision=revision or DEFAULT_REVISION,
                    token=token,
                    cache_dir=self._cache,
                    local_dir=folder,
                    force_download=anew,
                    tqdm_class=counter(on_bytes) if on_bytes else None,
                )
            )

    def _cached(self, repo: str) -> list[SourceObject]:
        """The files of the cached snapshot."""
        with known_reasons(_what(repo, "", self._revision), token=self._token is not None):
            folder = snapshot_download(repo, revision=self._revision, cache_dir=self._cache, local_files_only=True)
        root = Path(folder)
        return [
            _cached_object(path, f"hf://{repo}/{path.relative_to(root).as_posix()}", revision=root.name)
            for path in sorted(root.rglob("*"))
            if path.is_file()
        ]


def _cached_object(path: Path, uri: str, revision: str) -> SourceObject:
    """A file of a snapshot, with the identity that the Hub gives it too.

    A snapshot links to a blob that is named by its git id or SHA-256; the blob may itself be a link, to a store shared
    by repositories where it has another name, so one link is followed and no more. Without links the content is read.
    """
    name = path.readlink().name if path.is_symlink() else sha256_of(path)
    return SourceObject(
        uri=uri,
        size=path.stat().st_size,
        etag=name,
        sha256=name if len(name) == _SHA256_DIGITS else None,
        revision=revision,
    )


def _retryable(error: Exception) -> Retryable | None:
    """The failure, when the same request may succeed later."""
    if not isinstance(error, HubUnavailableError):
        return None
    return Retryable(error.message, error.retry_after, unreachable=not error.is_there)


def _uncounted(_: int) -> None:
    """For requests whose bytes do not count as progress."""


def _split(uri: Uri) -> tuple[str, str]:
    """`org/name` and the file in it."""
    assert uri.scheme is Scheme.HF
    organisation, name, *rest = f"{uri.authority}/{uri.path}".rstrip("/").split("/")
    return f"{organisation}/{name}", "/".join(rest)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _what(repo: str, file: str, revision: str | None) -> str:
    return f"hf://{repo}" + (f"/{file}" if file else "") + f" at revision {revision or DEFAULT_REVISION}"


def _read_only(uri: Uri) -> TrainerError:
    return TrainerError(FailureReason.NOT_SUPPORTED, f"{uri}: the Hub is only read; put the output into s3://")
