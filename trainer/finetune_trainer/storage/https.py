"""Data by https: one file, which is the right one only by its SHA-256.

The file is downloaded as a whole, and read when its checksum is right. The bytes are those that the server stores:
compression of the transfer is not asked for, and not undone.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Uri
from finetune_trainer.runtime.log import event
from finetune_trainer.runtime.machine_errors import DISK_FULL
from finetune_trainer.storage.base import ByteCount
from finetune_trainer.storage.content import sha256_of
from finetune_trainer.storage.https_client import HttpsClient
from finetune_trainer.storage.low_speed_limit import LowSpeedLimit
from finetune_trainer.storage.partial import partial_file
from finetune_trainer.storage.read_only import ReadOnlyStore
from finetune_trainer.storage.retry import Retryable
from finetune_trainer.storage.s3_errors import in_words
from finetune_trainer.storage.timing import Timing

_PIECE = 1 << 16
_SAID_BYTES = 400
_PASSES = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed later."""
_UNREACHABLE = (NewConnectionError, NameResolutionError, ConnectTimeoutError)


class _UnavailableError(TrainerError):
    """The server does not answer, or its answer breaks off. The same request may succeed later."""

    def __init__(self, message: str, *, retry_after: float | None = None, unreachable: bool = False) -> None:
        super().__init__(FailureReason.STORAGE_UNAVAILABLE, message)
        self.retry_after, self.unreachable = retry_after, unreachable


class HttpsStore(ReadOnlyStore):
    """A store of single files at https:// URLs. It is only read.

    Args:
        checksums: SHA-256 of the file at each URI, in lower-case hexadecimal.
        most_bytes: largest size of a file.
        cache: folder for downloaded files.
        ca_bundle: PEM certificates that are trusted beside those of the system.
        timing: time limits of requests.

    Raises:
        TrainerError: INVALID_SPEC. The certificates cannot be used.
    """

    place = "https://"

    def __init__(
        self, checksums: Mapping[Uri, str], *, most_bytes: int, cache: Path, ca_bundle: str | None, timing: Timing
    ) -> None:
        self._checksums = dict(checksums)
        self._most_bytes = most_bytes
        self._cache = cache
        self._client = HttpsClient(ca_bundle, timing)
        self._retry = replace(timing.reading, unreachable=replace(timing.reading, seconds=timing.unreachable_seconds))
        self._low_speed_limit: LowSpeedLimit = timing.low_speed_limit
        self._files: dict[str, Path] = {}

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """See `Store.stat`. Downloads the file: before, nothing of it is known for certain."""
        expected = self._checksums.get(uri)
        if expected is None:
            raise TrainerError(
                FailureReason.INVALID_SPEC, f"{uri}: data by https needs its SHA-256: set dataset.sha256"
            )
        with _local_errors(uri):
            file = self._files.get(str(uri)) or self._fetched(uri, expected)
            self._files[str(uri)] = file
            return [SourceObject(uri=str(uri), size=file.stat().st_size, sha256=expected)]

    def open(self, source: SourceObject) -> BinaryIO:
        """See `Store.open`."""
        with _local_errors(source.location):
            return cast("BinaryIO", self._files[source.uri].open("rb"))

    def download(self, source: SourceObject, target: Path, on_bytes: ByteCount, *, link: bool = True) -> None:
        """See `Store.download`."""
        with _local_errors(source.location), partial_file(target) as partial:
            if link:
                partial.symlink_to(self._files[source.uri])
            else:
                shutil.copyfile(self._files[source.uri], partial)
        on_bytes(source.size)

    def read(self, uri: Uri) -> bytes | None:
        """See `Store.read`."""
        [source] = self.stat(uri)
        with self.open(source) as stream:
            return stream.read()

    def _fetched(self, uri: Uri, expected: str) -> Path:
        """Returns the file with the expected checksum from the cache, downloaded if it is not there.

        Several processes of a pod use one cache: one of them downloads, and the others wait.

        Raises:
            TrainerError: DATASET_INVALID, the file has another checksum or is too large. Else the server's reason.
        """
        target = self._cache / expected
        self._cache.mkdir(parents=True, exist_ok=True)
        with _locked(self._cache / f".{expected}.lock"):
            if target.is_file() and sha256_of(target) == expected:
                return target
            event("fetching", data=uri)
            with partial_file(target) as partial:
                download = _Download(uri, partial, self._client, self._most_bytes, self._low_speed_limit)
                self._retry.call(download.go_on, retryable=_retryable, last_progress=lambda: download.last_bytes)
                digest = sha256_of(partial)
                if digest != expected and download.resumed:
                    download.start_again()  # the parts may be of two files
                    self._retry.call(download.go_on, retryable=_retryable, last_progress=lambda: download.last_bytes)
                    digest = sha256_of(partial)
                if digest != expected:
                    raise TrainerError(
                        FailureReason.DATASET_INVALID,
                        f"{uri}: found the SHA-256 {digest}, expected {expected}; the file is another one than the "
                        f"recipe was written for{download.hint}",
                    )
        return target


