"""Reads models and data sets of the Hugging Face Hub through huggingface_hub's own cache.

`stat` resolves a revision to a commit and records the commit with every file. All later requests read that commit, even
if the branch moves. With HF_HUB_OFFLINE=1 the store reads the snapshot in the cache and sends no request.
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
from finetune_trainer.storage.hub_kind import HubRepository
from finetune_trainer.storage.hub_session import counter, make_strict
from finetune_trainer.storage.hub_token import HubToken
from finetune_trainer.storage.low_speed_limit import LowSpeedLimit
from finetune_trainer.storage.partial import partial_file
from finetune_trainer.storage.read_only import ReadOnlyStore
from finetune_trainer.storage.retry import LOG_ONLY, LatePause, Retryable, RetryNotifier, RetryPolicy

DEFAULT_REVISION = "main"
_ANSWER_SECONDS = 30.0
"""Longest wait for bytes of an answer. The client itself has no limit (huggingface_hub:hf_api.py, model_info)."""
_RETRY = RetryPolicy(
    # Since the request, or since the last bytes of a file.
    seconds=90.0,
    tries=6,
    longest_pause=15.0,
    late_pause=LatePause.KEEP,
    # The Hub's rate limits are per five minutes. A longer wait is left to the operator's next attempt.
    longest_retry_after=60.0,
)
_UNREACHABLE_TRIES = 4
"""Tries where no Hub is reached. Usually the network is closed or the name is wrong, so more tries do not help."""
_LOW_SPEED_LIMIT = LowSpeedLimit()
_SHA256_DIGITS = 64
_MOST_FILES = 50_000
"""Longest list of files in an answer (huggingface_hub:_snapshot_download.py, VERY_LARGE_REPO_THRESHOLD)."""


class _Lfs(TolerantWire):
    sha256: str


class _Sibling(TolerantWire):
    name: str = Field(alias="rfilename")
    size: int
    blob_id: str
    lfs: _Lfs | None = None


class _RepositoryInfo(TolerantWire):
    """The fields that are read of the Hub's answer about a repository at a revision (`/api/models/…?blobs=true`)."""

    sha: str
    siblings: list[_Sibling] = Field(default_factory=list)


