"""The store of S3 and S3-compatible servers (SeaweedFS, MinIO, Ceph, R2 and others)."""

import io
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.exceptions import ClientError, ResponseStreamingError
from s3transfer.subscribers import BaseSubscriber
from urllib3.exceptions import HTTPError as Urllib3HTTPError

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.output import StorageSpec
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.storage.base import (
    AlreadyExistsError,
    ByteCount,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectReplacedError,
)
from finetune_trainer.storage.credentials import Credentials
from finetune_trainer.storage.parallel import FILES_AT_A_TIME
from finetune_trainer.storage.partial import partial_file
from finetune_trainer.storage.retry import Retryable, RetryNotifier, RetryPolicy
from finetune_trainer.storage.s3_client import CONNECTIONS, S3Connection
from finetune_trainer.storage.s3_errors import (
    FAILURES_OF_S3,
    Attempted,
    error_code,
    http_status,
    is_refused_identity,
    is_unknown_identity,
    translate,
)
from finetune_trainer.storage.s3_stream import BUFFER_BYTES, Body, ResumingStream
from finetune_trainer.storage.timing import TRAINING, Timing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from s3transfer.futures import TransferFuture

_MIB = 1 << 20
_PART_BYTES = 16 * _MIB
_PARTS_AT_A_TIME = CONNECTIONS // FILES_AT_A_TIME
_UPLOADS = TransferConfig(
    multipart_threshold=_PART_BYTES,
    multipart_chunksize=_PART_BYTES,
    max_concurrency=16,
    # The CRT client ignores endpoint_url (boto3 1.44, boto3/crt.py) and most of this configuration.
    preferred_transfer_client="classic",
)
_BROKEN_OFF = (ResponseStreamingError, Urllib3HTTPError)
"""Exceptions of an answer's body that ends early or comes too slowly: an object's body, or an error page's."""
_BROKEN_OFF_RETRY = RetryPolicy(
    seconds=math.inf, tries=4, first_pause=0.2, factor=4.0, longest_pause=3.2, notifier=RetryNotifier(lambda _: None)
)
"""The retry policy for a request whose answer is incomplete. The pauses are seconds long, so no listener is told."""
T = TypeVar("T")