class _Download:
    """One download, which continues where it broke off if the server can tell that the file is still the same.

    Attributes:
        last_bytes: the time, by `time.monotonic`, of the last bytes.
        resumed: whether the file consists of several parts.
        hint: what may be wrong with the content, for messages.
    """

    def __init__(
        self, uri: Uri, file: Path, client: HttpsClient, most_bytes: int, low_speed_limit: LowSpeedLimit
    ) -> None:
        self._uri, self._file, self._client = uri, file, client
        self._most_bytes, self._low_speed_limit = most_bytes, low_speed_limit
        self._validator: str | None = None
        self.last_bytes = time.monotonic()
        self.resumed = False
        self.hint = ""

    def start_again(self) -> None:
        """Forgets what has come."""
        self._validator, self.resumed = None, False

    def go_on(self) -> None:
        """Requests what is missing, and writes it to the file.

        Raises:
            _UnavailableError: the same request may succeed later.
            TrainerError: the server's reason, or the file is too large.
        """
        have = self._file.stat().st_size if self._validator is not None and self._file.exists() else 0
        headers = {"Accept-Encoding": "identity", "User-Agent": "finetune-operator"}
        if have and self._validator is not None:
            headers |= {"Range": f"bytes={have}-", "If-Range": self._validator}
        try:
            answer = self._client.get(self._uri.url, headers)
            try:
                self._take(answer, have)
            finally:
                answer.close()
        except HTTPError as error:
            raise self._unanswered(error) from error

    def _take(self, answer: urllib3.BaseHTTPResponse, have: int) -> None:
        continues = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if answer.status == 416 or (answer.status == 206 and not continues):
            self.start_again()
            raise _UnavailableError(f"{self._uri}: the server does not continue the file; it is fetched from its start")
        if answer.status not in (200, 206):
            raise self._refused(answer)
        received = have if continues else 0
        self.resumed = continues or (self.resumed and received > 0)
        etag = answer.headers.get("ETag", "")
        self._validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            self.hint = "; the server has sent a web page (text/html)"
        length = answer.headers.get("Content-Length", "")
        self._require_size(received + (int(length) if length.isdecimal() else 0))
        watch = self._low_speed_limit.watch()
        with self._file.open("ab" if continues else "wb") as file:
            piece = b""

            def receive() -> int:
                nonlocal piece
                piece = answer.read(_PIECE, decode_content=False)
                return len(piece)

            while True:
                try:
                    watch.wait(receive)
                except TimeoutError as error:
                    raise _UnavailableError(f"{self._uri}: the answer comes too slowly") from error
                if not piece:
                    return
                received += len(piece)
                self._require_size(received)
                file.write(piece)
                self.last_bytes = time.monotonic()

    def _require_size(self, size: int) -> None:
        if size > self._most_bytes:
            raise TrainerError(
                FailureReason.DATASET_INVALID,
                f"{self._uri}: found at least {size:,} bytes, expected at most {self._most_bytes:,}; raise "
                "dataset.limits.maxBytes if that many are meant",
            )

    def _refused(self, answer: urllib3.BaseHTTPResponse) -> TrainerError:
        status = f"{answer.status} {answer.reason or ''}".strip()
        said = self._words_of(answer)
        answers = f"{self._uri}: the server answers {in_words(status)}{said}"
        if answer.status in _PASSES:
            wait = answer.headers.get("Retry-After", "")
            return _UnavailableError(answers, retry_after=int(wait) if wait.isdecimal() else None)
        if answer.status in (401, 403, 407):
            message = f"{answers}; no login is sent: copy the file to s3://, or to a server that gives it to everybody"
            return TrainerError(FailureReason.DATASET_ACCESS_DENIED, message)
        return TrainerError(FailureReason.DATASET_NOT_FOUND, answers)

    def _words_of(self, answer: urllib3.BaseHTTPResponse) -> str:
        """The server's own words, if it has sent text."""
        if not answer.headers.get("Content-Type", "").startswith(("text/plain", "application/json")):
            return ""
        try:
            text = answer.read(_SAID_BYTES, decode_content=False).decode("utf-8", errors="replace")
        except HTTPError:
            return ""
        return f" ({words})" if (words := in_words(text)) else ""

    def _unanswered(self, error: HTTPError) -> _UnavailableError:
        if isinstance(error, SSLError) and "CERTIFICATE" in str(error):
            why = f"its certificate is not trusted: name its authority in storage.caBundle ({in_words(error)})"
        elif isinstance(error, NameResolutionError):
            why = "the name does not resolve"
        elif isinstance(error, NewConnectionError):  # before its parent, ConnectTimeoutError
            why = "nothing answers there"
        elif isinstance(error, ConnectTimeoutError | ReadTimeoutError):
            why = "the server does not answer in time"
        else:
            why = f"the connection broke off ({in_words(error)})"
        return _UnavailableError(f"{self._uri}: {why}", unreachable=isinstance(error, _UNREACHABLE))


def default_cache() -> Path:
    """The folder for downloaded files: of the user, in a pod on its own volume."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a name and a HOME
        root = Path(tempfile.gettempdir())
    return root / "finetune" / "https"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock. On a file system without locks, does nothing."""
    with path.open("ab") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _local_errors(uri: Uri) -> Iterator[None]:
    """Raises a TrainerError with a reason in place of an OSError of this machine."""
    try:
        yield
    except OSError as error:
        full = error.errno in DISK_FULL
        reason = FailureReason.DISK_FULL if full else FailureReason.STORAGE_UNAVAILABLE
        raise TrainerError(reason, f"keeping {uri}: {os.strerror(error.errno or errno.EIO)}") from error


def _retryable(error: Exception) -> Retryable | None:
    if not isinstance(error, _UnavailableError):
        return None
    return Retryable(error.message, error.retry_after, unreachable=error.unreachable)
