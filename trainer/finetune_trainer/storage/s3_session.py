"""The connections of an S3 client, made stricter than the SDK's: an answer has its whole length, and is fast enough.

The SDK asks urllib3 to pass over an answer that ends early (botocore:httpsession.py, enforce_content_length=False). It
looks at the length of an object's bytes itself, but takes half of a listing for XML that it cannot parse, and does not
ask again.
"""

import http.client
import io
import socket
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

from finetune_trainer.storage.low_speed_limit import LowSpeedLimit

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def make_strict(client: "S3Client", low_speed_limit: LowSpeedLimit) -> None:
    """Makes the connections of a client that has not connected yet strict.

    Neither botocore nor boto3 takes classes of connections; a session looks them up in this table whenever it makes a
    pool, for a server and for a proxy.
    """
    session = client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
    session._pool_classes_by_scheme.update(_pools(low_speed_limit))  # noqa: SLF001


def _pools(low_speed_limit: LowSpeedLimit) -> dict[str, type]:
    class Response(http.client.HTTPResponse):
        """An answer that must be fast enough."""

        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self.fp = io.BufferedReader(_LimitedFile(self.fp.detach(), low_speed_limit))

    class Plain(AWSHTTPConnection):
        response_class = Response  # type: ignore[assignment]  # botocore's is for refusals only

    class Secure(AWSHTTPSConnection):
        response_class = Response  # type: ignore[assignment]  # botocore's is for refusals only

    class PlainPool(_Strict, AWSHTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(_Strict, AWSHTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Strict:
    """A pool whose answers must have the length that they announce."""

    def urlopen(self, *arguments: Any, **options: Any) -> Any:
        """Sends a request (urllib3's name)."""
        options["enforce_content_length"] = True
        return super().urlopen(*arguments, **options)  # type: ignore[misc]


class _LimitedFile(io.RawIOBase):
    """The receiving side of a socket."""

    def __init__(self, raw: io.RawIOBase, low_speed_limit: LowSpeedLimit) -> None:
        super().__init__()
        self._raw = raw
        self._watch = low_speed_limit.watch()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "io.WriteableBuffer", /) -> int:  # type: ignore[name-defined]
        return self._watch.wait(lambda: self._raw.readinto(buffer) or 0)

    def close(self) -> None:
        self._raw.close()
        super().close()