class S3Store:
    """A store of objects in S3 buckets. All buckets share one client.

    Args:
        spec: endpoint and options of object storage.
        credentials: the mounted access keys. None means the SDK's own credential chain.
        timing: time limits of requests.

    Raises:
        TrainerError: the endpoint or the certificates are refused, or a mounted key is missing.
    """

    def __init__(self, spec: StorageSpec, credentials: Credentials | None, *, timing: Timing = TRAINING) -> None:
        self._connection = S3Connection(spec, credentials, timing)
        self._reading = timing.reading
        self._rotation = timing.rotation

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """See `Store.stat`. `s3://bucket/x` is the object x if it exists, else all objects under x/."""
        if uri.path and not uri.path.endswith("/"):
            try:
                return [self._head(uri)]
            except ObjectNotFoundError:
                objects = self._list(uri, uri.path + "/")
        else:
            objects = self._list(uri, uri.path)
        if not objects:
            raise ObjectNotFoundError(f"{self._attempted('looking for', uri)}: there is no such object or prefix")
        return objects

    def open(self, source: SourceObject) -> BinaryIO:
        """See `Store.open`."""
        return cast("BinaryIO", io.BufferedReader(self._stream(source, 0, source.size), BUFFER_BYTES))

    def download(
        self,
        source: SourceObject,
        target: Path,
        on_bytes: ByteCount,
        *,
        link: bool = True,  # noqa: ARG002 (the Protocol's)
    ) -> None:
        """See `Store.download`. A large object is read in parallel parts, each with `If-Match` on `stat`'s ETag."""
        with partial_file(target) as partial:
            with partial.open("wb") as file:
                file.truncate(source.size)
            ended = threading.Event()

            def fetch(start: int) -> None:
                stop = min(start + _PART_BYTES, source.size)
                with self._stream(source, start, stop) as stream, partial.open("r+b") as file:
                    file.seek(start)
                    while not ended.is_set() and (chunk := stream.read(_MIB)):
                        file.write(chunk)
                        on_bytes(len(chunk))

            with ThreadPoolExecutor(_PARTS_AT_A_TIME, thread_name_prefix="part") as pool:
                try:
                    parts = range(0, source.size, _PART_BYTES)
                    for future in as_completed([pool.submit(fetch, start) for start in parts]):
                        future.result()
                finally:
                    ended.set()

    def upload(self, path: Path, uri: Uri, on_bytes: ByteCount) -> None:
        """See `Store.upload`. By default the request has checksums, so that the server refuses damaged bytes."""

        def put(client: "S3Client") -> None:
            with create_transfer_manager(client, _UPLOADS) as manager:
                subscribers = [_ProgressSubscriber(on_bytes)]
                manager.upload(str(path), uri.authority, uri.path, subscribers=subscribers).result()

        self._call("writing", uri, put)

    def read(self, uri: Uri) -> bytes | None:
        """See `Store.read`."""
        try:
            return self._call("reading", uri, lambda client: self._content(client, uri)[0])
        except ObjectNotFoundError:
            return None

    def create(self, uri: Uri, content: bytes) -> None:
        """See `Store.create`. The server checks the condition (`If-None-Match: *`)."""

        def put(client: "S3Client") -> None:
            try:
                client.put_object(Bucket=uri.authority, Key=uri.path, Body=content, IfNoneMatch="*")
            except ClientError as error:
                if http_status(error) == 412 or error_code(error) == "ConditionalRequestConflict":
                    raise AlreadyExistsError(str(uri)) from error
                raise

        try:
            self._call("writing", uri, put)
        except AlreadyExistsError:
            # When an answer is lost, the SDK repeats the request, and then finds the object of its first request.
            if self.read(uri) != content:
                raise

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:
        """See `Store.replace`. The server checks the condition (`If-Match`).

        A server that answers 501 to the condition gets a PUT without it.
        """

        def put(client: "S3Client") -> None:
            if expected is None:
                client.put_object(Bucket=uri.authority, Key=uri.path, Body=content)
                return
            try:
                current, etag = self._content(client, uri)
                if current != expected:
                    raise ObjectChangedError(str(uri))
                client.put_object(Bucket=uri.authority, Key=uri.path, Body=content, IfMatch=etag)
            except ClientError as error:
                if http_status(error) in (404, 409, 412) and error_code(error) != "NoSuchBucket":
                    raise ObjectChangedError(str(uri)) from error
                if http_status(error) != 501:
                    raise
                client.put_object(Bucket=uri.authority, Key=uri.path, Body=content)

        try:
            self._call("writing", uri, put)
        except ObjectChangedError:
            # When an answer is lost, the SDK repeats the request, and then finds the object of its first request.
            if self.read(uri) != content:
                raise

    def delete(self, uri: Uri) -> None:
        """See `Store.delete`."""
        self._call("deleting", uri, lambda client: client.delete_object(Bucket=uri.authority, Key=uri.path))

    def delete_folder(self, uri: Uri) -> None:
        """See `Store.delete_folder`. Sends one request per object: not every server and policy allows DeleteObjects."""
        for item in self._list(uri, uri.path.rstrip("/") + "/"):
            self.delete(item.location)

    def _head(self, uri: Uri) -> SourceObject:
        def ask(client: "S3Client") -> SourceObject:
            try:
                answer = client.head_object(Bucket=uri.authority, Key=uri.path)
                if "ETag" not in answer:
                    raise self._no_s3("reading", uri)
                return _source(uri, answer["ContentLength"], answer["ETag"])
            except ClientError as error:
                if http_status(error) not in (400, 401, 403, 404, 409):
                    raise
            # The answer to HEAD has no body and so no error code. GET tells a wrong key from a wrong policy.
            whole = client.get_object(Bucket=uri.authority, Key=uri.path)
            whole["Body"].close()
            if "ETag" not in whole:
                raise self._no_s3("reading", uri)
            return _source(uri, whole["ContentLength"], whole["ETag"])

        return self._call("reading", uri, ask)

    def _no_s3(self, what: str, uri: Uri) -> TrainerError:
        """The error of an answer that no S3 server gives: that of a web console, or a proxy's login page."""
        return TrainerError(
            FailureReason.STORAGE_UNAVAILABLE,
            f"{self._attempted(what, uri)}: something answers, but not as S3 does; is storage.endpoint the address of "
            "a web console?",
        )

    def _content(self, client: "S3Client", uri: Uri) -> tuple[bytes, str]:
        """Returns a small object's bytes and its ETag.

        Raises:
            ResponseStreamingError: the body ended early, or came too slowly.
            TrainerError: the answer has no ETag.
            BotoCoreError, ClientError, urllib3's HTTPError: see `FAILURES_OF_S3`.
        """
        answer = client.get_object(Bucket=uri.authority, Key=uri.path)
        with closing(answer["Body"]) as body:
            if "ETag" not in answer:
                raise self._no_s3("reading", uri)
            try:
                return body.read(), answer["ETag"]
            except FAILURES_OF_S3 as error:
                raise ResponseStreamingError(error=error) from error

    def _list(self, uri: Uri, prefix: str) -> list[SourceObject]:
        def ask(client: "S3Client") -> list[SourceObject]:
            objects = []
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=uri.authority, Prefix=prefix):
                if "Name" not in page:
                    raise self._no_s3("listing", uri)
                for item in page.get("Contents", []):
                    if "ETag" not in item:
                        raise self._no_s3("listing", uri)
                    if not item["Key"].endswith("/"):  # a web console makes such an object for an empty "folder"
                        place = Uri(scheme=Scheme.S3, authority=uri.authority, path=item["Key"])
                        objects.append(_source(place, item["Size"], item["ETag"]))
            return objects

        return sorted(self._call("listing", uri, ask), key=lambda item: item.uri)

    def _stream(self, source: SourceObject, start: int, stop: int) -> ResumingStream:
        """Returns a stream of the bytes from `start` to before `stop`. It fails if `stat` saw another object."""
        uri = source.location

        def open_at(offset: int) -> Body:
            asked: dict[str, str] = {"IfMatch": f'"{source.etag}"'} if source.etag else {}
            if offset or stop != source.size:
                asked["Range"] = f"bytes={offset}-{stop - 1}"

            def get(client: "S3Client") -> Body:
                answer = client.get_object(Bucket=uri.authority, Key=uri.path, **asked)  # type: ignore[arg-type]
                part = answer.get("ContentRange", "")
                # A server without range requests sends the whole object, without Content-Range.
                size = part.rpartition("/")[2] if "Range" in asked else str(answer["ContentLength"])
                if size != str(source.size) or answer["ContentLength"] != stop - offset:
                    answer["Body"].close()
                    raise ObjectReplacedError(source.uri)
                return cast("Body", answer["Body"])

            return self._with_renewal(get)

        attempted = self._attempted("reading", uri)
        return ResumingStream(open_at, stop, lambda error: translate(error, attempted), self._reading, start=start)

    def _call(self, operation: str, uri: Uri, request: Callable[["S3Client"], T]) -> T:
        """Sends a request. When its answer ends early or comes too slowly, sends it again.

        The SDK itself retries a request that gets no answer. It does not retry when the body of the answer breaks off.
        """
        try:
            return _BROKEN_OFF_RETRY.call(lambda: self._with_renewal(request), retryable=_broken_off)
        except FAILURES_OF_S3 as error:
            raise translate(error, self._attempted(operation, uri)) from error

    def _with_renewal(self, request: Callable[["S3Client"], T]) -> T:
        """Sends a request. While the server refuses keys that it accepted before, waits for new ones."""
        return self._rotation.call(lambda: self._ask(request), retryable=self._rotating)

    def _ask(self, request: Callable[["S3Client"], T]) -> T:
        """Sends a request. When the server refuses the identity, renews the identity and sends the request again."""
        client = self._connection.client
        try:
            answer = request(client)
        except FAILURES_OF_S3 as error:
            if not is_refused_identity(error) or not self._connection.renew(client):
                raise
            answer = request(self._connection.client)
        self._connection.accepted = True
        return answer

    def _rotating(self, error: Exception) -> Retryable | None:
        connection = self._connection
        if not connection.accepted or not is_unknown_identity(error):
            return None
        return Retryable(
            f"{connection.endpoint} does not accept the {connection.identity} any more; waiting for new keys"
        )

    def _attempted(self, operation: str, uri: Uri) -> Attempted:
        connection = self._connection
        return Attempted(
            operation=operation,
            uri=str(uri),
            endpoint=connection.endpoint,
            identity=connection.identity,
            secrets=connection.secrets,
            agent=connection.agent,
        )


def _broken_off(error: Exception) -> Retryable | None:
    return Retryable(str(error)) if isinstance(error, _BROKEN_OFF) else None


def _source(uri: Uri, size: int, etag: str) -> SourceObject:
    return SourceObject(uri=str(uri), size=size, etag=etag.strip('"'))


class _ProgressSubscriber(BaseSubscriber):
    """Calls `on_bytes` with the bytes of an upload. s3transfer prescribes the method's name."""

    def __init__(self, on_bytes: ByteCount) -> None:
        self._on_bytes = on_bytes

    def on_progress(self, future: "TransferFuture", bytes_transferred: int, **_: object) -> None:  # noqa: ARG002
        """Called with the bytes since the last call. The number is negative when a part is sent again."""
        self._on_bytes(bytes_transferred)
