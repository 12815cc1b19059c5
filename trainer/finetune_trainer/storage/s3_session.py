"""Makes the connections of an S3 client reject forbidden addresses and answers that are too short or too slow.

The SDK makes urllib3 accept an answer that ends early (botocore:httpsession.py, enforce_content_length=False). The SDK
checks the length of an object's body itself, but not that of a listing. It takes half a listing for invalid XML and
does not send the request again.
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

from finetune_trainer.storage.guarded_connection import GuardedConnection
from finetune_trainer.storage.low_speed_limit import LowSpeedLimit

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def make_strict(client: "S3Client", low_speed_limit: LowSpeedLimit) -> None:
    """Replaces the connection classes of a client that has not connected yet.

    Neither botocore nor boto3 has an argument for connection classes. A session looks them up in a private table when
    it creates a connection pool for a server or a proxy.
    """
    session = client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
    session._pool_classes_by_scheme.update(_pools(low_speed_limit))  # noqa: SLF001


def _pools(low_speed_limit: LowSpeedLimit) -> dict[str, type]:
    class Response(http.client.HTTPResponse):
        """An answer that is aborted below the low speed limit."""

        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self.fp = io.BufferedReader(_LimitedFile(self.fp.detach(), low_speed_limit))

    class Plain(GuardedConnection, AWSHTTPConnection):  # type: ignore[misc]  # its stubs contradict themselves
        response_class = Response  # type: ignore[assignment]  # botocore's is for 100-continue only

    class Secure(GuardedConnection, AWSHTTPSConnection):  # type: ignore[misc]
        response_class = Response  # type: ignore[assignment]  # botocore's is for 100-continue only

    class PlainPool(_Strict, AWSHTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(_Strict, AWSHTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Strict:
    """A connection pool that rejects an answer shorter than its Content-Length."""

    def urlopen(self, *arguments: Any, **options: Any) -> Any:
        """Sends a request. urllib3 prescribes the name."""
        options["enforce_content_length"] = True
        return super().urlopen(*arguments, **options)  # type: ignore[misc]


class _LimitedFile(io.RawIOBase):
    """The receiving side of a socket, which raises TimeoutError below the low speed limit."""

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