class HubStore(ReadOnlyStore):
    """A store of Hub repositories at one revision. Objects are `hf://org/name/file`, `hf://datasets/org/name/file`.

    The revision of a repository is resolved once. If a branch moves, later requests still read the first commit.

    Args:
        revision: branch, tag or commit. None is the main branch.
        token: access token of gated and private repositories. With None the client uses its own (HF_TOKEN, a login).
        cache: folder of the Hub cache. None is the client's default.
        sleep: waits for a number of seconds.
        low_speed_limit: the lowest speed of an answer.
        notifier: is told about every wait.
    """

    place = "the Hub"

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
        self._commits: dict[str, str] = {}
        policy = replace(_RETRY, sleep=sleep, notifier=notifier)
        self._retry = replace(policy, unreachable=replace(policy, tries=_UNREACHABLE_TRIES))

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """See `Store.stat`. Sends one request for a repository. Offline, lists the files of the cached snapshot."""
        repo, file = _split(uri)
        objects = (
            self._cached_files(repo)
            if is_offline_mode()
            else self._retry.call(lambda: self._request_files(repo), retryable=_retryable)
        )
        wanted = f"hf://{uri.authority}/{file}".rstrip("/")
        objects = [item for item in objects if item.uri == wanted or item.uri.startswith(wanted + "/")]
        if not objects:
            message = f"{_what(uri, self._revision)}: the Hub's {repo.kind.noun} has no such file"
            raise ObjectNotFoundError(message)
        return sorted(objects, key=lambda item: item.uri)

    def open(self, source: SourceObject) -> BinaryIO:
        """See `Store.open`. Downloads the whole file into the cache first."""
        return cast("BinaryIO", self._verified(source, _uncounted, None).open("rb"))

    def download(self, source: SourceObject, target: Path, on_bytes: ByteCount, *, link: bool = True) -> None:
        """See `Store.download`. With `link`, `target` links to the file in the client's cache and takes no space."""
        if link:
            with partial_file(target) as partial:
                partial.symlink_to(self._verified(source, on_bytes, None))
            return
        folder = _created(target.parent)
        with tempfile.TemporaryDirectory(prefix=".hub-", dir=folder) as own, partial_file(target) as partial:
            # Offline, a client with local_dir does not look into its cache.
            file = self._verified(source, on_bytes, None if is_offline_mode() else Path(own))
            if file.is_relative_to(Path(own).resolve()):
                file.replace(partial)
            else:
                shutil.copyfile(file, partial)

    def read(self, uri: Uri) -> bytes | None:
        """See `Store.read`."""
        try:
            return self._retry.call(lambda: self._download(uri, self._revision), retryable=_retryable).read_bytes()
        except ObjectNotFoundError:
            return None

    def _request_files(self, repo: HubRepository) -> list[SourceObject]:
        """Asks the Hub for the files of a repository.

        HfApi.repo_info sends the same request, but only once and without a time limit.

        Raises:
            TrainerError: the Hub's reason; or the repository has more files than the Hub's answer holds.
        """
        token, place = self._token_for(repo), _uri_of(repo)
        revision = self._commits.get(place) or self._revision or DEFAULT_REVISION
        with known_reasons(_what(place, self._revision), repo.kind, token=token is not None):
            answer = get_session().get(
                f"{constants.ENDPOINT}/api/{repo.kind.route}/{repo.name}/revision/{quote(revision, safe='')}",
                headers=build_hf_headers(token=token),
                params={"blobs": "true"},
                timeout=_ANSWER_SECONDS,
            )
            hf_raise_for_status(answer)
            try:
                info = _RepositoryInfo.model_validate_json(answer.content)
            except ValidationError as error:
                raise FileMetadataError(f"no {repo.kind.noun}'s description at {answer.url}") from error
        if len(info.siblings) > _MOST_FILES:
            raise TrainerError(
                FailureReason.NOT_SUPPORTED,
                f"{_what(place, self._revision)} has more than {_MOST_FILES:,} files, and the Hub does not list more "
                "in one answer: use its Parquet conversion (revision refs/convert/parquet), or copy the files to s3://",
            )
        self._commits[place] = info.sha
        return [
            SourceObject(
                uri=f"{place}/{item.name}",
                size=item.size,
                etag=item.blob_id,
                sha256=item.lfs.sha256 if item.lfs else None,
                revision=info.sha,
            )
            for item in info.siblings
        ]

    def _verified(self, source: SourceObject, on_bytes: ByteCount, folder: Path | None) -> Path:
        """Downloads a file and compares it with size and checksum of `stat`. Downloads a damaged file once more.

        When a connection ends or is silent, the client continues at the same byte. When a connection is reset, or the
        Hub answers 5xx, the client raises and the file is downloaded from its first byte
        (huggingface_hub:file_download.py, http_get).

        Raises:
            TrainerError: MODEL_INVALID or DATASET_INVALID. The second download is damaged too.
        """
        uri, wrong = source.location, None
        for _ in range(2):
            file = self._download_with_retries(uri, source.revision, on_bytes, folder, force=wrong is not None)
            wrong = damage(file, source)
            if wrong is None:
                return file
            if is_offline_mode():
                break
            event("damaged", level=logging.WARNING, message=f"{uri} {wrong}")
        raise TrainerError(
            _split(uri)[0].kind.invalid,
            f"{_what(uri, source.revision)} {wrong}: the local cache, or what answers for the Hub, damages "
            "it; check HF_ENDPOINT and the proxy",
        )

    def _download_with_retries(
        self, uri: Uri, revision: str | None, on_bytes: ByteCount, folder: Path | None, *, force: bool
    ) -> Path:
        last = time.monotonic()

        def count_bytes(count: int) -> None:
            nonlocal last
            last = time.monotonic()
            on_bytes(count)

        def fetch() -> Path:
            return self._download(uri, revision, count_bytes, folder=folder, force=force).resolve()

        return self._retry.call(fetch, retryable=_retryable, last_progress=lambda: last)

    def _download(
        self,
        uri: Uri,
        revision: str | None,
        on_bytes: ByteCount | None = None,
        *,
        folder: Path | None = None,
        force: bool = False,
    ) -> Path:
        """Downloads a file into the cache, or into `folder`. `on_bytes` gets the bytes that come over the network."""
        repo, file = _split(uri)
        token = self._token_for(repo)
        with known_reasons(_what(uri, revision), repo.kind, token=token is not None):
            return Path(
                hf_hub_download(
                    repo.name,
                    file,
                    repo_type=repo.kind.repo_type,
                    revision=revision or DEFAULT_REVISION,
                    token=token,
                    cache_dir=self._cache,
                    local_dir=folder,
                    force_download=force,
                    tqdm_class=counter(on_bytes) if on_bytes else None,
                )
            )

    def _token_for(self, repo: HubRepository) -> str | None:
        return self._token.read(repo.kind.denied) if self._token else None

    def _cached_files(self, repo: HubRepository) -> list[SourceObject]:
        """Returns the files of the cached snapshot."""
        place = _uri_of(repo)
        with known_reasons(_what(place, self._revision), repo.kind, token=self._token is not None):
            folder = snapshot_download(
                repo.name,
                repo_type=repo.kind.repo_type,
                revision=self._revision,
                cache_dir=self._cache,
                local_files_only=True,
            )
        root = Path(folder)
        return [
            _cached_object(path, f"{place}/{path.relative_to(root).as_posix()}", revision=root.name)
            for path in sorted(root.rglob("*"))
            if path.is_file()
        ]


def _cached_object(path: Path, uri: str, revision: str) -> SourceObject:
    """Returns a file of a snapshot with the same ETag and SHA-256 that the Hub gives.

    A file of a snapshot is a link to a blob, whose name is its Git object name or its SHA-256. The blob may be a link
    into a store that repositories share, where it has another name. So only one link is followed. For a file that is no
    link, the SHA-256 is computed.
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
    """Returns the failure when the same request may succeed later, else None."""
    if not isinstance(error, HubUnavailableError):
        return None
    return Retryable(error.message, error.retry_after, unreachable=not error.reached)


def _uncounted(_: int) -> None:
    """Ignores the bytes of a request that is not part of a download's progress."""


def _split(uri: Uri) -> tuple[HubRepository, str]:
    """Splits a URI into the repository and the file's path in it."""
    assert uri.scheme is Scheme.HF
    return HubRepository.of(uri.authority), uri.path.rstrip("/")


def _uri_of(repo: HubRepository) -> str:
    prefix = f"{repo.kind.repo_type}s/" if repo.kind.repo_type else ""
    return f"{Scheme.HF}://{prefix}{repo.name}"


def _created(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _what(place: Uri | str, revision: str | None) -> str:
    return f"{str(place).rstrip('/')} at revision {revision or DEFAULT_REVISION}"
